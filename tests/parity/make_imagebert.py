"""Outputs and gradients of ImageBERT by a twin in PyTorch, double precision: imagebert.json.

    python make_imagebert.py [SEED [FILE]]

The twin reads padded batches with masks, as the original does: words, then patches, each with its own padding. Sizes
come from a seeded generator; half of the models read pixels. Parameters, patches and pixels are a formula of their
names and places, so they are not stored.
"""

import json
import math
import pathlib
import random
import sys
import zlib

import torch
import torch.nn.functional as F
from torch import nn

torch.set_default_dtype(torch.float64)


class SelfAttention(nn.Module):
    def __init__(self, h):
        super().__init__()
        self.query, self.key, self.value = nn.Linear(h, h), nn.Linear(h, h), nn.Linear(h, h)


class DenseNorm(nn.Module):
    def __init__(self, inputs, h, epsilon):
        super().__init__()
        self.dense = nn.Linear(inputs, h)
        self.LayerNorm = nn.LayerNorm(h, epsilon)

    def forward(self, x, residual):
        return self.LayerNorm(self.dense(x) + residual)


class Attention(nn.Module):
    def __init__(self, config):
        super().__init__()
        h = config["hidden_size"]
        self.self, self.output = SelfAttention(h), DenseNorm(h, h, config["layer_norm_eps"])


class Dense(nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        self.dense = nn.Linear(inputs, outputs)


class Layer(nn.Module):
    def __init__(self, config):
        super().__init__()
        h, inner = config["hidden_size"], config["intermediate_size"]
        self.heads = config["num_attention_heads"]
        self.activation = {"gelu": F.gelu, "gelu_new": lambda x: F.gelu(x, approximate="tanh"), "relu": F.relu}[
            config["hidden_act"]
        ]
        self.attention = Attention(config)
        self.intermediate = Dense(h, inner)
        self.output = DenseNorm(inner, h, config["layer_norm_eps"])

    def forward(self, x, mask):
        b, t, h = x.shape
        split = lambda x: x.reshape(b, t, self.heads, h // self.heads).transpose(1, 2)
        own = self.attention.self
        query, key, value = split(own.query(x)), split(own.key(x)), split(own.value(x))
        scores = query @ key.transpose(2, 3) / math.sqrt(h // self.heads)
        scores = scores.masked_fill(~mask[:, None, None, :], -1e30)
        context = (scores.softmax(-1) @ value).transpose(1, 2).reshape(b, t, h)
        x = self.attention.output(context, x)
        return self.output(self.activation(self.intermediate.dense(x)), x)


class Encoder(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.layer = nn.ModuleList(Layer(config) for _ in range(config["num_hidden_layers"]))


class Embeddings(nn.Module):
    def __init__(self, config):
        super().__init__()
        h = config["hidden_size"]
        self.word_embeddings = nn.Embedding(config["vocab_size"], h)
        self.position_embeddings = nn.Embedding(config["max_position_embeddings"], h)
        self.token_type_embeddings = nn.Embedding(config["type_vocab_size"], h)
        self.LayerNorm = nn.LayerNorm(h, config["layer_norm_eps"])


class ImageEmbeddings(nn.Module):
    def __init__(self, config):
        super().__init__()
        h = config["hidden_size"]
        self.image_projector = nn.Linear(config["patch_feature_size"], h, bias=False)
        self.patch_position_embeddings = nn.Embedding(config["max_patch_position_embeddings"], h)
        self.patch_type_embeddings = nn.Embedding(config["patch_type_vocab_size"], h)
        self.LayerNorm = nn.LayerNorm(h, config["layer_norm_eps"])


class Heads(nn.Module):
    def __init__(self, config):
        super().__init__()
        h = config["hidden_size"]
        self.img_predictions = nn.Linear(h, config["patch_feature_size"], bias=False)
        self.seq_relationship = nn.Linear(h, 2)


class ImageBert(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config = config
        self.embeddings, self.image_embeddings = Embeddings(config), ImageEmbeddings(config)
        self.encoder = Encoder(config)
        self.pooler = Dense(config["hidden_size"], config["hidden_size"])
        self.cls = Heads(config)

    def cut(self, pixels):
        """Patches of pixels by PyTorch's own unfolding."""
        size = self.config["patch_size"]
        return F.unfold(pixels, size, stride=size).transpose(1, 2)

    def forward(self, case):
        """`case` has "ids" and "segments" by row, "image" [B, n, f] or pixels, "patch_mask" and "masked_patches"."""
        image = torch.tensor(case["image"])
        if self.config.get("image_size"):
            size = self.config["image_size"]
            image = self.cut(image.reshape(len(case["ids"]), self.config["num_channels"], size, size))
        there = torch.tensor(case["patch_mask"]) > 0
        hidden = (torch.tensor(case["masked_patches"]) > 0) & there
        lens = [len(row) for row in case["ids"]]
        longest = max(lens)
        pad = lambda rows: torch.tensor([row + [0] * (longest - len(row)) for row in rows])
        e, v = self.embeddings, self.image_embeddings
        text = e.word_embeddings(pad(case["ids"])) + e.position_embeddings(torch.arange(longest))[None]
        text = e.LayerNorm(text + e.token_type_embeddings(pad(case["segments"])))
        patches = v.image_projector(image * ~hidden[..., None])
        patches = patches + v.patch_position_embeddings(torch.arange(image.shape[1]))[None]
        patches = v.LayerNorm(patches + v.patch_type_embeddings(torch.ones(image.shape[:2], dtype=torch.long)))
        words = torch.arange(longest)[None] < torch.tensor(lens)[:, None]
        x, mask = torch.cat([text, patches], 1), torch.cat([words, there], 1)
        for layer in self.encoder.layer:
            x = layer(x, mask)
        of_patches = x[:, longest:]
        pooled = torch.tanh(self.pooler.dense(x[:, 0]))
        return {
            "last": x[:, :longest][words],
            "patch_last": of_patches[there],
            "pooled": pooled,
            "alignment_logits": self.cls.seq_relationship(pooled),
            "patch_logits": self.cls.img_predictions(of_patches[hidden]),
            "patch_targets": image[hidden],
        }


def configuration(draw, pixels):
    heads = draw.choice([1, 2, 3])
    config = {
        "vocab_size": draw.randint(5, 40),
        "hidden_size": heads * draw.choice([1, 3, 5, 8]),
        "num_hidden_layers": draw.randint(0, 3),
        "num_attention_heads": heads,
        "intermediate_size": draw.choice([1, 7, 13, 20]),
        "hidden_act": draw.choice(["gelu_new", "gelu", "relu"]),
        "max_position_embeddings": draw.randint(9, 15),
        "type_vocab_size": draw.randint(1, 3),
        "layer_norm_eps": draw.choice([1e-12, 1e-5, 1e-3]),
        "patch_type_vocab_size": draw.randint(2, 4),
    }
    if pixels:
        size, across = draw.randint(1, 3), draw.randint(1, 3)
        config |= {"patch_size": size, "image_size": size * across, "num_channels": draw.choice([1, 3])}
        config |= {
            "patch_feature_size": size * size * config["num_channels"],
            "max_patch_position_embeddings": across * across + draw.randint(0, 2),
        }
    else:
        config |= {"patch_feature_size": draw.choice([1, 2, 9, 17]), "max_patch_position_embeddings": draw.randint(1, 7)}
    return config


def wave(count, seed):
    places = torch.arange(count, dtype=torch.float64)
    return torch.sin(places * (1.1 + seed / 1000) + seed)


def fill(model):
    for name, value in model.named_parameters():
        seed = zlib.crc32(name.encode()) % 1000
        scale = 1.5 / max(value.numel() / value.shape[0], 1) ** 0.5
        numbers = scale * wave(value.numel(), seed)
        # Scales of norms are about 1.
        if name.endswith("LayerNorm.weight"):
            numbers = 1 + numbers / 4
        with torch.no_grad():
            value.copy_(numbers.reshape(value.shape).float().double())


def weighted(x):
    return (x * torch.sin(torch.arange(x.numel(), dtype=torch.float64) + 1).reshape(x.shape)).sum()


def main():
    draw = random.Random(int(sys.argv[1]) if len(sys.argv) > 1 else 19)
    cases = []
    for index in range(12):
        config = configuration(draw, index % 2 == 1)
        rows = 3
        lens = [draw.randint(1, 9) for _ in range(rows)]
        patches = draw.randint(1, config["max_patch_position_embeddings"])
        if "image_size" in config:
            patches = (config["image_size"] // config["patch_size"]) ** 2
        case = {
            "ids": [[draw.randrange(config["vocab_size"]) for _ in range(n)] for n in lens],
            "segments": [[draw.randrange(config["type_vocab_size"]) for _ in range(n)] for n in lens],
            "patch_mask": [[int(draw.random() < 0.75) for _ in range(patches)] for _ in range(rows)],
            "masked_patches": [[int(draw.random() < 0.3) for _ in range(patches)] for _ in range(rows)],
        }
        # One image has all its patches, and one patch is hidden.
        case["patch_mask"][0] = [1] * patches
        case["masked_patches"][0][0] = 1
        numbers = patches * config["patch_feature_size"]
        image = wave(rows * numbers, index).float().double()
        case["image"] = image.reshape(rows, patches, -1).tolist()
        model = ImageBert(config)
        fill(model)
        outputs = model(case)
        for row in range(rows):
            alone = model({name: values[row : row + 1] for name, values in case.items()})
            assert (alone["pooled"][0] - outputs["pooled"][row]).abs().max() < 1e-12
        sum(weighted(output) for output in outputs.values()).backward()
        gradients = {}
        for name, value in model.named_parameters():
            g = (value.grad if value.grad is not None else torch.zeros_like(value)).flatten()
            places = torch.arange(len(g), dtype=torch.float64)
            numbers = (g.norm(), g @ torch.sin(places), g @ torch.cos(places))
            gradients[name] = [round(float(x), 12) for x in numbers]
        rounded = lambda x: [round(float(v), 8) for v in x.detach().flatten()]
        del case["image"]
        outputs = {name: rounded(output) for name, output in outputs.items()}
        cases.append({"config": config, **case, "patches": patches, "outputs": outputs, "gradients": gradients})
    out = pathlib.Path(sys.argv[2] if len(sys.argv) > 2 else pathlib.Path(__file__).parent / "imagebert.json")
    out.write_text("[\n" + ",\n".join(json.dumps(case) for case in cases) + "\n]\n")


main()
