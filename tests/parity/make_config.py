"""Writes config.json: for each family every key of its configuration class in transformers, with the default; and DistilBERT's
sinusoidal positions."""

import json

import torch
import transformers as hf
from transformers.models.distilbert.modeling_distilbert import create_sinusoidal_embeddings

from reference import HERE

FAMILIES = {
    "bert": hf.BertConfig, "roberta": hf.RobertaConfig, "electra": hf.ElectraConfig, "distilbert": hf.DistilBertConfig,
    "albert": hf.AlbertConfig,
}


def keys_of(config):
    """What the class writes and what it takes; the version is that of whoever runs this script."""
    keys = config().to_dict() | {"num_labels": config().num_labels}
    del keys["transformers_version"]
    return {"keys": dict(sorted(keys.items())), "aliases": config.attribute_map}


if __name__ == "__main__":
    families = {name: keys_of(config) for name, config in FAMILIES.items()}
    families["sinusoids"] = create_sinusoidal_embeddings(5, 6, torch.empty(5, 6)).tolist()
    (HERE / "config.json").write_text(json.dumps(families, indent=1) + "\n")
