"""Outputs and gradients of the models of words by twins in PyTorch, double precision: word.json.

    python make_word.py [SEED [FILE]]

The twins read padded batches with masks; the script itself makes sure that a text alone has the same answer. Sizes
come from a seeded generator. Parameters are a formula of their names and places, so they are not stored.
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


def mask_of(lens, longest):
    return torch.arange(longest)[None, :] < torch.tensor(lens)[:, None]


def padded(rows):
    lens = [len(row) for row in rows]
    longest = max(lens + [1])
    # What stands in the padding must not matter, so it is a word like others.
    ids = torch.tensor([row + [1] * (longest - len(row)) for row in rows])
    return ids, lens


class Words(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.word_embeddings = nn.Embedding(config["vocab_size"], config["embedding_size"])


class Model(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config = config
        self.embeddings = Words(config)

    def words(self, rows):
        """Vectors [B, L, e], zeros in the padding, and lengths."""
        ids, lens = padded(rows)
        mask = mask_of(lens, ids.shape[1])
        return self.embeddings.word_embeddings(ids) * mask[..., None], lens


def windows_max(conv, x, lens, around, activation):
    """Maxima over the windows of each text, which has `around` zeros on both sides and at least one window."""
    width = conv.kernel_size[0]
    longest = x.shape[1]
    y = F.pad(x.transpose(1, 2), (around, around + width))
    y = activation(conv(y))
    out = []
    for row, length in enumerate(lens):
        count = max(length + 2 * around - width + 1, 1)
        # Ties share the gradient or not: a repeated window has the same words either way.
        out.append(y[row, :, :count].amax(-1) if length else torch.zeros(conv.out_channels))
    return torch.stack(out)


class TextCnn(Model):
    def __init__(self, config):
        super().__init__(config)
        filters = config["num_filters"]
        if isinstance(filters, int):
            filters = [filters] * len(config["filter_sizes"])
        self.convs = nn.ModuleList(
            nn.Conv1d(config["embedding_size"], n, width) for n, width in zip(filters, config["filter_sizes"])
        )

    def forward(self, rows):
        x, lens = self.words([a + b for a, b in rows])
        pooled = torch.cat([windows_max(conv, x, lens, 0, F.relu) for conv in self.convs], 1)
        last = []
        for conv in self.convs:
            width = conv.kernel_size[0]
            before = (width - 1) // 2
            y = F.relu(conv(F.pad(x.transpose(1, 2), (before, width - 1 - before))))
            last.append(y.transpose(1, 2))
        return flat(torch.cat(last, 2), lens), pooled


def flat(x, lens):
    return torch.cat([x[row, :length] for row, length in enumerate(lens)])


class Recurrent(Model):
    def states(self, cell, rows):
        x, lens = self.words([a + b for a, b in rows])
        packed = nn.utils.rnn.pack_padded_sequence(x, [max(n, 1) for n in lens], batch_first=True, enforce_sorted=False)
        states, end = cell(packed)
        states, _ = nn.utils.rnn.pad_packed_sequence(states, batch_first=True, total_length=x.shape[1])
        return states, end, lens


class BiLstm(Recurrent):
    def __init__(self, config):
        super().__init__(config)
        self.lstm = nn.LSTM(
            config["embedding_size"], config["hidden_size"], config["num_layers"], batch_first=True, bidirectional=True
        )

    def forward(self, rows):
        states, (end, _), lens = self.states(self.lstm, rows)
        pooled = torch.cat([end[-2], end[-1]], 1) * (torch.tensor(lens) > 0)[:, None]
        return flat(states, lens), pooled


class Attention(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.dense = nn.Linear(width, width)
        self.context = nn.Parameter(torch.zeros(width))


class BiGruAttention(Recurrent):
    def __init__(self, config):
        super().__init__(config)
        h = config["hidden_size"]
        self.gru = nn.GRU(config["embedding_size"], h, config["num_layers"], batch_first=True, bidirectional=True)
        self.attention = Attention(2 * h)

    def forward(self, rows):
        states, _, lens = self.states(self.gru, rows)
        scores = torch.tanh(self.attention.dense(states)) @ self.attention.context
        weights = masked_softmax(scores, mask_of(lens, states.shape[1]))
        return flat(states, lens), (weights[..., None] * states).sum(1)


def masked_softmax(scores, mask):
    """Softmax over the last axis of what the mask keeps; zeros where it keeps nothing."""
    scores = scores.masked_fill(~mask, -math.inf)
    top = scores.amax(-1, keepdim=True).detach()
    shares = torch.exp(scores - torch.where(top.isinf(), torch.zeros_like(top), top))
    return shares / shares.sum(-1, keepdim=True).clamp_min(1e-300)


class Output(nn.Linear):
    def forward(self, features):
        return F.relu(super().forward(features))


class DamPart(nn.Module):
    def __init__(self, e, h):
        super().__init__()
        self.projection = nn.Linear(e, h)
        self.attend = nn.Linear(h, h)
        self.compare = nn.Linear(2 * h, h)
        self.output = Output(4 * h, h)

    def forward(self, a, la, b, lb):
        ma, mb = mask_of(la, a.shape[1]), mask_of(lb, b.shape[1])
        a, b = F.relu(self.projection(a)), F.relu(self.projection(b))
        scores = F.relu(self.attend(a)) @ F.relu(self.attend(b)).transpose(1, 2)
        mask = ma[:, :, None] & mb[:, None, :]
        beta = masked_softmax(scores, mask) @ b
        alpha = masked_softmax(scores.transpose(1, 2), mask.transpose(1, 2)) @ a
        va = F.relu(self.compare(torch.cat([a, beta], 2))) * ma[..., None]
        vb = F.relu(self.compare(torch.cat([b, alpha], 2))) * mb[..., None]
        return self.output(torch.cat([va.sum(1), vb.sum(1), va.amax(1), vb.amax(1)], 1))


def contrast(left, right):
    return torch.cat([left, right, left - right, left * right], 1)


class BiCnnPart(nn.Module):
    def __init__(self, e, filters, h):
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv1d(e, filters, width) for width in (2, 3, 4))
        self.output = Output(4 * (3 * filters + e), h)

    def forward(self, a, la, b, lb):
        def text(x, lens):
            mean = x.sum(1) / torch.tensor(lens).clamp_min(1)[:, None]
            return torch.cat([windows_max(conv, x, lens, 0, F.relu) for conv in self.convs] + [mean], 1)

        return self.output(contrast(text(a, la), text(b, lb)))


class Pair(Model):
    def forward(self, rows):
        (a, la), (b, lb) = self.words([row[0] for row in rows]), self.words([row[1] for row in rows])
        pooled = torch.cat([part(a, la, b, lb) for part in self.parts()], 1)
        return torch.cat([pooled[i][None].expand(len(x) + len(y), -1) for i, (x, y) in enumerate(rows)]), pooled


class Dam(Pair):
    def __init__(self, config):
        super().__init__(config)
        self.dam = DamPart(config["embedding_size"], config["hidden_size"])

    def parts(self):
        return [self.dam]


class BiCnn(Pair):
    def __init__(self, config):
        super().__init__(config)
        h = config["hidden_size"]
        self.bicnn = BiCnnPart(config["embedding_size"], h, h)

    def parts(self):
        return [self.bicnn]


class DamPlus(Pair):
    def __init__(self, config):
        super().__init__(config)
        e, h = config["embedding_size"], config["hidden_size"]
        self.dam = DamPart(e, h)
        self.bicnn = BiCnnPart(e, h // 2, h)

    def parts(self):
        return [self.dam, self.bicnn]


class Pyramid(nn.Module):
    def __init__(self):
        super().__init__()
        self.convs = nn.ModuleList([nn.Conv2d(1, 8, 6), nn.Conv2d(8, 16, 4, stride=3)])

    @staticmethod
    def maxima(x, size):
        """Max pooling in which ties share the gradient, since many entries of the padding are the same."""
        b, f, r, c = x.shape
        x = x[:, :, : r // size * size, : c // size * size]
        return x.reshape(b, f, r // size, size, c // size, size).amax((3, 5))

    def forward(self, table):
        # TensorFlow's SAME for an even size: 2 before, 3 behind.
        x = self.maxima(torch.tanh(self.convs[0](F.pad(table[:, None], (2, 3, 2, 3)))), 4)
        x = self.maxima(torch.tanh(self.convs[1](x)), 2)
        return x.permute(0, 2, 3, 1).flatten(1)


class HcnnPart(nn.Module):
    def __init__(self, config):
        super().__init__()
        h, width = config["hidden_size"], config["filter_size"]
        self.lens = config["first_sequence_length"], config["second_sequence_length"]
        self.conv = nn.Conv1d(config["embedding_size"], h, width)
        self.pyramid = Pyramid()
        top = [((n // 4 - 4) // 3 + 1) // 2 for n in self.lens]
        self.output = Output(top[0] * top[1] * 16 + 4 * h, h)

    def forward(self, a, la, b, lb):
        around = self.conv.kernel_size[0] - 1
        left = windows_max(self.conv, a, la, around, torch.tanh)
        right = windows_max(self.conv, b, lb, around, torch.tanh)

        def fixed(x, length):
            return F.pad(x, (0, 0, 0, max(length - x.shape[1], 0)))[:, :length]

        table = fixed(a, self.lens[0]) @ fixed(b, self.lens[1]).transpose(1, 2)
        return self.output(torch.cat([self.pyramid(table), contrast(left, right)], 1))


class Hcnn(Pair):
    def __init__(self, config):
        super().__init__(config)
        self.hcnn = HcnnPart(config)

    def parts(self):
        return [self.hcnn]


def configuration(name, draw):
    config = {"vocab_size": draw.randint(5, 30), "embedding_size": draw.choice([1, 3, 7, 12, 20])}
    width = draw.choice([1, 2, 5, 9, 17])
    if name == "text-cnn":
        sizes = draw.sample([1, 2, 3, 4, 5, 6], draw.randint(1, 3))
        filters = [draw.choice([1, 2, 5, 18]) for _ in sizes]
        config |= {"filter_sizes": sizes, "num_filters": draw.choice([filters, filters[0]])}
    elif name in ("bilstm", "bigru-attention"):
        config |= {"hidden_size": width, "num_layers": draw.randint(1, 3)}
    else:
        config["hidden_size"] = width + 1 if name == "dam-plus" else width
    if name == "hcnn":
        lens = [28, 29, 40, 52, 64]
        config |= {
            "filter_size": draw.randint(1, 5),
            "first_sequence_length": draw.choice(lens),
            "second_sequence_length": draw.choice(lens),
        }
    return config


def batch(config, name, draw):
    most = 45 if name == "hcnn" else 9
    text = lambda length: [draw.randrange(config["vocab_size"]) for _ in range(length)]
    rows = [(text(draw.randint(1, most)), text(draw.randint(1, most))) for _ in range(3)]
    # A word alone, nothing, and pairs of which one text is missing.
    return rows + [(text(1), text(1)), ([], []), (text(2), []), ([], text(3))]


def fill(model):
    """Parameters by a formula: a sine whose speed and phase depend on the name."""
    for name, value in model.named_parameters():
        seed = zlib.crc32(name.encode()) % 1000
        places = torch.arange(value.numel(), dtype=torch.float64)
        scale = 1.5 / max(value.numel() / value.shape[0], 1) ** 0.5
        numbers = scale * torch.sin(places * (1.1 + seed / 1000) + seed)
        with torch.no_grad():
            value.copy_(numbers.reshape(value.shape).float().double())


MODELS = {
    "text-cnn": TextCnn,
    "bilstm": BiLstm,
    "bigru-attention": BiGruAttention,
    "dam": Dam,
    "dam-plus": DamPlus,
    "bicnn": BiCnn,
    "hcnn": Hcnn,
}


def weighted(x):
    return (x * torch.sin(torch.arange(x.numel(), dtype=torch.float64) + 1).reshape(x.shape)).sum()


def main():
    draw = random.Random(int(sys.argv[1]) if len(sys.argv) > 1 else 19)
    cases = []
    for name, kind in MODELS.items():
        for _ in range(4):
            config = configuration(name, draw)
            rows = batch(config, name, draw)
            model = kind(config)
            fill(model)
            last, pooled = model(rows)
            begin = 0
            for index, row in enumerate(rows):
                alone = model([row])
                length = len(row[0]) + len(row[1])
                assert (alone[1][0] - pooled[index]).abs().max() < 1e-12, (name, config, index)
                assert torch.allclose(alone[0], last[begin : begin + length], atol=1e-12)
                begin += length
            (weighted(pooled) + weighted(last)).backward()
            gradients = {}
            for parameter, value in model.named_parameters():
                g = (value.grad if value.grad is not None else torch.zeros_like(value)).flatten()
                places = torch.arange(len(g), dtype=torch.float64)
                gradients[parameter] = [round(float(x), 12) for x in (g.norm(), g @ torch.sin(places), g @ torch.cos(places))]
            numbers = lambda x: [round(float(v), 8) for v in x.detach().flatten()]
            cases.append(
                {
                    "model": name,
                    "config": config,
                    "rows": rows,
                    "pooled": numbers(pooled),
                    "last": weighted(last).item(),
                    "gradients": gradients,
                }
            )
    out = pathlib.Path(sys.argv[2] if len(sys.argv) > 2 else pathlib.Path(__file__).parent / "word.json")
    out.write_text("[\n" + ",\n".join(json.dumps(case) for case in cases) + "\n]\n")


main()
