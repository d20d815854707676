"""Writes config.json: for each family every key of its configuration class in transformers, with the default."""

import json

import transformers as hf

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
    (HERE / "config.json").write_text(json.dumps(families, indent=1) + "\n")
