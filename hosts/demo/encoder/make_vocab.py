"""Writes vocab.txt: special tokens, single characters, and word pieces learned from messages.train.tsv (package `tokenizers`)."""

import string
from pathlib import Path

from tokenizers import BertWordPieceTokenizer

HERE = Path(__file__).resolve().parent
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
SIZE = 2000


def main():
    lines = (HERE.parent / "messages.train.tsv").read_text(encoding="utf-8").splitlines()[1:]
    texts = [line.split("\t")[0] for line in lines]
    # Lower-cases and splits Chinese into single characters, as BERT's uncased tokenizer does.
    tokenizer = BertWordPieceTokenizer(lowercase=True)
    tokenizer.train_from_iterator(texts, vocab_size=SIZE, min_frequency=2, special_tokens=SPECIAL, show_progress=False)
    learned = tokenizer.get_vocab()
    letters = string.ascii_lowercase + string.digits
    chinese = {c for text in texts for c in text if "\u4e00" <= c <= "\u9fff"}
    wanted = set(string.punctuation) | set("，。？！：；、（）“”《》…—") | set(letters) | {"##" + c for c in letters} | chinese
    wanted |= {piece for piece in learned if piece not in SPECIAL}
    # A Chinese character always stands alone, so its continuation piece would never be used.
    wanted = {piece for piece in wanted if not (piece.startswith("##") and "\u4e00" <= piece[2:3] <= "\u9fff")}
    vocabulary = SPECIAL + sorted(wanted, key=lambda piece: (len(piece.removeprefix("##")), piece))
    (HERE / "vocab.txt").write_text("\n".join(vocabulary) + "\n", encoding="utf-8")
    print(len(vocabulary))


if __name__ == "__main__":
    main()
