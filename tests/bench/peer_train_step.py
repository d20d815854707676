"""A training step of fixed shape in PyTorch, asked for round by round on standard input (the protocol of src/peer.rs).

Modes: eager attention, scaled_dot_product_attention (sdpa), torch.compile over sdpa, bfloat16 autocast over sdpa.
"""

import argparse
import json
import os
import sys
import time

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import torch
from transformers import BertConfig, BertForSequenceClassification


def say(answer):
    print(json.dumps(answer), flush=True)


def trainer(a):
    torch.manual_seed(1)
    config = BertConfig(**{k: v for k, v in json.load(open(a.config)).items() if k != "model_type"}, num_labels=2)
    config._attn_implementation = "eager" if a.mode == "eager" else "sdpa"
    model = BertForSequenceClassification(config).train()
    decay, plain = [], []
    for name, parameter in model.named_parameters():
        (plain if name.endswith("bias") or "LayerNorm" in name else decay).append(parameter)
    optimizer = torch.optim.AdamW(
        [{"params": decay, "weight_decay": 0.01}, {"params": plain, "weight_decay": 0.0}], lr=1e-5, fused=True,
    )
    forward = torch.compile(model) if a.mode == "compile" else model
    generator = torch.Generator().manual_seed(2)
    batches = []
    for _ in range(8):
        ids = torch.randint(1000, config.vocab_size, (a.rows, a.tokens), generator=generator)
        batches.append(({"input_ids": ids, "attention_mask": torch.ones_like(ids)}, torch.randint(0, 2, (a.rows,), generator=generator)))
    count = 0

    def step():
        nonlocal count
        batch, target = batches[count % len(batches)]
        count += 1
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=a.mode == "bf16"):
            loss = torch.nn.functional.cross_entropy(forward(**batch).logits, target)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return loss.item()

    return step


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mode", required=True, choices=["eager", "sdpa", "compile", "bf16"])
    parser.add_argument("--config", required=True)
    parser.add_argument("--rows", type=int, required=True)
    parser.add_argument("--tokens", type=int, required=True)
    parser.add_argument("--threads", type=int, default=2)
    a = parser.parse_args()
    torch.set_num_threads(a.threads)
    try:
        step = trainer(a)
        for _ in range(3):
            loss = step()
    except Exception as error:  # A mode that this machine cannot run is left out of the table, with its reason.
        say({"error": f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"[:300]})
        return
    say({"ready": {"torch": torch.__version__, "loss": loss}})
    for line in sys.stdin:
        units = int(line.split()[1])
        started = time.perf_counter()
        for _ in range(units):
            loss = step()
        say({"seconds": time.perf_counter() - started, "loss": loss})


if __name__ == "__main__":
    main()
