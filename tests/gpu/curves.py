"""curves.py A B: the losses of two runs' metrics.jsonl, step by step; fails when they differ by more than 1e-4 relative."""
import json
import sys


def losses(path):
    with open(path) as lines:
        rows = [json.loads(line) for line in lines]
    return {row["step"]: row["train/loss"] for row in rows if "train/loss" in row}


a, b = losses(sys.argv[1]), losses(sys.argv[2])
steps = sorted(set(a) & set(b))
apart = max((abs(a[s] - b[s]) / max(abs(a[s]), 1e-3) for s in steps), default=float("inf"))
print(f"{len(steps)} steps, largest relative difference of the loss {apart:.2e}")
for step in steps[:3] + steps[-3:]:
    print(step, a[step], b[step])
if apart > 1e-4 or len(steps) < 50:
    print("FAILED curves")
    sys.exit(1)
