"""One epoch of fine-tuning in PyTorch, asked for on standard input (the protocol of src/peer.rs).

Kinds: `grouped` (rows of like length together, padded to the longest of the batch), `padded` (every row padded to --max-length, random
order), `trainer` (transformers' Trainer, dynamic padding, grouped by length). The first two are the plain loop of peer_finetune.py. With
`-bf16` they train under autocast.
Seconds count from reading the file to the last step; the model is loaded before.
"""

import argparse
import json
import os
import sys
import time

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import numpy as np
import torch
from transformers import AutoTokenizer, BertForSequenceClassification
from transformers.utils import logging

ROWS, LR, WARMUP, DECAY, NORM, WINDOW = 32, 5e-5, 0.1, 0.01, 1.0, 100


def say(answer):
    print(json.dumps(answer), flush=True)


def read(path):
    rows = [line.split("\t") for line in open(path, encoding="utf-8").read().split("\n")[1:] if line]
    texts = [row[1] for row in rows]
    pairs = [row[2] for row in rows] if len(rows[0]) > 2 else None
    return texts, pairs, [int(row[0]) for row in rows]


def tokenized(tokenizer, texts, pairs, max_length, padding):
    found = tokenizer(texts, pairs, truncation=True, max_length=max_length, padding="max_length" if padding else False)
    return found["input_ids"], found["token_type_ids"], found["attention_mask"]


def grouped(lengths, generator):
    order = generator.permutation(len(lengths))
    groups = []
    for start in range(0, len(order), ROWS * WINDOW):
        part = sorted(order[start : start + ROWS * WINDOW], key=lambda i: lengths[i])
        groups += [part[i : i + ROWS] for i in range(0, len(part), ROWS)]
    generator.shuffle(groups)
    return groups


def collated(features, picked):
    longest = max(len(features[0][i]) for i in picked)
    batch = {}
    for name, rows in zip(("input_ids", "token_type_ids", "attention_mask"), features):
        table = torch.zeros(len(picked), longest, dtype=torch.long)
        for row, i in enumerate(picked):
            table[row, : len(rows[i])] = torch.tensor(rows[i])
        batch[name] = table
    return batch


@torch.no_grad()
def evaluate(model, features, labels):
    model.eval()
    order = sorted(range(len(labels)), key=lambda i: len(features[0][i]))
    right = 0
    for start in range(0, len(order), 64):
        picked = order[start : start + 64]
        logits = model(**collated(features, picked)).logits
        right += (logits.argmax(1) == torch.tensor([labels[i] for i in picked])).sum().item()
    return right / len(labels)


def load(a):
    return BertForSequenceClassification.from_pretrained(a.model, num_labels=2, attn_implementation="sdpa", dtype=torch.float32)


def loop(a, tokenizer, model):
    """Answers with the number of real tokens and of steps."""
    generator = np.random.default_rng(1)
    texts, pairs, labels = read(a.train)
    features = tokenized(tokenizer, texts, pairs, a.max_length, a.kind == "padded")
    decay, plain = [], []
    for name, parameter in model.named_parameters():
        (plain if name.endswith("bias") or "LayerNorm" in name else decay).append(parameter)
    optimizer = torch.optim.AdamW([{"params": decay, "weight_decay": DECAY}, {"params": plain, "weight_decay": 0.0}], lr=LR, fused=True)
    steps = -(-len(texts) // ROWS)
    warm = max(1, int(WARMUP * steps))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min((step + 1) / warm, (steps - step) / max(1, steps - warm)))
    if a.kind == "padded":
        order = generator.permutation(len(texts))
        groups = [order[i : i + ROWS] for i in range(0, len(order), ROWS)]
    else:
        groups = grouped([len(f) for f in features[0]], generator)
    tokens = 0
    model.train()
    for picked in groups:
        batch = collated(features, picked)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=a.bf16):
            logits = model(**batch).logits
        loss = torch.nn.functional.cross_entropy(logits.float(), torch.tensor([labels[i] for i in picked]))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), NORM)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        loss.item()
        tokens += int(batch["attention_mask"].sum())
    return tokens, len(groups)


def with_trainer(a, tokenizer, model):
    from transformers import DataCollatorWithPadding, Trainer, TrainingArguments

    texts, pairs, labels = read(a.train)
    ids, segments, mask = tokenized(tokenizer, texts, pairs, a.max_length, False)
    rows = [dict(input_ids=i, token_type_ids=s, attention_mask=m, labels=l) for i, s, m, l in zip(ids, segments, mask, labels)]
    options = dict(
        output_dir=os.environ["ET_BENCH_OUTPUT"], per_device_train_batch_size=ROWS, num_train_epochs=1, learning_rate=LR,
        warmup_steps=max(1, int(WARMUP * -(-len(rows) // ROWS))), weight_decay=DECAY, max_grad_norm=NORM, save_strategy="no",
        report_to=[], logging_steps=10, disable_tqdm=True, use_cpu=True, seed=1, dataloader_pin_memory=False, bf16=a.bf16,
    )
    try:
        arguments = TrainingArguments(train_sampling_strategy="group_by_length", **options)
    except TypeError:
        arguments = TrainingArguments(group_by_length=True, **options)
    Trainer(model=model, args=arguments, train_dataset=rows, data_collator=DataCollatorWithPadding(tokenizer)).train()
    return sum(len(i) for i in ids), -(-len(rows) // ROWS)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kind", required=True, choices=[kind + end for kind in ("grouped", "padded", "trainer") for end in ("", "-bf16")])
    parser.add_argument("--model", required=True)
    parser.add_argument("--train", required=True)
    parser.add_argument("--valid", required=True)
    parser.add_argument("--max-length", type=int, required=True)
    parser.add_argument("--threads", type=int, default=2)
    a = parser.parse_args()
    a.kind, a.bf16 = a.kind.removesuffix("-bf16"), a.kind.endswith("-bf16")
    torch.set_num_threads(a.threads)
    logging.disable_progress_bar()
    tokenizer = AutoTokenizer.from_pretrained(a.model)
    say({"ready": {"torch": torch.__version__}})
    # What a library prints must not look like an answer.
    answers, sys.stdout = sys.stdout, sys.stderr
    for _ in sys.stdin:
        torch.manual_seed(1)
        started = time.perf_counter()
        model = load(a)
        tokens, steps = (with_trainer if a.kind == "trainer" else loop)(a, tokenizer, model)
        seconds = time.perf_counter() - started
        started = time.perf_counter()
        texts, pairs, labels = read(a.valid)
        accuracy = evaluate(model, tokenized(tokenizer, texts, pairs, a.max_length, a.kind == "padded"), labels)
        answer = {
            "seconds": seconds, "tokens": tokens, "steps": steps, "evaluate_seconds": time.perf_counter() - started,
            "evaluated": len(labels), "accuracy": accuracy,
        }
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
