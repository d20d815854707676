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


def deberta_fixed():
    base = dict(vocab_size=50, hidden_size=24, num_hidden_layers=2, num_attention_heads=3, intermediate_size=20,
                max_position_embeddings=40, pad_token_id=0)
    third = base | dict(relative_attention=True, max_relative_positions=-1, position_buckets=8, pos_att_type="p2c|c2p",
                        share_att_key=True, norm_rel_ebd="layer_norm", position_biased_input=False, type_vocab_size=0)
    return [
        base,
        third,
        third | dict(conv_kernel_size=3, conv_act="gelu", type_vocab_size=2, num_hidden_layers=3, legacy=False),
        third | dict(share_att_key=False, pos_att_type=["c2p"], embedding_size=10, position_biased_input=True,
                     max_relative_positions=12, position_buckets=-1, pooler_hidden_act="tanh"),
        third | dict(share_att_key=False, pos_att_type=["p2c", "c2p"], norm_rel_ebd="none", tie_word_embeddings=False,
                     conv_kernel_size=5, conv_groups=4, num_hidden_layers=1, type_vocab_size=3),
        base | dict(pos_att_type=["p2c"], type_vocab_size=1, num_attention_heads=1, hidden_size=7, layer_norm_eps=1e-3),
    ]


def deberta_random(rng):
    heads, size = rng.randint(1, 4), rng.randint(1, 9)
    hidden = heads * size
    keys = dict(
        vocab_size=rng.randint(12, 90), hidden_size=hidden, num_hidden_layers=rng.randint(1, 3),
        num_attention_heads=heads, intermediate_size=rng.randint(3, 40), max_position_embeddings=rng.randint(36, 60),
        hidden_act=rng.choice(ACTIVATIONS), pooler_hidden_act=rng.choice(ACTIVATIONS), pad_token_id=0,
        layer_norm_eps=rng.choice([1e-12, 1e-7, 1e-2]), type_vocab_size=rng.randint(0, 3),
        relative_attention=rng.random() < 0.85, share_att_key=rng.random() < 0.5,
        pos_att_type=rng.choice([["c2p"], ["p2c"], ["c2p", "p2c"], "c2p|p2c", "p2c | C2P", []]),
        position_biased_input=rng.random() < 0.5, norm_rel_ebd=rng.choice(["none", "layer_norm"]),
        legacy=rng.random() < 0.5, tie_word_embeddings=rng.random() < 0.7,
    )
    # Too few furthest distances for their buckets would divide by zero.
    keys["max_relative_positions"] = rng.choice([-1, 20, 30, 64])
    keys["position_buckets"] = rng.choice([-1, 2, 4, 6, 7, 12, 16])
    if keys["legacy"] and rng.random() < 0.4:
        keys["embedding_size"] = rng.randint(2, 20)
    if rng.random() < 0.5:
        keys |= dict(conv_kernel_size=rng.choice([1, 3, 5]), conv_act=rng.choice(ACTIVATIONS),
                     conv_groups=rng.choice([of for of in range(1, hidden + 1) if hidden % of == 0]))
    return keys


def buckets(out):
    """Rows of DeBERTa's table of positions for each distance of a key from its query."""
    from transformers.models.deberta_v2.modeling_deberta_v2 import make_log_bucket_position

    cases = []
    for span, furthest, reach in [(256, 512, 700), (4, 40, 60), (7, 20, 90), (2, 30, 40), (16, 64, 80), (48, 128, 200),
                                  (12, 30, 50), (320, 512, 600)]:
        rows = make_log_bucket_position(torch.arange(reach, -reach - 1, -1), span, furthest).long()
        rows = (rows + span).clamp(0, 2 * span - 1).tolist()
        cases.append({"buckets": span, "furthest": furthest, "rows": rows})
    rows = (torch.arange(40, -41, -1) + 20).clamp(0, 39).tolist()
    cases.append({"buckets": None, "furthest": 20, "rows": rows})
    (out / "buckets.json").write_text("[\n" + ",\n".join(json.dumps(case) for case in cases) + "\n]\n")


class WithSegments(Family):
    segments = True


class XlNet(WithSegments):
    """With what it predicts by a second stream, and with memory."""

    def build(self, model_class, keys):
        model = super().build(model_class, keys)
        encoding = model.transformer.relative_positional_encoding
        # It stays in single precision otherwise, which the second stream cannot multiply.
        model.transformer.relative_positional_encoding = lambda *a, **k: encoding(*a, **k).double()
        return model

    def case(self, name, keys, rng):
        case = super().case(name, keys, rng)
        model = self.build(hf.XLNetLMHeadModel, case["config"])
        case["permutation"] = self.permutation(model, case["texts"], rng)
        case["memory"] = self.memory(model.transformer, keys, rng)
        return case

    def permutation(self, model, texts, rng):
        rows, loss, count, asked = [], 0.0, 0, []
        for at, text in enumerate(texts):
            length = len(text["ids"])
            order = rng.sample(range(length), length)
            targets = sorted(rng.sample(range(length), rng.randint(1, length)))
            keys = list(order)
            causal = model.config.attn_type == "uni"
            if causal:
                # A query that sees nothing takes the gradient of wrapped positions of its neighbour here.
                targets = [place for place in targets if place > 0]
            if at % 2:
                # Tokens that are not predicted are seen by all, and see what is not predicted.
                order = [place if k in targets else -1 for k, place in enumerate(order)]
                keys = [place if k in targets else -2 for k, place in enumerate(order)]
            if causal:
                keys[0] = -2
            asked.append({"order": order, "key_order": keys, "targets": targets})
            if not targets:
                continue
            hidden = torch.tensor([[[float(key >= place) for key in keys] for place in order]]).double()
            mapping = torch.nn.functional.one_hot(torch.tensor(targets), length).double()[None]
            logits = model(**self.arguments(text), perm_mask=hidden, target_mapping=mapping, use_mems=False).logits[0]
            wanted = torch.tensor([(7 * place + 3) % logits.shape[-1] for place in targets])
            loss = loss + torch.nn.functional.cross_entropy(logits, wanted, reduction="sum")
            count += len(targets)
            rows.append(short(logits))
        loss = loss / count
        loss.backward()
        return {"asked": asked, "logits": rows, "loss": loss.item(), "gradients": gradients_of(model)}

    def memory(self, model, keys, rng):
        """Texts in three parts, each of which sees those before."""
        texts = []
        for lengths in ([4, 3, 2], [9, 1, 5]):
            mems, parts = None, []
            for text in texts_of(rng, keys["vocab_size"], 2, lengths):
                with torch.no_grad():
                    out = model(**self.arguments(text), mems=mems, use_mems=True)
                mems = out.mems
                parts.append(text | {"last": short(out.last_hidden_state)})
            texts.append(parts)
        return texts


def xlnet_fixed():
    base = dict(vocab_size=50, d_model=24, n_layer=2, n_head=3, d_inner=20, mem_len=None, pad_token_id=0)
    return [
        base,
        base | dict(attn_type="uni", ff_activation="relu", summary_type="mean", summary_activation="linear"),
        base | dict(mem_len=3, clamp_len=4, n_layer=3, layer_norm_eps=1e-3),
        base | dict(summary_type="first", summary_use_proj=False, tie_word_embeddings=False, n_head=12, n_layer=1),
        base | dict(summary_type="cls_index", n_head=1, d_model=14, mem_len=1, ff_activation="silu"),
        base | dict(attn_type="uni", mem_len=2, clamp_len=2, summary_last_dropout=0.3, n_head=2),
    ]


def xlnet_random(rng):
    heads = rng.randint(1, 4)
    size = rng.choice([size for size in range(1, 10) if heads * size % 2 == 0])
    keys = dict(
        vocab_size=rng.randint(12, 90), d_model=heads * size, n_layer=rng.randint(1, 3), n_head=heads,
        d_inner=rng.randint(3, 40), ff_activation=rng.choice(ACTIVATIONS), attn_type=rng.choice(["bi", "bi", "uni"]),
        mem_len=rng.choice([None, 0, 1, 3, 5, 512]), clamp_len=rng.choice([-1, 0, 1, 5]), pad_token_id=0,
        layer_norm_eps=rng.choice([1e-12, 1e-5, 1e-2]), tie_word_embeddings=rng.random() < 0.6,
        summary_type=rng.choice(["last", "first", "mean", "cls_index"]), summary_use_proj=rng.random() < 0.7,
        summary_activation=rng.choice(["tanh", "gelu", "linear"]),
    )
    return keys


FAMILIES = {
    "modernbert": Family(
        "modernbert", hf.ModernBertConfig,
        {"sequence-classification": hf.ModernBertForSequenceClassification,
         "token-classification": hf.ModernBertForTokenClassification,
         "question-answering": hf.ModernBertForQuestionAnswering, "masked-lm": hf.ModernBertForMaskedLM},
        modernbert_fixed, modernbert_random,
    ),
    "deberta-v2": WithSegments(
        "deberta-v2", hf.DebertaV2Config,
        {"sequence-classification": hf.DebertaV2ForSequenceClassification,
         "token-classification": hf.DebertaV2ForTokenClassification,
         "question-answering": hf.DebertaV2ForQuestionAnswering, "masked-lm": hf.DebertaV2ForMaskedLM},
        deberta_fixed, deberta_random,
    ),
    "xlnet": XlNet(
        "xlnet", hf.XLNetConfig,
        {"sequence-classification": hf.XLNetForSequenceClassification,
         "token-classification": hf.XLNetForTokenClassification,
         "question-answering": hf.XLNetForQuestionAnsweringSimple},
        xlnet_fixed, xlnet_random,
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
        if name == "deberta-v2":
            buckets(options.out)
        print(path.name, len(cases), "configurations,", path.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
