"""read_back.py MODEL_DIR [--texts FILE] [TEXT ...]: reads a saved classifier with transformers.

Prints one JSON object: the missing, unexpected and mis-shaped keys, the labels, and ids and logits for every text. FILE has one text a
line; a tab parts the two texts of a pair. The exit status is 1 when a key is missing, unexpected or mis-shaped.
"""

import argparse
import json
import sys

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("text", nargs="*")
    parser.add_argument("--texts", help="file with one text a line")
    parser.add_argument("--max-length", type=int, default=None, help="cut to so many tokens; default: do not cut")
    arguments = parser.parse_args()
    texts = list(arguments.text)
    if arguments.texts:
        with open(arguments.texts, encoding="utf-8", newline="\n") as file:
            texts += file.read().removesuffix("\n").split("\n")
    model, report = AutoModelForSequenceClassification.from_pretrained(
        arguments.model, output_loading_info=True, attn_implementation="eager", dtype=torch.float32
    )
    tokenizer = AutoTokenizer.from_pretrained(arguments.model)
    model.eval()
    rows = []
    for text in texts:
        first, *second = text.split("\t", 1)
        limits = {"truncation": True, "max_length": arguments.max_length} if arguments.max_length else {}
        batch = tokenizer(first, *second, return_tensors="pt", **limits)
        with torch.no_grad():
            logits = model(**batch).logits[0].tolist()
        rows.append({"text": text, "ids": batch["input_ids"][0].tolist(), "logits": logits})
    problems = {key: [str(x) for x in report[key]] for key in ("missing_keys", "unexpected_keys", "mismatched_keys")}
    print(json.dumps(problems | {
        "class": type(model).__name__, "tokenizer": type(tokenizer).__name__, "id2label": model.config.id2label, "rows": rows,
    }, ensure_ascii=False, indent=1))
    sys.exit(1 if any(problems.values()) else 0)


if __name__ == "__main__":
    main()
