"""What the golden scripts share: where the data is, the encoder, its tokenizer."""

import json
import os
from pathlib import Path

import torch
from transformers import BertModel
from transformers.models.bert.tokenization_bert_legacy import BertTokenizerLegacy

HERE = Path(__file__).resolve().parent
SHARED = Path(os.environ.get("ET_SHARED", HERE.parents[1] / ".." / "shared"))
MINILM = SHARED / "models" / "all-MiniLM-L6-v2"


def load_encoder(dtype=torch.float32):
    """all-MiniLM-L6-v2 with eager attention, in evaluation mode (no dropout)."""
    model = BertModel.from_pretrained(MINILM, attn_implementation="eager", dtype=dtype)
    return model.eval()


def bert_tokenizer(folder, lower=True):
    """The pure Python WordPiece tokenizer of transformers: it shares no code with crate `tokenizers`."""
    return BertTokenizerLegacy(str(Path(folder) / "vocab.txt"), do_lower_case=lower)


def encode(tokenizer, text, pair=None):
    """ids with [CLS] and [SEP], and segments 0 and 1; never truncated."""
    first = tokenizer.convert_tokens_to_ids(tokenizer.tokenize(text))
    ids = [tokenizer.cls_token_id, *first, tokenizer.sep_token_id]
    segments = [0] * len(ids)
    if pair is not None:
        second = tokenizer.convert_tokens_to_ids(tokenizer.tokenize(pair)) + [tokenizer.sep_token_id]
        ids += second
        segments += [1] * len(second)
    return ids, segments


@torch.no_grad()
def hidden_states(model, ids, segments):
    """([layers + 1, T, H], [H]): the embedding output and every layer, and the pooler's output."""
    out = model(
        input_ids=torch.tensor([ids]),
        token_type_ids=torch.tensor([segments]),
        output_hidden_states=True,
    )
    return torch.cat(out.hidden_states), out.pooler_output[0]


def read_texts():
    return json.loads((HERE / "texts.json").read_text(encoding="utf-8"))


def write_json(path, value, indent=1):
    path.write_text(json.dumps(value, ensure_ascii=False, indent=indent) + "\n", encoding="utf-8")
