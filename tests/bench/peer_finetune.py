"""Fine-tunes all-MiniLM-L6-v2 on SST-2 with PyTorch, by a plain loop; prints one JSON object to compare with ours.

The settings are those of the other side: AdamW, linear schedule with warm-up, batches of rows of similar length, padded to the longest.
"""

import argparse
import json
import os
import re
import resource
import time
from pathlib import Path

import numpy as np
import torch
from transformers import AutoTokenizer, BertForSequenceClassification, BertModel
from transformers.modeling_outputs import SequenceClassifierOutput

ROOT = Path(__file__).resolve().parents[2]
SHARED = Path(os.environ.get("ET_SHARED", ROOT / ".." / "shared"))


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default=SHARED / "models" / "all-MiniLM-L6-v2")
    parser.add_argument("--data", type=Path, default=SHARED / "data" / "sst-2")
    parser.add_argument("--train-lines", type=int, default=None, help="only the first so many rows")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--batch-rows", type=int, default=32)
    parser.add_argument("--lr", type=float, default=5e-5)
    parser.add_argument("--pooling", choices=["model", "mean"], default="model", help="BERT's pooler, or the mean of the tokens")
    parser.add_argument("--dropout", type=float, default=None, help="everywhere, instead of what the model's configuration says")
    parser.add_argument("--layer-decay", type=float, default=1.0, help="d: layer k of N, from 0, learns at d^(N - k) of the rate, the embeddings at d^(N + 1)")
    parser.add_argument("--warmup", type=float, default=0.1, help="part of all steps")
    parser.add_argument("--weight-decay", type=float, default=0.01, help="not for biases and layer norms")
    parser.add_argument("--max-length", type=int, default=128)
    parser.add_argument("--max-norm", type=float, default=1.0, help="gradient clipping; 0: none")
    parser.add_argument("--window", type=int, default=100, help="batches sorted by length together")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--log-every", type=int, default=0)
    return parser.parse_args()


class MeanClassifier(torch.nn.Module):
    """A linear head over the mean of the tokens that are not padding."""

    def __init__(self, bert):
        super().__init__()
        self.bert = bert
        self.dropout = torch.nn.Dropout(bert.config.hidden_dropout_prob)
        self.classifier = torch.nn.Linear(bert.config.hidden_size, 2)
        torch.nn.init.normal_(self.classifier.weight, std=bert.config.initializer_range)
        torch.nn.init.zeros_(self.classifier.bias)

    def forward(self, input_ids, attention_mask):
        last = self.bert(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        real = attention_mask.unsqueeze(-1).to(last.dtype)
        mean = (last * real).sum(1) / real.sum(1)
        return SequenceClassifierOutput(logits=self.classifier(self.dropout(mean)))


def network(a):
    options = dict(attn_implementation="sdpa", dtype=torch.float32)
    if a.dropout is not None:
        options |= dict(hidden_dropout_prob=a.dropout, attention_probs_dropout_prob=a.dropout)
    if a.pooling == "mean":
        return MeanClassifier(BertModel.from_pretrained(a.model, add_pooling_layer=False, **options))
    return BertForSequenceClassification.from_pretrained(a.model, num_labels=2, **options)


def groups(model, a):
    """Parameters by rate and decay."""
    found = {}
    layers = model.bert.config.num_hidden_layers
    for name, parameter in model.named_parameters():
        power = 0
        if ".embeddings." in name:
            power = layers + 1
        elif match := re.search(r"encoder\.layer\.(\d+)\.", name):
            power = layers - int(match[1])
        decay = 0.0 if name.endswith("bias") or "LayerNorm" in name else a.weight_decay
        found.setdefault((a.lr * a.layer_decay**power, decay), []).append(parameter)
    return [{"params": some, "lr": rate, "weight_decay": decay} for (rate, decay), some in found.items()]


def read(path):
    rows = path.read_text(encoding="utf-8").split("\n")[1:]
    cells = [row.split("\t", 1) for row in rows if row]
    return [text for _, text in cells], [int(label) for label, _ in cells]


def batches(lengths, rows, window, generator=None):
    """Indices by batch: shuffled, sorted by length within windows, then the batches are shuffled."""
    order = generator.permutation(len(lengths)) if generator else np.arange(len(lengths))
    groups = []
    for start in range(0, len(order), rows * window):
        part = sorted(order[start : start + rows * window], key=lambda i: lengths[i])
        groups += [part[i : i + rows] for i in range(0, len(part), rows)]
    if generator:
        generator.shuffle(groups)
    return groups


def padded(features, picked, device):
    longest = max(len(features[i]) for i in picked)
    ids = torch.zeros(len(picked), longest, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, i in enumerate(picked):
        ids[row, : len(features[i])] = torch.tensor(features[i])
        mask[row, : len(features[i])] = 1
    return {"input_ids": ids.to(device), "attention_mask": mask.to(device)}


@torch.no_grad()
def evaluate(model, features, labels, device):
    model.eval()
    right, loss = 0, 0.0
    for picked in batches([len(f) for f in features], 64, 10**6):
        logits = model(**padded(features, picked, device)).logits
        target = torch.tensor([labels[i] for i in picked], device=device)
        loss += torch.nn.functional.cross_entropy(logits, target, reduction="sum").item()
        right += (logits.argmax(1) == target).sum().item()
    return right / len(labels), loss / len(labels)


def main():
    a = arguments()
    torch.set_num_threads(a.threads)
    torch.manual_seed(a.seed)
    generator = np.random.default_rng(a.seed)
    texts, labels = read(a.data / "train.tsv")
    texts, labels = texts[: a.train_lines], labels[: a.train_lines]
    dev_texts, dev_labels = read(a.data / "dev.tsv")
    started = time.perf_counter()
    tokenizer = AutoTokenizer.from_pretrained(a.model)
    features = tokenizer(texts, truncation=True, max_length=a.max_length, padding=False)["input_ids"]
    dev_features = tokenizer(dev_texts, truncation=True, max_length=a.max_length, padding=False)["input_ids"]
    tokenize_seconds = time.perf_counter() - started
    model = network(a).to(a.device)
    optimizer = torch.optim.AdamW(groups(model, a), fused=True)
    steps = a.epochs * -(-len(texts) // a.batch_rows)
    warm = max(1, int(a.warmup * steps))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / warm, (steps - step) / max(1, steps - warm))
    )
    lengths = [len(f) for f in features]
    step, total, recent, used_tokens, padded_tokens = 0, 0.0, 0.0, 0, 0
    started = time.perf_counter()
    for _ in range(a.epochs):
        model.train()
        for picked in batches(lengths, a.batch_rows, a.window, generator):
            batch = padded(features, picked, a.device)
            target = torch.tensor([labels[i] for i in picked], device=a.device)
            loss = torch.nn.functional.cross_entropy(model(**batch).logits, target)
            loss.backward()
            if a.max_norm:
                torch.nn.utils.clip_grad_norm_(model.parameters(), a.max_norm)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            step += 1
            total += loss.item()
            used_tokens += int(batch["attention_mask"].sum())
            padded_tokens += batch["input_ids"].numel()
            if a.log_every and step % a.log_every == 0:
                print(f"step {step}/{steps} loss {(total - recent) / a.log_every:.4f}", flush=True)
                recent = total
    seconds = time.perf_counter() - started
    accuracy, dev_loss = evaluate(model, dev_features, dev_labels, a.device)
    print(json.dumps({
        "side": f"torch {torch.__version__}", "rows": len(texts), "epochs": a.epochs, "steps": step, "seed": a.seed,
        "threads": a.threads, "device": a.device, "dev_accuracy": accuracy, "dev_loss": dev_loss, "train_loss": total / step,
        "train_seconds": round(seconds, 2), "rows_per_second": round(len(texts) * a.epochs / seconds, 1),
        "tokens": used_tokens, "tokens_with_padding": padded_tokens, "tokenize_seconds": round(tokenize_seconds, 2),
        "peak_rss_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }))


if __name__ == "__main__":
    main()
