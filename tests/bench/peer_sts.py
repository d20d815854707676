"""peer_sts.py FIRST.npy SECOND.npy [--split test]: Spearman of cosine similarities with the scores of STS-B.

FIRST and SECOND hold the embeddings [rows, H] of the first and second sentence of every row, in file order. With --write-texts DIR it writes
the two sentence files instead; with --reference it computes the embeddings with transformers.
"""

import argparse
import json
import os
from pathlib import Path

import numpy as np
from scipy.stats import pearsonr, spearmanr

ROOT = Path(__file__).resolve().parents[2]
SHARED = Path(os.environ.get("ET_SHARED", ROOT / ".." / "shared"))
# Published for the model with mean pooling and at most 256 tokens, times 100.
PUBLISHED = {"test": 82.03, "dev": 86.72}


def mean_pooled(texts):
    import torch
    from transformers import AutoModel, AutoTokenizer

    folder = SHARED / "models" / "all-MiniLM-L6-v2"
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    rows = np.zeros((len(texts), model.config.hidden_size), dtype=np.float32)
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    for start in range(0, len(order), 64):
        picked = order[start : start + 64]
        batch = tokenizer([texts[i] for i in picked], truncation=True, max_length=256, padding="longest", return_tensors="pt")
        with torch.no_grad():
            states = model(**batch).last_hidden_state
        mask = batch["attention_mask"][..., None]
        rows[picked] = ((states * mask).sum(1) / mask.sum(1)).numpy()
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("npy", nargs="*", type=Path)
    parser.add_argument("--split", default="test", choices=["train", "dev", "test"])
    parser.add_argument("--reference", action="store_true")
    parser.add_argument("--write-texts", type=Path, metavar="DIR")
    a = parser.parse_args()
    data = (SHARED / "data" / "sts-b" / f"sts-{a.split}.csv").read_bytes().decode("utf-8")
    rows = [line.removesuffix("\r").split("\t") for line in data.split("\n") if line]
    scores = [float(row[4]) for row in rows]
    sentences = [row[5] for row in rows], [row[6] for row in rows]
    if a.write_texts:
        a.write_texts.mkdir(parents=True, exist_ok=True)
        for name, lines in zip(("first.txt", "second.txt"), sentences):
            (a.write_texts / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
        return
    if not a.reference and len(a.npy) != 2:
        parser.error("two .npy files, or --reference")
    first, second = (mean_pooled(s) for s in sentences) if a.reference else (np.load(path) for path in a.npy)
    if not len(first) == len(second) == len(scores):
        raise SystemExit(f"sts-{a.split}.csv has {len(scores)} rows, the embeddings {len(first)} and {len(second)}")
    first, second = first.astype(np.float64), second.astype(np.float64)
    cosine = (first * second).sum(1) / np.linalg.norm(first, axis=1) / np.linalg.norm(second, axis=1)
    print(json.dumps({
        "split": a.split, "rows": len(scores), "spearman": 100 * spearmanr(cosine, scores).statistic,
        "pearson": 100 * pearsonr(cosine, scores).statistic, "published_spearman": PUBLISHED.get(a.split),
    }))


if __name__ == "__main__":
    main()
