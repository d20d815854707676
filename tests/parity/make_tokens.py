"""Writes tokens.bin and tokens.json: a checksum of the token ids of 10,000 lines of the shared data sets.

A line's checksum is the CRC32 (zlib) of its ids as little-endian u32, special tokens on, no truncation. The references
share no code with crate `tokenizers`:
  BERT       the pure Python WordPiece tokenizer of transformers
  RoBERTa    byte-level BPE as written below
  T5         the SentencePiece library, and </s>
"""

import json
import struct
import zlib
from functools import lru_cache

import regex
import sentencepiece
from tokenizers import BertWordPieceTokenizer, Tokenizer

from reference import HERE, SHARED, bert_tokenizer, encode

# block: file, column (None: the whole line), first line and stride (lines count from 1), how many lines
UNCASED = [
    ("sst-2/train.tsv", 1, 2, 70, 800),
    ("sts-b/sts-train.csv", 5, 1, 14, 400),
    ("goemotions/train.tsv", 0, 1, 108, 400),
    ("chnsenticorp/train.tsv", 1, 2, 47, 200),
    ("wikitext-2/valid.txt", None, 1, 18, 200),
]
CASED = [
    ("goemotions/train.tsv", 0, 3, 43, 1000),
    ("mrpc/msr-para-train.tsv", 3, 2, 7, 500),
    ("wikitext-2/valid.txt", None, 2, 9, 400),
    ("afqmc/train.tsv", 0, 5, 343, 100),
]
CHINESE = [
    ("afqmc/train.tsv", 0, 1, 42, 800),
    ("chnsenticorp/train.tsv", 1, 3, 12, 800),
    ("goemotions/train.tsv", 0, 7, 217, 200),
    ("wikitext-2/test.txt", None, 1, 20, 200),
]
ROBERTA = [
    ("goemotions/train.tsv", 0, 5, 54, 800),
    ("sts-b/sts-train.csv", 6, 2, 8, 700),
    ("mrpc/msr-para-train.tsv", 4, 3, 11, 300),
    ("chnsenticorp/dev.tsv", 1, 2, 6, 200),
]
T5 = [
    ("goemotions/train.tsv", 0, 9, 54, 800),
    ("sts-b/sts-train.csv", 5, 3, 8, 700),
    ("sst-2/train.tsv", 1, 4, 200, 300),
    ("mrpc/msr-para-train.tsv", 4, 5, 17, 200),
]


# bert-base-cased has no tokenizer.json, and that of bert-base-chinese does not lower-case although the model does.
FROM_VOCABULARY = ("tokenizer-bert-base-cased", "tokenizer-bert-base-chinese")
LOWERCASE = {"all-MiniLM-L6-v2": True, "tokenizer-bert-base-chinese": True, "tokenizer-bert-base-cased": False}


def read_column(path, column, first, stride, count):
    """Lines end at a line feed only; a trailing carriage return goes; columns part at tabs, with no quoting."""
    lines = path.read_bytes().decode("utf-8").split("\n")
    for number in range(first, first + stride * count, stride):
        line = lines[number - 1].removesuffix("\r")
        yield number, line if column is None else line.split("\t")[column]


class ByteLevelBpe:
    """RoBERTa's tokenizer: split as GPT-2 does, then merge pairs of byte symbols by rank, lowest first."""

    SPLIT = regex.compile(r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+")

    def __init__(self, folder):
        self.vocabulary = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
        merges = (folder / "merges.txt").read_text(encoding="utf-8").split("\n")[1:]
        self.ranks = {tuple(line.split(" ")): rank for rank, line in enumerate(merges) if line}
        # Bytes that print stand for themselves; the others take the code points from 256 on, in order.
        printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
        others = [byte for byte in range(256) if byte not in printable]
        self.symbol = {byte: chr(byte) for byte in printable} | {b: chr(256 + i) for i, b in enumerate(others)}
        self.merge = lru_cache(maxsize=None)(self.merge_word)

    def merge_word(self, word):
        parts = [self.symbol[byte] for byte in word.encode("utf-8")]
        while len(parts) > 1:
            rank, at = min((self.ranks.get(pair, 1 << 30), i) for i, pair in enumerate(zip(parts, parts[1:])))
            if rank == 1 << 30:
                break
            pair, i, joined = (parts[at], parts[at + 1]), 0, []
            while i < len(parts):
                if tuple(parts[i : i + 2]) == pair:
                    joined.append(parts[i] + parts[i + 1])
                    i += 2
                else:
                    joined.append(parts[i])
                    i += 1
            parts = joined
        return [self.vocabulary[part] for part in parts]

    def encode(self, text):
        ids = [token for word in self.SPLIT.findall(text) for token in self.merge(word)]
        return [0, *ids, 2]


def t5_encoder(folder):
    model = sentencepiece.SentencePieceProcessor(model_file=str(folder / "spiece.model"))
    return lambda text: [*model.encode(text), 1]


def wordpiece_encoder(folder, lower):
    tokenizer = bert_tokenizer(folder, lower)
    return lambda text: encode(tokenizer, text)[0]


def library_tokenizer(folder):
    """The same by the Python binding of crate `tokenizers`, for comparison."""
    if folder.name in FROM_VOCABULARY:
        return BertWordPieceTokenizer(str(folder / "vocab.txt"), lowercase=LOWERCASE[folder.name])
    fast = Tokenizer.from_file(str(folder / "tokenizer.json"))
    fast.no_truncation()
    fast.no_padding()
    return fast


def main():
    models = SHARED / "models"
    wordpiece = "pure Python WordPiece tokenizer of transformers (BertTokenizerLegacy)"
    groups = [
        ("all-MiniLM-L6-v2", wordpiece, wordpiece_encoder(models / "all-MiniLM-L6-v2", True), UNCASED),
        ("tokenizer-bert-base-cased", wordpiece, wordpiece_encoder(models / "tokenizer-bert-base-cased", False), CASED),
        ("tokenizer-bert-base-chinese", wordpiece,
         wordpiece_encoder(models / "tokenizer-bert-base-chinese", True), CHINESE),
        ("tokenizer-roberta-base", "byte-level BPE written out in make_tokens.py",
         ByteLevelBpe(models / "tokenizer-roberta-base").encode, ROBERTA),
        ("tokenizer-t5", "SentencePiece library", t5_encoder(models / "tokenizer-t5"), T5),
    ]
    checksums, blocks = [], []
    for folder, reference, encoder, group in groups:
        fast = library_tokenizer(models / folder)
        for file, column, first, stride, count in group:
            different, tokens, sample = [], 0, None
            start = len(checksums)
            for number, text in read_column(SHARED / "data" / file, column, first, stride, count):
                ids = encoder(text)
                sample = sample or {"line": number, "text_bytes": len(text.encode("utf-8")), "ids": ids[:12]}
                tokens += len(ids)
                checksums.append(zlib.crc32(struct.pack(f"<{len(ids)}I", *ids)))
                if fast.encode(text).ids != ids:
                    different.append(number)
            blocks.append({
                "model": folder, "load": "vocab.txt" if folder in FROM_VOCABULARY else "tokenizer.json",
                "lowercase": LOWERCASE.get(folder, False),
                "file": file, "column": column, "first_line": first, "stride": stride, "count": count, "start": start,
                "tokens": tokens, "reference": reference, "first": sample,
                "lines_where_the_tokenizers_library_differs": different,
            })
            print(folder, file, count, "lines,", tokens, "tokens,", len(different), "differ")
    assert len(checksums) == 10_000, len(checksums)
    (HERE / "tokens.bin").write_bytes(struct.pack(f"<{len(checksums)}I", *checksums))
    rows = ",\n".join(json.dumps(block) for block in blocks)
    (HERE / "tokens.json").write_text(
        '{"checksum": "crc32 (zlib) of the ids as little-endian u32", "special_tokens": true, "truncation": null,\n'
        f'"lines": {len(checksums)}, "blocks": [\n{rows}\n]}}\n'
    )


if __name__ == "__main__":
    main()
