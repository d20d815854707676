"""Writes generate/: what transformers computes and generates with tiny random T5, T5 1.1 and mT5.

    python make_generate.py     # with requirements.txt
"""

import copy
import json
import random
import shutil
import string
from pathlib import Path

import tokenizers as tk
import torch
import transformers as hf

HERE = Path(__file__).resolve().parent
OUT = HERE / "generate"
PROMPTS, TRIED, MOST = 40, 90, 14
MODELS = {
    "t5": (hf.T5Config, hf.T5ForConditionalGeneration, dict(feed_forward_proj="relu")),
    "t5-gated": (hf.T5Config, hf.T5ForConditionalGeneration, dict(feed_forward_proj="gated-gelu", tie_word_embeddings=False)),
    "mt5": (hf.MT5Config, hf.MT5ForConditionalGeneration, dict()),
}
# Options by our names.
CASES = {
    "greedy": {},
    "greedy-no-repeat": {"no_repeat_ngram": 3},
    "greedy-penalty": {"repetition_penalty": 1.7, "min_new_tokens": 4},
    "greedy-forced": {"forced_first": 9, "forced_last": 7},
    "beams": {"beams": 4},
    "beams-0.6": {"beams": 4, "length_penalty": 0.6},
    "beams-2.0": {"beams": 4, "length_penalty": 2.0},
    "beams-negative": {"beams": 3, "length_penalty": -1.0, "early_stopping": "never"},
    "beams-early": {"beams": 4, "early_stopping": True},
    "beams-never": {"beams": 4, "early_stopping": "never", "length_penalty": 2.0},
    "beams-no-repeat": {"beams": 4, "no_repeat_ngram": 3},
    "beams-forced": {"beams": 4, "forced_first": 9, "forced_last": 1},
    "beams-several": {"beams": 4, "return": 3, "length_penalty": 0.6},
    "beams-rules": {"beams": 2, "return": 2, "repetition_penalty": 1.4, "min_new_tokens": 5},
    "beams-two-ends": {"beams": 4, "eos": [1, 11], "return": 4},
}
NAMES = {
    "beams": "num_beams", "return": "num_return_sequences", "no_repeat_ngram": "no_repeat_ngram_size",
    "forced_first": "forced_bos_token_id", "forced_last": "forced_eos_token_id", "eos": "eos_token_id",
}


def tokenizer():
    """A Unigram of letters and pairs of them, with the end that T5's tokenizers add."""
    pieces = ["<pad>", "</s>", "<unk>", "▁", *string.ascii_lowercase]
    pieces += ["▁" + c for c in "aeiostn"] + ["th", "he", "in", "er", "an", "re", "on", "at", "en", "nd", "st", "es"]
    generator = random.Random(1)
    made = tk.Tokenizer(tk.models.Unigram([(p, -2 - 4 * generator.random()) for p in pieces], unk_id=2))
    made.pre_tokenizer = tk.pre_tokenizers.Metaspace()
    made.decoder = tk.decoders.Metaspace()
    made.post_processor = tk.processors.TemplateProcessing("$A </s>", "$A </s> $B </s>", [("</s>", 1)])
    made.add_special_tokens(["<pad>", "</s>", "<unk>"])
    return made, len(pieces)


def randomise(model, seed):
    """Weights with which outputs depend on everything that was read, and ends come at all lengths."""
    generator = torch.Generator().manual_seed(seed)
    tied = model.lm_head.weight is model.shared.weight
    with torch.no_grad():
        for name, p in model.named_parameters():
            noise = torch.randn(p.shape, generator=generator)
            if "layer_norm" in name:
                # With scales of one sign a head that is the word embedding would only repeat the last token.
                p.copy_(5 * noise if tied and name == "decoder.final_layer_norm.weight" else 1 + 0.1 * noise)
            elif "shared" in name or "lm_head" in name:
                p.copy_((0.4 if tied else 1.3) * noise)
            elif "relative" in name:
                p.copy_(noise)
            else:
                p.copy_(0.5 * noise)
        head = model.lm_head.weight
        head[1] *= 1.6


def sketch(tensor):
    """The norm of a gradient and its product with sin(0), sin(1), …: enough to notice any change."""
    flat = tensor.detach().double().flatten()
    wave = torch.sin(torch.arange(flat.numel(), dtype=torch.float64))
    return [flat.norm().item(), (flat @ wave).item()]


def padded(rows):
    width = max(map(len, rows))
    ids = torch.tensor([row + [0] * (width - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
    return ids, mask


def new_tokens(sequence, ends):
    """Without the start, up to the first end."""
    ids = sequence.tolist()[1:]
    at = next((k for k, token in enumerate(ids) if token in ends), len(ids))
    return ids[: at + 1]


def generated(model, rows, options):
    ids, mask = padded(rows)
    ends = options.get("eos", [1])
    arguments = {NAMES.get(key, key): value for key, value in options.items()}
    arguments = {"eos_token_id": ends, "max_new_tokens": MOST, "do_sample": False, **arguments}
    out = model.generate(ids, attention_mask=mask, pad_token_id=0, decoder_start_token_id=0,
                         return_dict_in_generate=True, output_scores=True, **arguments)
    scores = out.sequences_scores.tolist() if options.get("beams", 1) > 1 else None
    return [new_tokens(row, ends) for row in out.sequences], scores


def firm(model, made, texts):
    """The first texts whose continuations rounding does not decide: a slightly other model in double precision has
    the same."""
    rows = [made.encode(text).ids for text in texts]
    other = copy.deepcopy(model).double()
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for p in other.parameters():
            p *= 1 + 3e-5 * torch.randn(p.shape, generator=generator, dtype=torch.float64)
    same = [True] * len(rows)
    for options in CASES.values():
        each = options.get("return", 1)
        found, expected = generated(model, rows, options)[0], generated(other, rows, options)[0]
        for k in range(len(rows)):
            same[k] &= found[k * each : (k + 1) * each] == expected[k * each : (k + 1) * each]
    print(sum(same), "of", len(texts), "texts have firm continuations")
    return [text for text, firm in zip(texts, same) if firm][:PROMPTS]


def forward(model, rows, targets):
    """Hidden states, logits, the loss, and gradients of a batch, all of it in double precision."""
    for module in (hf.models.t5.modeling_t5.T5LayerNorm, hf.models.mt5.modeling_mt5.MT5LayerNorm):
        # As it stands it takes its mean in single precision.
        module.forward = lambda self, x: self.weight * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.variance_epsilon)
    ids, mask = padded(rows)
    labels, label_mask = padded(targets)
    labels = labels.masked_fill(label_mask == 0, -100)
    model.zero_grad()
    out = model(input_ids=ids, attention_mask=mask, labels=labels, output_hidden_states=True)
    out.loss.backward()
    real = lambda tensor, mask: [round(x, 8) for x in tensor[mask.bool()].flatten().tolist()]
    gradients = {name: sketch(p.grad) for name, p in model.named_parameters() if p.grad is not None}
    return {
        "ids": rows, "labels": targets, "loss": out.loss.item(), "gradients": gradients,
        "last": real(out.encoder_last_hidden_state, mask), "decoder_last": real(out.decoder_hidden_states[-1], label_mask),
        "encoder_0": real(out.encoder_hidden_states[0], mask), "encoder_1": real(out.encoder_hidden_states[1], mask),
        "logits": real(out.logits, label_mask),
    }


def buckets():
    """Rows of the bias by distance, further than any bucket."""
    of = hf.models.t5.modeling_t5.T5Attention._relative_position_bucket
    cases = []
    for count, most in [(32, 128), (8, 16), (8, 20), (32, 200), (5, 7), (64, 1000)]:
        for both in (True, False):
            distances = torch.arange(-most - 50, most + 51)
            rows = of(distances, bidirectional=both, num_buckets=count, max_distance=most)
            cases.append({"buckets": count, "max_distance": most, "both": both, "rows": rows.tolist()})
    return cases


def main():
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir()
    (OUT / "buckets.json").write_text(json.dumps(buckets(), separators=(",", ":")) + "\n")
    made, vocab = tokenizer()
    generator = random.Random(7)
    words = lambda count: " ".join("".join(generator.choices(string.ascii_lowercase, k=generator.randint(1, 6))) for _ in range(count))
    tried = [words(1 + k % 9) for k in range(TRIED)]
    targets = [words(1 + k % 4) for k in range(8)]
    goldens = []
    for seed, (name, (config_class, model_class, more)) in enumerate(MODELS.items()):
        directory = OUT / name
        config = config_class(vocab_size=vocab, d_model=16, d_kv=6, d_ff=24, num_layers=3, num_decoder_layers=2, num_heads=2,
                              relative_attention_num_buckets=8, relative_attention_max_distance=12, decoder_start_token_id=0, **more)
        model = model_class(config).eval()
        if name != "t5":
            model.lm_head.weight = torch.nn.Parameter(torch.empty_like(model.lm_head.weight))
        randomise(model, 20 + seed)
        model.save_pretrained(directory)
        if name == "t5-gated":
            # As the published files say it; transformers 5 writes it otherwise, and mt5/ has that.
            config = json.loads((directory / "config.json").read_text())
            del config["scale_decoder_outputs"]
            config["tie_word_embeddings"] = False
            (directory / "config.json").write_text(json.dumps(config, indent=2) + "\n")
        (directory / "generation_config.json").unlink(missing_ok=True)
        made.save(str(directory / "tokenizer.json"), pretty=False)
        texts = firm(model, made, tried)
        rows = [made.encode(text).ids for text in texts]
        golden = {"texts": texts, "ids": rows, "forward": None}
        cases = {}
        for case, options in CASES.items():
            found, scores = generated(model, rows, options)
            cases[case] = {"options": {"max_new_tokens": MOST, "eos": [1], **options}, "ids": found, "scores": scores}
            lengths = [len(ids) for ids in found]
            print(name, case, "lengths", min(lengths), sum(lengths) / len(lengths), max(lengths), "distinct tokens",
                  sum(len(set(ids)) for ids in found) / len(found))
        differ = sum(a != b for a, b in zip(cases["greedy"]["ids"], cases["beams"]["ids"]))
        print(name, "beams differ from greedy in", differ)
        assert differ >= 10 and len(rows) == PROMPTS
        golden["cases"] = cases
        goldens.append((directory, golden, model))
        golden["greedy_texts"] = [made.decode(ids, skip_special_tokens=True) for ids in cases["greedy"]["ids"]]
    for directory, golden, model in goldens:
        golden["forward"] = forward(model.double(), golden["ids"][:8], [made.encode(t).ids for t in targets])
        (directory / "golden.json").write_text(json.dumps(golden, separators=(",", ":")) + "\n")


main()
