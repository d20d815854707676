"""Writes settings.json: the files of small tokenizers, texts, and the ids that AutoTokenizer of transformers gives.

Each case is a set of files of one tokenizer: a vocabulary in one of its forms, the model's config.json, and what
tokenizer_config.json, special_tokens_map.json and added_tokens.json say beside it.
"""

import json
import os
import tempfile
import warnings

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from reference import HERE

os.environ["HF_HUB_OFFLINE"] = "1"
warnings.filterwarnings("ignore")
from transformers import AutoTokenizer  # noqa: E402

WORDS = (
    "[PAD] [UNK] [CLS] [SEP] [MASK] the film good was The Film Good café cafe 中 国 ##s x ##x a b ##é e new [new] <s> </s> <pad> "
    "<mask> [ ] ! , ."
).split()
BYTES = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", *"abcdefghilmnorstuw", "Ġ", "T", "F", "G", ".", "Ã", "©", "th", "the", "Ġthe", "Ġf"]
MERGES = ["t h", "th e", "Ġ the", "Ġ f"]
PIECES = [
    ("<pad>", 0.0), ("<unk>", 0.0), ("[CLS]", 0.0), ("[SEP]", 0.0), ("[MASK]", 0.0), ("<s>", 0.0), ("</s>", 0.0), ("<cls>", 0.0), ("<sep>", 0.0),
    ("<mask>", 0.0), ("▁", -2.0), ("▁the", -3.0), ("▁film", -3.5), ("▁cafe", -4.0), ("▁The", -4.0), ('"', -4.0), *((c, -6.0) for c in "abcefhilmotTFÉé9,"),
    ("9,", -5.0),
]
TEXTS = [
    ["The Film was Good café 中国 [N1] films [CLS] a", None], ["[N2]  Foo xFoo foo BAR bar cafe\u0301 É", None],
    [" new [MASK] [new]<mask> the <s> x", None], ["xx é! the,film. [N9]", "The film"], ["``the''  film 9,9 the [N1]", None], ["", None],
]


def wordpiece(lower, added=(), longest=100, chinese=True, strip=None):
    tokenizer = Tokenizer(models.WordPiece({w: i for i, w in enumerate(WORDS)}, unk_token="[UNK]", max_input_chars_per_word=longest))
    tokenizer.normalizer = normalizers.BertNormalizer(True, chinese, strip, lower)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    tokenizer.add_special_tokens(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"])
    tokenizer.add_tokens(list(added))
    return json.loads(tokenizer.to_str())


def byte_level(prefix):
    tokenizer = Tokenizer(models.BPE({w: i for i, w in enumerate(BYTES)}, [tuple(m.split()) for m in MERGES]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    tokenizer.add_special_tokens(["<s>", "<pad>", "</s>", "<unk>", "<mask>"])
    return json.loads(tokenizer.to_str())


def unigram(lower):
    tokenizer = Tokenizer(models.Unigram(PIECES, unk_id=1))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKD(), *([normalizers.Lowercase()] if lower else [])])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.add_special_tokens(["<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]"])
    return json.loads(tokenizer.to_str())


def token(content, **how):
    return {"content": content, "lstrip": False, "normalized": False, "rstrip": False, "single_word": False, **how}


def cases():
    vocab = {"vocab.txt": "\n".join(WORDS) + "\n"}
    cased, lowered = {"tokenizer.json": wordpiece(False)}, {
        "tokenizer.json": wordpiece(True, [AddedToken("Foo", single_word=True), AddedToken("[N9]", special=True)])}
    config = [
        None, {"do_lower_case": False}, {"do_lower_case": True}, {"strip_accents": False}, {"do_lower_case": False, "strip_accents": True},
        {"tokenize_chinese_chars": False}, {"split_special_tokens": True}, {"cls_token": "film"}, {"sep_token": "good", "unk_token": "x"},
        {"mask_token": {"__type": "AddedToken", **token("[MASK]", lstrip=True)}}, {"additional_special_tokens": ["[N1]", "[N2]"]},
        {"extra_special_tokens": {"image_token": "[N1]"}}, {"image_token": "[N2]"},
        {"added_tokens_decoder": {"34": token("Foo", normalized=True, single_word=True, special=False), "35": token("BAR", special=False)}},
        {"tokenizer_class": "DistilBertTokenizerFast", "do_lower_case": False}, {"tokenizer_class": "MPNetTokenizer"},
    ]
    for settings in config:
        for form in (vocab, cased, lowered):
            yield "bert", {**form, **({"tokenizer_config.json": settings} if settings else {})}
    for beside in (
        {"added_tokens.json": {"[N1]": 34}}, {"added_tokens.json": {"Foo": 34, "[N2]": 35}},
        {"special_tokens_map.json": {"cls_token": "film", "additional_special_tokens": ["[N2]"]}},
        {"special_tokens_map.json": {"mask_token": token("new", lstrip=True)}, "added_tokens.json": {"Bar": 34}},
        {"special_tokens_map.json": {"additional_special_tokens": ["[N1]"]}, "tokenizer_config.json": {"additional_special_tokens": ["[N2]"]}},
        {"special_tokens_map.json": {"cls_token": "film"}, "added_tokens.json": {"[N1]": 34},
         "tokenizer_config.json": {"added_tokens_decoder": {"34": token("[N2]")}}},
    ):
        for form in (vocab, lowered):
            yield "electra", {**form, **beside}
    for settings in ({"tokenizer_class": "PreTrainedTokenizerFast", "do_lower_case": True}, {"tokenizer_class": "TokenizersBackend"}):
        for form in (cased, lowered):
            yield "bert", {**form, "tokenizer_config.json": settings}
    yield "mpnet", vocab
    pair = {"vocab.json": {w: i for i, w in enumerate(BYTES)}, "merges.txt": "#version: 0.2\n" + "\n".join(MERGES) + "\n"}
    for settings in (
        {"add_prefix_space": True}, {"add_prefix_space": False}, {"cls_token": "the"}, {"additional_special_tokens": ["[N1]"]},
        {"mask_token": {"__type": "AddedToken", **token("<mask>", lstrip=True)}}, {"tokenizer_class": "BartTokenizer"},
    ):
        for form in (pair, {"tokenizer.json": byte_level(False)}, {"tokenizer.json": byte_level(True)}):
            yield "roberta", {**form, "tokenizer_config.json": settings}
    for kind, name in (("albert", "AlbertTokenizer"), ("xlnet", "XLNetTokenizer")):
        for settings in ({}, {"do_lower_case": True}, {"do_lower_case": False}, {"do_lower_case": False, "keep_accents": kind == "albert"}):
            for lower in (False, True):
                unknown = {"unk_id": 1} if kind == "xlnet" else {}
                yield kind, {"tokenizer.json": unigram(lower), "tokenizer_config.json": {"tokenizer_class": name, **settings, **unknown}}


def main():
    rows = []
    for kind, files in cases():
        files = {**files, "config.json": {"model_type": kind}}
        with tempfile.TemporaryDirectory() as folder:
            for name, content in files.items():
                with open(os.path.join(folder, name), "w", encoding="utf-8") as file:
                    file.write(content if isinstance(content, str) else json.dumps(content))
            tokenizer = AutoTokenizer.from_pretrained(folder)
            ids = [tokenizer(*[t for t in pair if t is not None])["input_ids"] for pair in TEXTS]
        rows.append({"files": files, "ids": ids})
    # Vocabularies repeat: they are written once and named.
    whole = {}
    for row in rows:
        for name, content in row["files"].items():
            if name in ("vocab.txt", "tokenizer.json", "vocab.json", "merges.txt"):
                text = content if isinstance(content, str) else json.dumps(content, separators=(",", ":"), ensure_ascii=False)
                row["files"][name] = whole.setdefault(text, len(whole))
    body = ",\n".join(json.dumps(row, separators=(",", ":"), ensure_ascii=False) for row in rows)
    contents = ",\n".join(json.dumps(text, ensure_ascii=False) for text in whole)
    import transformers

    (HERE / "settings.json").write_text(
        f'{{"reference": "AutoTokenizer of transformers {transformers.__version__}",\n"texts": {json.dumps(TEXTS, ensure_ascii=False)},\n'
        f'"contents": [\n{contents}\n],\n"cases": [\n{body}\n]}}\n', encoding="utf-8")
    print(len(rows), "cases")


if __name__ == "__main__":
    main()
