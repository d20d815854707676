"""Writes sentencepiece.json: small SentencePiece models of every kind, generated texts, and a checksum of the ids that Google's
library gives for each text with each model.

A checksum is the CRC32 (zlib) of the ids as little-endian u32. The models are trained here on generated text; some are then
changed in their protocol buffer (types of pieces, switches that the trainer does not offer). The texts hold what normalisation
and pieces can go wrong on: composed and decomposed letters, jamo, marks alone, spaces of every kind, added symbols, texts of
control, byte and unused pieces, and characters that no piece has.

    make_sentencepiece.py            writes the file
    make_sentencepiece.py N SEED     prints models and N other texts as JSON with ids, for a comparison beyond the committed set
"""

import base64
import io
import json
import random
import struct
import sys
import tempfile
import unicodedata
import zlib

import sentencepiece
from sentencepiece import sentencepiece_model_pb2

from reference import HERE

WORDS = (
    "the teacher said no to a good film and the train was late in town we saw it 12 3.5 1,000 Đường đẹp nắng ấm Zürich naïve "
    "Größe слово поезд город 東京 都市 中文 分词 한국 서울 가나 こんにちは ﬁne ① x86 don't e-mail (ok) [b] ``quoted''"
).split()
SPECIALS = [
    " ", "  ", "   ", "\t", "\n", "\u3000", "\u00a0", "\u200b", "▁", "▁▁", "<s>", "</s>", "<unk>", "<pad>", "[CLS]", "<0x41>",
    "<sep>", "USER", "US", "a-b", "(", ")", "-", ".", "\u0301", "e\u0301", "\u1100\u1161", "\u1161", "ﷺ", "🙂", "\U0001f468\u200d\U0001f469",
    "\x01", "A\u030a", "ệ", "e\u0323\u0302", "が", "か\u3099", "½", "\r\n", "x y", "xy",
]
# Rules of our own: composition, removal, a character to spaces, a letter to many, a sequence to one.
RULES = [
    ("65 0301", "E9"), ("41 030A", "C5"), ("212B", "C5"), ("0001", ""), ("0009", "20"), ("00A0", "20"),
    ("3000", "20 20"), ("FB01", "66 69"), ("2460", "31"), ("1100 1161", "AC00"), ("60 60", "22"), ("27 27", "22"),
]


def generate(rng, count):
    """Texts of words and specials, some in decomposed or composed form."""
    texts = ["", " ", "  ", "▁", "a", " a ", "the teacher", "(no)", "a - b"]
    while len(texts) < count:
        parts = []
        for _ in range(rng.randint(1, 9)):
            kind = rng.random()
            part = rng.choice(WORDS) if kind < 0.6 else rng.choice(SPECIALS)
            if kind > 0.95:
                part = "".join(chr(rng.choice([rng.randint(33, 126), rng.randint(0x300, 0x36f), rng.randint(0xc0, 0x17f),
                                               rng.randint(0x1100, 0x11ff), rng.randint(0xac00, 0xd7a3)])) for _ in range(3))
            parts += [part, rng.choice(["", "", " ", " ", " ", "  "])]
        text = "".join(parts)
        form = rng.choice([None, None, "NFC", "NFD"])
        texts.append(unicodedata.normalize(form, text) if form else text)
    return texts[:count]


def train(rng, **options):
    lines = [" ".join(rng.choice(WORDS) for _ in range(8)) for _ in range(300)]
    written = io.BytesIO()
    options = {"vocab_size": 190, "hard_vocab_limit": False, "minloglevel": 2, "num_threads": 1, **options}
    with tempfile.NamedTemporaryFile("w", suffix=".tsv", encoding="utf-8") as rules:
        if options.pop("rules", False):
            rules.write("".join(f"{source}\t{target}\n" for source, target in RULES))
            rules.flush()
            options["normalization_rule_tsv"] = rules.name
        else:
            options["normalization_rule_name"] = "identity"
        sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(lines), model_writer=written, **options)
    model = sentencepiece_model_pb2.ModelProto()
    model.ParseFromString(written.getvalue())
    # Names of files of this machine, and tables that only training reads.
    model.trainer_spec.ClearField("model_prefix")
    model.normalizer_spec.ClearField("normalization_rule_tsv")
    return model


def unused(model, step):
    """Every so many normal pieces become unused."""
    normal = [piece for piece in model.pieces if piece.type == 1]
    for piece in normal[::step]:
        piece.type = 5
    return model


def switched(model, **switches):
    for name, value in switches.items():
        part = model.normalizer_spec if hasattr(model.normalizer_spec, name) else model.trainer_spec
        setattr(part, name, value)
    return model


def models(rng):
    user = {"user_defined_symbols": ["USER", "a-b", "(", ")", "-", ".", "x y", "▁the", "e\u0301"]}
    control = {"control_symbols": ["[CLS]", "<sep>"], "pad_id": 3}
    for kind in ("unigram", "bpe"):
        base = {"model_type": kind}
        yield f"{kind}", train(rng, **base)
        yield f"{kind}-rules-user-control", train(rng, rules=True, **base, **user, **control)
        yield f"{kind}-bytes", train(rng, byte_fallback=True, vocab_size=450, rules=True, **base)
        yield f"{kind}-spaces-stay", train(rng, remove_extra_whitespaces=False, rules=True, **base, **user)
        yield f"{kind}-no-prefix", train(rng, add_dummy_prefix=False, rules=True, **base)
        yield f"{kind}-suffix", train(rng, treat_whitespace_as_suffix=True, rules=True, **base, **user)
        yield f"{kind}-over-spaces", train(rng, split_by_whitespace=False, **base)
        yield f"{kind}-bare-spaces", switched(train(rng, **base), escape_whitespaces=False)
        yield f"{kind}-unused", unused(train(rng, rules=True, **base, **user), 3)
    for kind in ("char", "word"):
        yield f"{kind}", train(rng, model_type=kind, rules=True)
        yield f"{kind}-user", train(rng, model_type=kind, **user)
    yield "word-suffix", train(rng, model_type="word", treat_whitespace_as_suffix=True)
    yield "char-spaces-stay", train(rng, model_type="char", remove_extra_whitespaces=False)


def encode(model, texts):
    return sentencepiece.SentencePieceProcessor(model_proto=model.SerializeToString()).encode(texts)


def main():
    count, seed = (int(sys.argv[1]), int(sys.argv[2])) if len(sys.argv) == 3 else (160, 7)
    texts = generate(random.Random(seed), count)
    rows = []
    for name, model in models(random.Random(1)):
        ids = encode(model, texts)
        assert sum(map(len, ids)) > 2 * count, name
        row = {"name": name, "model": base64.b64encode(model.SerializeToString(deterministic=True)).decode()}
        if len(sys.argv) == 3:
            row["ids"] = ids
        else:
            row["checksums"] = [zlib.crc32(struct.pack(f"<{len(line)}I", *line)) for line in ids]
        rows.append(row)
    if len(sys.argv) == 3:
        json.dump({"texts": texts, "models": rows}, sys.stdout)
        return
    body = ",\n".join(json.dumps(row, separators=(",", ":")) for row in rows)
    (HERE / "sentencepiece.json").write_text(
        '{"reference": "SentencePiece library ' + sentencepiece.__version__ + '",\n"texts": '
        + json.dumps(texts) + f',\n"models": [\n{body}\n]}}\n'
    )


if __name__ == "__main__":
    main()
