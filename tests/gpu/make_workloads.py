"""make_workloads.py TOKENIZER SST2_TRAIN.tsv SQUAD.json[.gz] > workloads.json: what `gpu-check speed` and peer.py run, the same on both sides.

Lengths are those of the data's own rows under the tokenizer, [CLS] and [SEP] included, sampled with a fixed seed. Rows are grouped by length as
transformers' Trainer does: within 50 batches the longest first, then the batches in random order. A batch is a list of lengths.
"""
import csv
import gzip
import json
import random
import sys

from tokenizers import Tokenizer


def grouped(lengths, rows, rng):
    rng.shuffle(lengths)
    batches = []
    for at in range(0, len(lengths), 50 * rows):
        part = sorted(lengths[at:at + 50 * rows], reverse=True)
        batches += [part[i:i + rows] for i in range(0, len(part), rows)]
    rng.shuffle(batches)
    return batches


def main():
    tokenizer = Tokenizer.from_file(sys.argv[1])
    tokenizer.no_padding()
    rng = random.Random(7)
    with open(sys.argv[2], newline="") as file:
        lines = list(csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE))[1:]
    short = [len(tokenizer.encode(line[1]).ids) for line in rng.sample(lines, 640)]
    with (gzip.open if sys.argv[3].endswith(".gz") else open)(sys.argv[3], "rt") as file:
        paragraphs = [p for article in json.load(file)["data"] for p in article["paragraphs"]]
    pairs = [(qa["question"], p["context"]) for p in paragraphs for qa in p["qas"]]
    tokenizer.enable_truncation(384, strategy="only_second")
    long = [len(tokenizer.encode(*pair).ids) for pair in rng.sample(pairs, 192)]
    work = [
        {"work": "train", "shape": "32x128", "batches": [[128] * 32]},
        {"work": "train", "shape": "16x512", "batches": [[512] * 16]},
        {"work": "train", "shape": "SST-2, 32 rows", "batches": grouped(short, 32, rng)},
        {"work": "train", "shape": "SQuAD, 16 rows", "batches": grouped(long, 16, rng)},
    ]
    work += [{"work": "forward", "shape": f"{rows}x128", "batches": [[128] * rows]} for rows in [1, 32, 256]]
    print("[\n" + ",\n".join(json.dumps(item, separators=(",", ":")) for item in work) + "\n]")


main()
