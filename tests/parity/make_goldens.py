"""Writes texts.json, hidden.safetensors and gradients.json from all-MiniLM-L6-v2, with transformers in float32."""

import json

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from transformers import BertForSequenceClassification

from reference import HERE, MINILM, bert_tokenizer, encode, hidden_states, load_encoder, read_texts
from sentences import PASSAGE, SENTENCES

# How many texts keep the rows of three positions; the others keep the middle row. The file must stay under 2 MB.
TEXTS_WITH_THREE_ROWS = 24
GRADIENT_TEXTS = ["t02", "t04", "t06", "t07", "t13", "t47", "t51", "t53"]
GRADIENT_LABELS = [0, 1, 0, 1, 1, 0, 1, 0]
ADAMW = {"lr": 5e-5, "betas": [0.9, 0.999], "eps": 1e-8, "weight_decay": 0.01}


def long_text(tokenizer):
    """Words of the passage, over and over, until ids with both special tokens are exactly 512."""
    words, total, at = [], 2, 0
    passage = PASSAGE.split()
    while total < 512:
        word = passage[at % len(passage)]
        size = len(tokenizer.tokenize(word))
        at += 1
        if total + size <= 512:
            words.append(word)
            total += size
    return " ".join(words)


def make_texts():
    tokenizer = bert_tokenizer(MINILM)
    fast = Tokenizer.from_file(str(MINILM / "tokenizer.json"))
    fast.no_truncation()
    fast.no_padding()
    rows = []
    for number, entry in enumerate([*SENTENCES, long_text(tokenizer)]):
        text, pair = entry if isinstance(entry, tuple) else (entry, None)
        ids, segments = encode(tokenizer, text, pair)
        other = fast.encode(text, pair)
        special = any(token in text for token in ("[MASK]", "[SEP]", "[CLS]", "[UNK]"))
        if other.ids != ids:
            # The two only part where the text names a special token: crate `tokenizers` keeps it whole.
            print(f"t{number:02}: slow and fast tokenizers differ (special token in the text: {special})")
            assert special, (ids, other.ids)
            ids, segments = other.ids, other.type_ids
        positions = [0, len(ids) // 2, len(ids) - 1]
        if number >= TEXTS_WITH_THREE_ROWS and len(ids) != 512:
            positions = positions[1:2]
        rows.append({
            "name": f"t{number:02}", "text": text, "pair": pair,
            "ids": ids, "segments": segments, "positions": positions,
        })
    assert len(rows) == 64 and len(rows[-1]["ids"]) == 512
    lines = ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    (HERE / "texts.json").write_text("[\n" + lines + "\n]\n", encoding="utf-8")
    return rows


def make_hidden(texts):
    model, exact = load_encoder(), load_encoder(torch.float64)
    generator = torch.Generator().manual_seed(20240501)
    projection = torch.randn(8, model.config.hidden_size, generator=generator)
    projection /= projection.norm(dim=1, keepdim=True)
    tensors, noise = {"projection": projection}, 0.0
    for row in texts:
        states, pooled = hidden_states(model, row["ids"], row["segments"])
        true_states, _ = hidden_states(exact, row["ids"], row["segments"])
        noise = max(noise, (states.double() - true_states).abs().max().item())
        name = row["name"]
        for layer, state in enumerate(states):
            tensors[f"{name}.layer{layer}.rows"] = state[row["positions"]].contiguous()
        tensors[f"{name}.projected"] = (states @ projection.T).contiguous()
        tensors[f"{name}.pooled"] = pooled.contiguous()
    path = HERE / "hidden.safetensors"
    save_file(tensors, path, metadata={
        "projected": "[layer, position, 8] = hidden state times the rows of `projection` [8, 384]",
        "rows": "[positions, 384]; the positions are in texts.json",
        "pooled": "[384] = tanh(dense(first row of the last layer))",
        "largest_difference_to_float64": f"{noise:.3e}",
    })
    path.chmod(0o644)
    size = path.stat().st_size
    print(f"hidden.safetensors: {size} bytes, largest difference to float64 {noise:.3e}")
    assert size < 2_000_000


def classifier(dtype):
    """Two labels, dropout 0, classifier.weight.flat[k] = sin(k) * 0.02, classifier.bias = 0."""
    model = BertForSequenceClassification.from_pretrained(
        MINILM, num_labels=2, attn_implementation="eager", dtype=dtype,
        hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, classifier_dropout=0.0,
    )
    with torch.no_grad():
        flat = torch.arange(model.classifier.weight.numel(), dtype=torch.float64)
        model.classifier.weight.copy_((flat.sin() * 0.02).view_as(model.classifier.weight))
        model.classifier.bias.zero_()
    return model.train()


def loss_of(model, rows):
    """Mean cross entropy; one text at a time, so that there is no padding."""
    logits = torch.cat([
        model(input_ids=torch.tensor([r["ids"]]), token_type_ids=torch.tensor([r["segments"]])).logits for r in rows
    ])
    return torch.nn.functional.cross_entropy(logits, torch.tensor(GRADIENT_LABELS)), logits


def decays(name):
    return not name.endswith(".bias") and "LayerNorm" not in name


def sample(gradient, true, count=16):
    """Entries to keep: three quarters with a gradient that rounding leaves alone, the rest with none, if there are such.

    An entry whose float32 gradient is mostly rounding error would make AdamW's first step a matter of chance.
    """
    generator = torch.Generator().manual_seed(gradient.numel())
    flat, true = gradient.flatten().double(), true.flatten()
    if flat.numel() <= count:
        return list(range(flat.numel()))
    sound = ((flat - true).abs() < 1e-3 * true.abs()).nonzero().flatten()
    if len(sound) < count:
        return list(range(count))
    empty = ((flat == 0) & (true == 0)).nonzero().flatten()
    few = min(len(empty), count // 4)
    picked = [sound[i].item() for i in torch.randperm(len(sound), generator=generator)[: count - few]]
    picked += [empty[i].item() for i in torch.randperm(len(empty), generator=generator)[:few]]
    return sorted(picked)


def make_gradients(texts):
    rows = [next(t for t in texts if t["name"] == name) for name in GRADIENT_TEXTS]
    model, exact = classifier(torch.float32), classifier(torch.float64)
    loss, logits = loss_of(model, rows)
    loss.backward()
    loss_of(exact, rows)[0].backward()
    parameters = {}
    true_gradients = {name: p.grad for name, p in exact.named_parameters()}
    for name, p in model.named_parameters():
        gradient, true = p.grad.double(), true_gradients[name]
        at = sample(p.grad, true)
        parameters[name] = {
            "shape": list(p.shape), "decay": decays(name),
            "noise": ((gradient - true).norm() / true.norm().clamp_min(1e-30)).item(),
            "l2": gradient.norm().item(), "sum": gradient.sum().item(), "at": at,
            "gradient": p.grad.flatten()[at].tolist(), "before": p.detach().flatten()[at].tolist(),
        }
    optimizer = torch.optim.AdamW(
        [
            {"params": [p for n, p in model.named_parameters() if decays(n)]},
            {"params": [p for n, p in model.named_parameters() if not decays(n)], "weight_decay": 0.0},
        ],
        lr=ADAMW["lr"], betas=tuple(ADAMW["betas"]), eps=ADAMW["eps"], weight_decay=ADAMW["weight_decay"],
    )
    losses = [loss.item()]
    for step in (1, 2, 3):
        optimizer.step()
        if step in (1, 3):
            for name, p in model.named_parameters():
                parameters[name][f"after_{step}"] = p.detach().flatten()[parameters[name]["at"]].tolist()
        optimizer.zero_grad()
        loss, _ = loss_of(model, rows)
        losses.append(loss.item())
        loss.backward()
    result = {
        "texts": GRADIENT_TEXTS, "labels": GRADIENT_LABELS,
        "classifier": "weight [2, 384], weight.flat[k] = sin(k) * 0.02 (k in radians), bias 0, dropout 0",
        "adamw": ADAMW, "logits": logits.tolist(), "losses": losses,
        "noise": "per parameter: L2 distance to the float64 gradient over its L2 norm. Key biases have no gradient "
        "in exact arithmetic (softmax ignores a shift), so theirs is rounding error: do not compare it or their step.",
    }
    body = json.dumps(result, indent=1)[:-2]
    lines = ",\n".join(f"  {json.dumps(name)}: {json.dumps(value)}" for name, value in parameters.items())
    (HERE / "gradients.json").write_text(f'{body},\n "parameters": {{\n{lines}\n }}\n}}\n', encoding="utf-8")
    worst = {n: v["noise"] for n, v in parameters.items() if "key.bias" not in n}
    print(f"gradients.json: losses {losses}, worst noise outside key biases {max(worst.values()):.3e}")


if __name__ == "__main__":
    torch.set_num_threads(2)
    make_texts()
    texts = read_texts()
    make_hidden(texts)
    make_gradients(texts)
