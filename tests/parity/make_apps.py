"""Writes apps/: what reference implementations compute for the apps, on tiny random models.

    python make_apps.py match masked-lm token-head    # with requirements.txt
    python make_apps.py comprehend squad-metric       # with requirements-pipeline.txt: transformers 5 has no question answering pipeline
"""

import json
import os
import shutil
import string
import sys
from pathlib import Path

import torch
import transformers as hf

HERE = Path(__file__).resolve().parent
SHARED = Path(os.environ.get("ET_SHARED", HERE.parents[2] / "shared"))
OUT = HERE / "apps"
ONLY = os.environ.get("ET_ONLY", "").split()
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
ENGLISH, CHINESE = 50, 10


def randomise(model, seed, scale=0.2):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in model.named_parameters():
            noise = torch.randn(p.shape, generator=generator)
            p.copy_(1 + 0.1 * noise if "LayerNorm.weight" in name or "layer_norm.weight" in name else scale * noise)


def questions(path, count):
    """The first question of paragraphs far apart, as (id, question, context)."""
    with open(path, encoding="utf-8") as file:
        data = json.load(file)["data"]
    paragraphs = [p for article in data for p in article["paragraphs"]]
    step = len(paragraphs) // count
    picked = [paragraphs[k * step] for k in range(count)]
    return [(p["qas"][0]["id"], p["qas"][0]["question"], p["context"]) for p in picked]


def sketch(tensor):
    """The norm of a gradient and its product with sin(0), sin(1), …: enough to notice any change."""
    flat = tensor.detach().double().flatten()
    wave = torch.sin(torch.arange(flat.numel(), dtype=torch.float64))
    return [flat.norm().item(), (flat @ wave).item()]


def comprehend():
    """A BERT of letters and of Chinese characters over real questions: contexts become several windows."""
    out = OUT / "comprehend"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    english = questions(SHARED / "data/squad-v1.1/dev-v1.1.json", ENGLISH)
    chinese = questions(SHARED / "data/cmrc2018/dev.json", CHINESE)
    letters = list(string.ascii_lowercase + string.digits + string.punctuation)
    seen = sorted({c for _, q, text in chinese for c in q + text if ord(c) > 127})
    words = SPECIAL + letters + ["##" + c for c in string.ascii_lowercase + string.digits] + seen
    (out / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    tokenizer = hf.BertTokenizerFast(str(out / "vocab.txt"), do_lower_case=True)
    config = hf.BertConfig(vocab_size=len(words), hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
                           intermediate_size=32, max_position_embeddings=512, pad_token_id=0)
    model = hf.BertForQuestionAnswering(config).eval()
    randomise(model, 7, 0.5)
    model.save_pretrained(out)
    pipeline = hf.pipeline("question-answering", model=model, tokenizer=tokenizer)
    golden = []
    for name, rows in [("squad", english), ("cmrc", chinese)]:
        for key, question, context in rows:
            for none in (False, True):
                found = pipeline(question=question, context=context, top_k=3, max_answer_len=30, doc_stride=128,
                                 max_seq_len=384, handle_impossible_answer=none)
                spans = [[f["start"], f["end"], f["score"]] for f in found]
                golden.append({"file": name, "id": key, "no_answer": none, "spans": spans})
    (out / "golden.json").write_text(json.dumps(golden, separators=(",", ":")) + "\n")


def squad_metric():
    """Exact match and F1 as transformers computes them after the official scorer, over answers right, near and wrong."""
    from transformers.data.metrics import squad_metrics

    with open(SHARED / "data/squad-v1.1/dev-v1.1.json", encoding="utf-8") as file:
        paragraphs = [p for article in json.load(file)["data"] for p in article["paragraphs"]]
    golden = []
    for index, paragraph in enumerate(paragraphs[:: len(paragraphs) // 60]):
        question = paragraph["qas"][index % len(paragraph["qas"])]
        texts = [answer["text"] for answer in question["answers"]]
        words = texts[0].split()
        start = question["answers"][0]["answer_start"]
        said = [texts[-1], "The " + texts[0].upper() + "!", " ".join(words[: len(words) // 2 + 1]),
                paragraph["context"][max(0, start - 25): start + len(texts[0])], ""][index % 5]
        golden.append({
            "id": question["id"], "answer": said,
            "exact": max(squad_metrics.compute_exact(text, said) for text in texts),
            "f1": max(squad_metrics.compute_f1(text, said) for text in texts),
        })
    (OUT / "squad-metric.json").write_text(json.dumps(golden, separators=(",", ":")) + "\n")


def tiny(directory, model):
    return model.from_pretrained(HERE / "tiny" / directory).eval()


ROWS = [[2, 17, 45, 99, 3], [2, 5, 3], [2, 61, 8, 30, 3, 77, 12, 64, 3]]
PAIRS = [[2, 18, 44, 3], [2, 6, 7, 8, 3], [2, 60, 9, 31, 76, 3]]


def match():
    """Two towers over tiny/bert: the loss of in-batch negatives and its gradients, with shared and with separate weights."""
    OUT.mkdir(exist_ok=True)

    def tower(model, rows):
        vectors = [model(input_ids=torch.tensor([row])).last_hidden_state[0].mean(0) for row in rows]
        return torch.nn.functional.normalize(torch.stack(vectors), dim=-1)

    golden = {"rows": ROWS, "pairs": PAIRS}
    for shared in (True, False):
        for symmetric in (False, True):
            first = tiny("bert", hf.BertModel)
            second = first if shared else tiny("bert", hf.BertModel)
            a, b = tower(first, ROWS), tower(second, PAIRS)
            scores = 20 * a @ b.T
            target = torch.arange(len(ROWS))
            loss = torch.nn.functional.cross_entropy(scores, target)
            if symmetric:
                loss = (loss + torch.nn.functional.cross_entropy(scores.T, target)) / 2
            loss.backward()
            parts = [("", first)] if shared else [("", first), ("pair_encoder.", second)]
            gradients = {
                prefix + name: sketch(p.grad)
                for prefix, model in parts for name, p in model.named_parameters() if p.grad is not None
            }
            key = f"{'shared' if shared else 'separate'}{'-symmetric' if symmetric else ''}"
            golden[key] = {"loss": loss.item(), "scores": (scores / 20).tolist(), "gradients": gradients}
    (OUT / "match.json").write_text(json.dumps(golden, separators=(",", ":")) + "\n")


SIZES = dict(vocab_size=60, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=24,
             max_position_embeddings=24, pad_token_id=0)
FAMILIES = {
    "bert": (hf.BertConfig, hf.BertForMaskedLM, SIZES),
    "roberta": (hf.RobertaConfig, hf.RobertaForMaskedLM, SIZES | {"type_vocab_size": 1, "pad_token_id": 1}),
    "distilbert": (hf.DistilBertConfig, hf.DistilBertForMaskedLM,
                   dict(vocab_size=60, dim=16, n_layers=1, n_heads=2, hidden_dim=24, max_position_embeddings=24, pad_token_id=0)),
    "electra": (hf.ElectraConfig, hf.ElectraForMaskedLM, SIZES | {"embedding_size": 8}),
    "albert": (hf.AlbertConfig, hf.AlbertForMaskedLM, SIZES | {"embedding_size": 8}),
    "modernbert": (hf.ModernBertConfig, hf.ModernBertForMaskedLM,
                   SIZES | dict(num_hidden_layers=2, local_attention=4, bos_token_id=2, cls_token_id=2, eos_token_id=3,
                                sep_token_id=3)),
    "deberta-v2": (hf.DebertaV2Config, hf.DebertaV2ForMaskedLM,
                   SIZES | dict(relative_attention=True, position_buckets=8, pos_att_type=["p2c", "c2p"], legacy=False,
                                share_att_key=True, norm_rel_ebd="layer_norm", position_biased_input=False)),
}


def masked_lm():
    """Heads of masked language modelling of each family, or of those in ET_ONLY: loss over given masks, and gradients."""
    for family, (config, model_class, sizes) in FAMILIES.items():
        if family not in (ONLY or FAMILIES):
            continue
        out = OUT / f"masked-lm-{family}"
        shutil.rmtree(out, ignore_errors=True)
        model = model_class(config(**sizes)).eval()
        randomise(model, 11)
        model.tie_weights()
        model.save_pretrained(out)
        ids = [[2, 17, 4, 9, 3], [2, 4, 4, 3], [2, 41, 8, 30, 3, 37, 4, 54, 3]]
        labels = [[-100, -100, 22, 9, -100], [-100, 5, 6, -100], [-100] * 6 + [12, -100, -100]]
        total, count, rows = 0, 0, []
        for row, wanted in zip(ids, labels):
            logits = model(input_ids=torch.tensor([row])).logits[0]
            total = total + torch.nn.functional.cross_entropy(logits, torch.tensor(wanted), reduction="sum")
            count += sum(label >= 0 for label in wanted)
            rows.append([logits[k].tolist() for k, label in enumerate(wanted) if label >= 0])
        loss = total / count
        loss.backward()
        gradients = {name: sketch(p.grad) for name, p in model.named_parameters() if p.grad is not None}
        golden = {"ids": ids, "labels": labels, "loss": loss.item(), "logits": rows, "gradients": gradients}
        (out / "golden.json").write_text(json.dumps(golden, separators=(",", ":")) + "\n")


def token_head():
    """A BERT with a head over each token: logits of three runs."""
    out = OUT / "token-head"
    shutil.rmtree(out, ignore_errors=True)
    model = hf.BertForTokenClassification(hf.BertConfig(**SIZES, num_labels=4)).eval()
    randomise(model, 13, 0.5)
    model.save_pretrained(out)
    ids = [[2, 17, 4, 9, 3], [2, 4, 4, 3], [2, 41, 8, 30, 3, 37, 4, 54, 3]]
    with torch.no_grad():
        logits = [model(input_ids=torch.tensor([row])).logits[0].tolist() for row in ids]
    (out / "golden.json").write_text(json.dumps({"ids": ids, "logits": logits}, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    for name in sys.argv[1:]:
        {"comprehend": comprehend, "squad-metric": squad_metric, "match": match, "masked-lm": masked_lm,
         "token-head": token_head}[name]()
