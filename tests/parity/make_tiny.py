"""Writes tiny/<family>/: small random models as transformers saves them, and what transformers computes with them.

    python make_tiny.py [FAMILY ...]    # without names all of them
"""

import json
import shutil
import sys

import torch
import transformers as hf

from reference import HERE

INPUTS = [
    {"ids": [2, 17, 45, 99, 3], "segments": [0, 0, 0, 0, 0]},
    {"ids": [2, 5, 3], "segments": [0, 0, 0]},
    {"ids": [2, 61, 8, 30, 3, 77, 12, 64, 3], "segments": [0, 0, 0, 0, 0, 1, 1, 1, 1]},
]
SIZES = dict(
    vocab_size=100, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
    max_position_embeddings=40, num_labels=3, pad_token_id=0,
    id2label={0: "low", 1: "middle", 2: "high"}, label2id={"low": 0, "middle": 1, "high": 2},
)
DISTIL = dict(
    vocab_size=100, dim=32, n_layers=2, n_heads=4, hidden_dim=64, max_position_embeddings=40, num_labels=3,
    pad_token_id=0, id2label=SIZES["id2label"], label2id=SIZES["label2id"],
)
# Three passes through two groups of two layers each: the first group's parameters are used twice.
ALBERT = SIZES | dict(
    hidden_size=16, embedding_size=8, num_attention_heads=2, intermediate_size=24, num_hidden_layers=3, num_hidden_groups=2,
    inner_group_num=2,
)
MODERN = dict(num_hidden_layers=4, local_attention=6, bos_token_id=2, cls_token_id=2, eos_token_id=3, sep_token_id=3)
DEBERTA = dict(relative_attention=True, position_buckets=8, pos_att_type=["p2c", "c2p"], share_att_key=True,
               norm_rel_ebd="layer_norm", position_biased_input=False, type_vocab_size=0, conv_kernel_size=3)
XLNET = dict(
    vocab_size=100, d_model=32, n_layer=2, n_head=4, d_inner=64, num_labels=3, pad_token_id=0,
    id2label=SIZES["id2label"], label2id=SIZES["label2id"],
)
FAMILIES = {
    "bert": (hf.BertConfig, hf.BertForSequenceClassification, SIZES, "bert"),
    # RoBERTa counts positions from pad_token_id + 1, has one segment, and <s> is 0, <pad> 1, </s> 2.
    "roberta": (hf.RobertaConfig, hf.RobertaForSequenceClassification,
                SIZES | {"type_vocab_size": 1, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}, "roberta"),
    "distilbert": (hf.DistilBertConfig, hf.DistilBertForSequenceClassification, DISTIL, "distilbert"),
    # The embeddings are narrower than the hidden states, so that embeddings_project is there.
    "electra": (hf.ElectraConfig, hf.ElectraForSequenceClassification, SIZES | {"embedding_size": 16}, "electra"),
    "albert": (hf.AlbertConfig, hf.AlbertForSequenceClassification, ALBERT, "albert"),
    # Texts of eight tokens go beyond the window.
    "modernbert": (hf.ModernBertConfig, hf.ModernBertForSequenceClassification, SIZES | MODERN, "model"),
    "deberta-v2": (hf.DebertaV2Config, hf.DebertaV2ForSequenceClassification, SIZES | DEBERTA, "deberta"),
    "xlnet": (hf.XLNetConfig, hf.XLNetForSequenceClassification, XLNET, "transformer"),
}
TEXTS = [("The train to Zürich.", None), ("``No''", "an  8 and 9!"), ("Thanks", None)]


def randomise(model, seed):
    """Every parameter random, biases and layer norms too: a test must notice when one is left out."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in model.named_parameters():
            noise = torch.randn(p.shape, generator=generator)
            if "LayerNorm.weight" in name or "layer_norm.weight" in name:
                p.copy_(1 + 0.1 * noise)
            else:
                p.copy_(0.2 * noise)


def pieces():
    """Pieces of a Unigram vocabulary. Longer ones have better scores; 8 and 9 are unknown."""
    words = "the a an and to of is in on it no not we you she he said train late than thanks".split()
    parts = ["ing", "ed", "er", "es", "th", "an", "s", "\u2581"]
    characters = [c for c in "abcdefghijklmnopqrstuvwxyz01234567.,:!?\"" if c not in parts]
    scores = {"\u2581" + word: -2 - 0.01 * k for k, word in enumerate(words)}
    scores |= {part: -4 - 0.01 * k for k, part in enumerate(parts)}
    scores |= {character: -6 - 0.01 * k for k, character in enumerate(characters)}
    return list(scores.items())


def albert_tokenizer():
    """Special tokens first, as ALBERT has them."""
    special = [(token, 0.0) for token in ("<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]")]
    return hf.AlbertTokenizer(vocab=special + pieces())


def deberta_tokenizer():
    special = [(token, 0.0) for token in ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")]
    return hf.DebertaV2Tokenizer(vocab=special + pieces())


def xlnet_tokenizer():
    special = [(token, 0.0) for token in ("<pad>", "<unk>", "<cls>", "<sep>", "<mask>", "<s>", "</s>", "<eop>", "<eod>")]
    return hf.XLNetTokenizer(vocab=special + pieces(), unk_id=1)


def modernbert_tokenizer():
    """Byte-level BPE, as ModernBERT has it, with a few merges."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    merges = [("t", "h"), ("th", "e"), ("\u0120", "the"), ("i", "n"), ("\u0120", "t"), ("r", "a"), ("\u0120", "a")]
    letters = sorted("abcdefghijklmnopqrstuvwxyzTN01234567.,:!?'\u0120")
    tokens = special + letters + [a + b for a, b in merges]
    model = models.BPE(vocab={token: k for k, token in enumerate(tokens)}, merges=merges, unk_token="[UNK]")
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    return hf.PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]",
                                      cls_token="[CLS]", sep_token="[SEP]", mask_token="[MASK]",
                                      model_input_names=["input_ids", "attention_mask"])


TOKENIZERS = {"albert": albert_tokenizer, "modernbert": modernbert_tokenizer, "deberta-v2": deberta_tokenizer,
              "xlnet": xlnet_tokenizer}


def inputs_of(family):
    if family in TOKENIZERS:
        tokenizer = TOKENIZERS[family]()
        rows = [tokenizer(text, pair, return_token_type_ids=True) for text, pair in TEXTS]
        return [{"text": text, "pair": pair, "ids": row["input_ids"], "segments": row["token_type_ids"]}
                for (text, pair), row in zip(TEXTS, rows)]
    if family != "roberta":
        return INPUTS
    return [{"ids": [{2: 0, 3: 2}.get(i, i) for i in row["ids"]], "segments": [0] * len(row["ids"])} for row in INPUTS]


def arguments_of(base_name, row):
    arguments = {"input_ids": torch.tensor([row["ids"]])}
    if base_name not in ("distilbert", "model"):
        arguments["token_type_ids"] = torch.tensor([row["segments"]])
    return arguments


@torch.no_grad()
def outputs_of(model, base_name, row):
    arguments = arguments_of(base_name, row)
    out = model(**arguments, output_hidden_states=True)
    base = getattr(model, base_name)(**arguments)
    pooled = getattr(base, "pooler_output", None)
    return row | {
        "hidden": [state[0].tolist() for state in out.hidden_states],
        "pooled": None if pooled is None else pooled[0].tolist(),
        "logits": out.logits[0].tolist(),
    }


def gradients_of(model, base_name, rows):
    """Of the mean cross entropy when row k has label k: per parameter the L2 norm of the gradient, and its product with sin(0), sin(1), ..."""
    logits = torch.cat([model(**arguments_of(base_name, row)).logits for row in rows])
    torch.nn.functional.cross_entropy(logits, torch.arange(len(rows))).backward()
    gradients = {name: p.grad.double().flatten() for name, p in model.named_parameters() if p.grad is not None}
    return {name: [g.norm().item(), (g @ torch.arange(len(g)).double().sin()).item()] for name, g in gradients.items()}


def check_same(model, base_name, row):
    """What was saved and loaded again computes the same, up to rounding (alignment of buffers changes the last bit)."""
    other = outputs_of(model, base_name, row)
    for key in ("hidden", "logits"):
        torch.testing.assert_close(torch.tensor(other[key]), torch.tensor(row[key]), rtol=0, atol=1e-5)


def main():
    root = HERE / "tiny"
    for number, (family, (config, model_class, sizes, base_name)) in enumerate(FAMILIES.items()):
        if family not in (sys.argv[1:] or FAMILIES):
            continue
        for folder in [family] + (["bert-bin", "bert-sharded"] if family == "bert" else []):
            shutil.rmtree(root / folder, ignore_errors=True)
        model = model_class(config(**sizes, attn_implementation="eager")).eval()
        randomise(model, 100 + number)
        folder = root / family
        model.save_pretrained(folder)
        rows = [outputs_of(model, base_name, row) for row in inputs_of(family)]
        lines = ",\n".join(json.dumps(row) for row in rows)
        (folder / "golden.json").write_text("[\n" + lines + "\n]\n")
        lines = json.dumps(gradients_of(model, base_name, rows)).replace("], ", "],\n")
        (folder / "gradients.json").write_text(lines + "\n")
        if family in TOKENIZERS:
            TOKENIZERS[family]().save_pretrained(folder)
        if family == "bert":
            binary = root / "bert-bin"
            binary.mkdir()
            torch.save(model.state_dict(), binary / "pytorch_model.bin")
            shutil.copy(folder / "config.json", binary)
            model.save_pretrained(root / "bert-sharded", max_shard_size="30KB")
        again = model_class.from_pretrained(folder, attn_implementation="eager").eval()
        check_same(again, base_name, rows[2])
        for kind in ("bert-bin", "bert-sharded") if family == "bert" else ():
            other = model_class.from_pretrained(root / kind, attn_implementation="eager").eval()
            check_same(other, base_name, rows[2])
        for path in root.rglob("*"):
            path.chmod(0o755 if path.is_dir() else 0o644)
        print(family, sum(p.numel() for p in model.parameters()), "parameters, logits", rows[0]["logits"])


if __name__ == "__main__":
    main()
