"""Writes padding.json: what transformers computes with tiny/roberta where the padding token stands inside of texts and config.json does
not say which token it is."""

import json
import shutil
import tempfile
from pathlib import Path

import torch
import transformers as hf

from reference import HERE

ROWS = [[0, 5, 1, 7, 1, 1, 9, 2], [1, 0, 33, 2, 1], [0, 4, 5, 6, 2]]


def main():
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder) / "roberta"
        shutil.copytree(HERE / "tiny" / "roberta", folder)
        config = json.loads((folder / "config.json").read_text())
        del config["pad_token_id"]
        (folder / "config.json").write_text(json.dumps(config))
        model = hf.RobertaModel.from_pretrained(folder, attn_implementation="eager").eval()
        with torch.no_grad():
            last = [model(torch.tensor([row]), attention_mask=torch.ones(1, len(row))).last_hidden_state[0] for row in ROWS]
    rows = [{"ids": ids, "last": [[round(v, 7) for v in token] for token in state.tolist()]} for ids, state in zip(ROWS, last)]
    (HERE / "padding.json").write_text("[\n" + ",\n".join(map(json.dumps, rows)) + "\n]\n")


if __name__ == "__main__":
    main()
