"""Writes families/<family>.json: configurations of a family of models, and what transformers computes with each.

Half of the configurations of a family come from a seeded generator, so that exactness is not tuned to a list:

    python make_families.py [FAMILY ...] [--seed N] [--count N] [--out FOLDER]

With another seed and a folder the test takes what lies there: `ET_FAMILIES=FOLDER cargo test ... --test families`.
All is computed in double precision. Weights are a function of a parameter's name and place, see `fill`.
"""

import argparse
import json
import random
import zlib
from pathlib import Path

import numpy as np
import torch
import transformers as hf

HERE = Path(__file__).resolve().parent
ACTIVATIONS = ["gelu", "gelu_new", "relu", "silu", "tanh"]


def fill(name, count):
    """Numbers from -1 to 1: the finaliser of MurmurHash3 over the name's CRC-32 and the place."""
    x = (np.arange(1, count + 1, dtype=np.uint64) * 0x9E3779B9 + zlib.crc32(name.encode())) & 0xFFFFFFFF
    x ^= x >> np.uint64(16)
    x = (x * np.uint64(0x85EBCA6B)) & np.uint64(0xFFFFFFFF)
    x ^= x >> np.uint64(13)
    x = (x * np.uint64(0xC2B2AE35)) & np.uint64(0xFFFFFFFF)
    x ^= x >> np.uint64(16)
    return x.astype(np.float64) / 2.0**31 - 1.0


def is_norm(name):
    parts = name.lower().split(".")
    return parts[-1] == "weight" and len(parts) > 1 and "norm" in parts[-2]


def own(model, name):
    """The name without the base prefix."""
    return name.removeprefix(model.base_model_prefix + ".")


def randomise(model):
    """In single precision, as the other side has them."""
    with torch.no_grad():
        for name, p in model.named_parameters():
            values = torch.from_numpy(fill(own(model, name), p.numel())).reshape(p.shape)
            p.copy_((1 + 0.3 * values if is_norm(name) else 0.4 * values).float().double())


def texts_of(rng, vocab, segments, lengths=(6, 1, 13, 35)):
    texts = []
    for length in lengths:
        first = rng.randint(1, length)
        kinds = [int(segments > 1 and at >= first) for at in range(length)]
        texts.append({"ids": [rng.randrange(5, vocab) for _ in range(length)], "segments": kinds})
    return texts


def short(tensor):
    """The numbers of a tensor to seven digits, of which single precision holds no more."""
    return [float(f"{value:.8g}") for value in tensor.flatten().tolist()]


def sketch(gradient):
    """L2 norm, and the product with sin(0), sin(1), ..."""
    flat = gradient.double().flatten()
    return short(torch.stack([flat.norm(), flat @ torch.arange(len(flat)).double().sin()]))


def gradients_of(model):
    found = {own(model, name): p.grad for name, p in model.named_parameters()}
    return {name: sketch(grad) for name, grad in found.items() if grad is not None}


class Family:
    """A family: its configuration class, its models by task, configurations, and how a model is called."""

    segments = False

    def __init__(self, name, config, models, fixed, generate):
        self.name, self.config, self.models = name, config, models
        self.fixed, self.generate = fixed, generate

    def arguments(self, text):
        arguments = {"input_ids": torch.tensor([text["ids"]])}
        if self.segments:
            arguments["token_type_ids"] = torch.tensor([text["segments"]])
        return arguments

    def build(self, model_class, keys):
        config = self.config.from_dict(dict(keys))
        config._attn_implementation = "eager"
        model = model_class(config).double().eval()
        randomise(model)
        return model

    def case(self, name, keys, rng):
        segments = keys.get("type_vocab_size", 2 if self.segments else 0)
        texts = texts_of(rng, keys["vocab_size"], segments)
        labels = rng.randint(2, 4)
        keys = keys | {"model_type": self.name}
        case = {"name": name, "config": keys, "labels": labels, "texts": texts, "tasks": {}}
        for task, model_class in self.models.items():
            outputs = 2 if task == "question-answering" else labels
            model = self.build(model_class, keys | {"num_labels": outputs})
            case["tasks"][task] = self.task(task, model, texts, outputs, case)
        return case

    def task(self, task, model, texts, labels, case):
        loss, rows, count = 0.0, [], 0
        for at, text in enumerate(texts):
            out = model(**self.arguments(text), output_hidden_states=True)
            if task == "sequence-classification":
                loss = loss + torch.nn.functional.cross_entropy(out.logits, torch.tensor([at % labels]))
                count += 1
                rows.append(out.logits[0])
                if at == 0:
                    case["states"], case["last"] = [], []
                self.states(out, case)
                continue
            logits = torch.stack([out.start_logits[0], out.end_logits[0]], -1) if task == "question-answering" else out.logits[0]
            places = list(range(len(text["ids"])))[1::3]
            wanted = torch.tensor([(7 * place + 3) % logits.shape[-1] for place in places], dtype=torch.long)
            logits = logits[places]
            rows.extend(logits)
            if places:
                loss = loss + torch.nn.functional.cross_entropy(logits, wanted, reduction="sum")
                count += len(places)
        result = {"logits": [short(row) for row in rows]}
        if task in ("sequence-classification", "masked-lm"):
            loss = loss / count
            loss.backward()
            result |= {"loss": loss.item(), "gradients": gradients_of(model)}
        return result

    def states(self, out, case):
        """Hidden states of a text as products with sines of the columns, and the last one as it is."""
        by = torch.arange(out.hidden_states[0].shape[-1]).double().sin()
        case["states"].append([short(state[0] @ by) for state in out.hidden_states])
        case["last"].append(short(out.hidden_states[-1][0]))


def modernbert_fixed():
    base = dict(vocab_size=60, hidden_size=24, intermediate_size=20, num_hidden_layers=4, num_attention_heads=3,
                max_position_embeddings=64, local_attention=6, pad_token_id=0, bos_token_id=1, eos_token_id=2,
                cls_token_id=1, sep_token_id=2)
    both = {"full_attention": {"rope_type": "default", "rope_theta": 90.0},
            "sliding_attention": {"rope_type": "linear", "rope_theta": 20.0, "factor": 2.5}}
    return [
        base,
        base | dict(norm_bias=True, attention_bias=True, mlp_bias=True, classifier_bias=True, decoder_bias=False,
                    classifier_pooling="mean", hidden_activation="silu", classifier_activation="relu"),
        base | dict(global_rope_theta=500.0, local_rope_theta=7.0, global_attn_every_n_layers=2, norm_eps=1e-3),
        base | dict(rope_parameters=both, layer_types=["sliding_attention"] * 2 + ["full_attention"] * 2),
        base | dict(tie_word_embeddings=False, num_hidden_layers=1, num_attention_heads=12, local_attention=3),
        base | dict(rope_scaling={"rope_type": "linear", "factor": 4.0}, num_attention_heads=1, hidden_size=10),
    ]


def modernbert_random(rng):
    heads, size = rng.randint(1, 4), 2 * rng.randint(1, 7)
    layers = rng.randint(1, 4)
    keys = dict(
        vocab_size=rng.randint(12, 90), hidden_size=heads * size, intermediate_size=rng.randint(3, 40),
        num_hidden_layers=layers, num_attention_heads=heads, max_position_embeddings=rng.choice([40, 64, 8192]),
        local_attention=rng.randint(2, 12), hidden_activation=rng.choice(ACTIVATIONS),
        classifier_activation=rng.choice(ACTIVATIONS), classifier_pooling=rng.choice(["cls", "mean"]),
        norm_eps=rng.choice([1e-12, 1e-6, 1e-5, 1e-2]), tie_word_embeddings=rng.random() < 0.6,
        pad_token_id=0, bos_token_id=1, eos_token_id=2, cls_token_id=1, sep_token_id=2,
    )
    for key in ("norm_bias", "attention_bias", "mlp_bias", "decoder_bias", "classifier_bias"):
        keys[key] = rng.random() < 0.5
    theta = lambda: round(10.0 ** rng.uniform(0.5, 5.5), 3)
    if rng.random() < 0.5:
        keys["layer_types"] = [rng.choice(["full_attention", "sliding_attention"]) for _ in range(layers)]
    else:
        keys["global_attn_every_n_layers"] = rng.randint(1, 4)
    if rng.random() < 0.5:
        keys["global_rope_theta"], keys["local_rope_theta"] = theta(), theta()
    else:
        keys["rope_parameters"] = {
            kind: {"rope_type": "linear", "rope_theta": theta(), "factor": rng.choice([1.5, 8.0])} if rng.random() < 0.4
            else {"rope_type": "default", "rope_theta": theta()}
            for kind in ("full_attention", "sliding_attention")
        }
    return keys


FAMILIES = {
    "modernbert": Family(
        "modernbert", hf.ModernBertConfig,
        {"sequence-classification": hf.ModernBertForSequenceClassification,
         "token-classification": hf.ModernBertForTokenClassification,
         "question-answering": hf.ModernBertForQuestionAnswering, "masked-lm": hf.ModernBertForMaskedLM},
        modernbert_fixed, modernbert_random,
    ),
}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("families", nargs="*", default=list(FAMILIES))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=6)
    parser.add_argument("--out", type=Path, default=HERE / "families")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    for name in options.families:
        family, rng = FAMILIES[name], random.Random(f"{name} {options.seed}")
        cases = [family.case(f"fixed {at}", keys, rng) for at, keys in enumerate(family.fixed())]
        for at in range(options.count):
            cases.append(family.case(f"seed {options.seed}, {at}", family.generate(rng), rng))
        lines = ",\n".join(json.dumps(case, separators=(",", ":")) for case in cases)
        path = options.out / f"{name}.json"
        path.write_text("[\n" + lines + "\n]\n")
        print(path.name, len(cases), "configurations,", path.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
