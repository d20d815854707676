"""make_attention.py: what transformers' attention layers make of small inputs, with gradients, as attention.json.

T5's bias by distance (both ways, causal, and causal with a cache), DeBERTa's tables of positions, XLNet's two streams
over a permutation with segments and memories, ModernBERT's local window. The layers are transformers' own; what is
between their projections is caught on the way. Names are those of the members of `et_attention`. All float32.
"""

import torch
import transformers.models.modernbert.modeling_modernbert as modernbert
from transformers import DebertaV2Config, ModernBertConfig, ModernBertModel, T5Config, XLNetConfig
from transformers.models.deberta_v2.modeling_deberta_v2 import DisentangledSelfAttention, make_log_bucket_position
from transformers.models.t5.modeling_t5 import T5Attention
from transformers.models.xlnet.modeling_xlnet import XLNetRelativeAttention

from reference import HERE, write_json

HEADS, SIZE = 2, 4
WIDTH = HEADS * SIZE
LENGTHS = [7, 13]


def rounded(tensor):
    return [float(f"{value:.9g}") for value in tensor.detach().float().flatten().tolist()]


class Case:
    """Gathers runs: tensors of every run laid end to end, and tables that all runs share."""

    def __init__(self, name, **options):
        self.name, self.options = name, options
        self.rows, self.shared, self.integers = {}, {}, {}
        self.queries, self.keys = [], []

    def add(self, out, rows, lengths, shared=None, integers=None, take=None, view=lambda x: x):
        """One run of `lengths` queries and keys whose output is `out`. With `take` only that many of the last queries
        are kept, and the random gradient of the output is zero for the others."""
        queries, keys = lengths
        shared = shared or {}
        count = {name: keys if name in ("key", "value") else queries for name in ["out", *rows]}
        flat = lambda name, x: view(x).reshape(count[name], -1)
        grad = torch.randn(out.shape)
        first = queries - take if take else 0
        if take:
            grad[:, :first] = 0.0
        gradients = torch.autograd.grad(out, [*rows.values(), *shared.values()], grad)
        grads = dict(zip([*rows, *shared], gradients))
        pairs = {"out": (out, grad)} | {name: (x, grads[name]) for name, x in rows.items()}
        for name, pair in pairs.items():
            for key, x in zip([name, "d_" + name], pair):
                part = x.reshape(queries, -1) if name == "out" else flat(name, x)
                self.rows.setdefault(key, []).append(part if name in ("key", "value") else part[first:])
        for name, x in shared.items():
            self.shared[name] = x
            self.shared["d_" + name] = self.shared.get("d_" + name, 0.0) + grads[name]
        for name, x in (integers or {}).items():
            self.integers.setdefault(name, []).extend(x)
        self.queries.append(queries - first)
        self.keys.append(keys)

    def result(self):
        rows = {name: rounded(torch.cat(parts)) for name, parts in self.rows.items()}
        shared = {name: rounded(x) for name, x in self.shared.items()}
        sizes = {"heads": HEADS, "size": SIZE, "queries": self.queries, "keys": self.keys}
        return {"name": self.name, **sizes, **self.options, "tensors": rows | shared, "integers": self.integers}


def caught(module, names):
    """Where the outputs of some projections of a module are found after a call."""
    store = {}
    for name in names:
        keep = lambda _module, _inputs, out, name=name: store.__setitem__(name, out)
        getattr(module, name).register_forward_hook(keep)
    return store


def t5(name, decoder, take=None):
    config = T5Config(d_model=WIDTH, d_kv=SIZE, num_heads=HEADS, relative_attention_num_buckets=8,
                      relative_attention_max_distance=10, is_decoder=decoder, dropout_rate=0.0)
    config._attn_implementation = "eager"
    layer = T5Attention(config, has_relative_attention_bias=True, layer_idx=0).eval()
    torch.nn.init.normal_(layer.relative_attention_bias.weight)
    distances = torch.arange(-12, 13)
    buckets = T5Attention._relative_position_bucket(distances, not decoder, 8, 10).tolist()
    case = Case(name, scale=1.0, causal=decoder)
    store = caught(layer, "qkv")
    layer.o.register_forward_pre_hook(lambda _module, inputs: store.__setitem__("context", inputs[0]))
    for length in LENGTHS:
        mask = torch.zeros(1, 1, length, length)
        if decoder:
            mask = mask.masked_fill(torch.ones(length, length).triu(1).bool(), float("-inf"))
        layer(2.0 * torch.randn(1, length, WIDTH), mask=mask)
        rows = {"query": store["q"], "key": store["k"], "value": store["v"]}
        shared = {"bias": layer.relative_attention_bias.weight}
        case.add(store["context"], rows, [length, length], shared, take=take)
    case.integers["bias_buckets"] = buckets
    return case.result()


def deberta():
    span, longest = 6, 12
    config = DebertaV2Config(
        hidden_size=WIDTH, num_attention_heads=HEADS, relative_attention=True, position_buckets=span,
        max_relative_positions=longest, pos_att_type=["c2p", "p2c"], share_att_key=False,
        hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )
    layer = DisentangledSelfAttention(config).eval()
    store = caught(layer, ["query_proj", "key_proj", "value_proj", "pos_key_proj", "pos_query_proj"])
    table = 2.0 * torch.randn(2 * span, WIDTH)
    buckets = make_log_bucket_position(-torch.arange(-12, 13), span, longest).long()
    case = Case("deberta", scale=(3 * SIZE) ** -0.5, causal=False)
    for length in LENGTHS:
        context, _ = layer(2.0 * torch.randn(1, length, WIDTH), torch.ones(1, length, length), rel_embeddings=table)
        rows = {"query": store["query_proj"], "key": store["key_proj"], "value": store["value_proj"]}
        shared = {"position_keys": store["pos_key_proj"], "position_queries": store["pos_query_proj"]}
        case.add(context, rows, [length, length], shared)
    case.integers["position_buckets"] = (buckets + span).clamp(0, 2 * span - 1).tolist()
    return case.result()


def xlnet(name, inclusive, memory=2):
    config = XLNetConfig(d_model=WIDTH, n_head=HEADS, d_inner=WIDTH, n_layer=1, dropout=0.0)
    layer = XLNetRelativeAttention(config).eval()
    leaf = lambda *shape: torch.randn(*shape).requires_grad_()
    layer.seg_embed.data = torch.randn(2, HEADS, SIZE)
    # Row of a distance in the longest run's table; every run has the part that it reaches.
    longest = max(LENGTHS) + memory
    case = Case(name, scale=layer.scale, causal=False, order_inclusive=inclusive)
    table = leaf(2 * longest, HEADS, SIZE)
    biases = [torch.randn(HEADS, SIZE) for _ in range(3)]
    for length in LENGTHS:
        keys = length + memory
        # A bias for every row is a leaf of the shape of the sum to which it is added, so its gradient is that sum's.
        layer.r_w_bias, layer.r_r_bias, layer.r_s_bias = (
            torch.nn.Parameter(bias.expand(length, 1, HEADS, SIZE).clone()) for bias in biases
        )
        q, k, v = torch.randn(length, 1, HEADS, SIZE), leaf(keys, 1, HEADS, SIZE), leaf(keys, 1, HEADS, SIZE)
        order, segments = torch.randperm(length), torch.randint(0, 2, (length,))
        key_order = torch.cat([torch.full((memory,), -1), order])
        key_segments = torch.cat([torch.zeros(memory, dtype=torch.long), segments])
        hidden = key_order[None, :] > order[:, None] if inclusive else key_order[None, :] >= order[:, None]
        other = (segments[:, None] != key_segments[None, :]).long()
        seg_mat = torch.nn.functional.one_hot(other, 2).float()[:, :, None, :]
        # Positions go from `keys` down to 1 - `length`, as in XLNetModel.relative_positional_encoding.
        r = table[longest - keys : longest + length].unsqueeze(1)
        scores, einsum = [], torch.einsum
        torch.einsum = lambda rule, *inputs: scores.append(einsum(rule, *inputs)) or scores[-1]
        try:
            out = layer.rel_attn_core(q, k, v, r, seg_mat=seg_mat, attn_mask=hidden.float()[:, :, None, None])
        finally:
            torch.einsum = einsum
        # The third product is that of queries and segments, [queries, 1, heads, 2].
        rows = {"query": layer.r_w_bias, "position_query": layer.r_r_bias, "key": k, "value": v}
        rows["segment_scores"] = scores[2]
        sums = {"query": q + layer.r_w_bias, "position_query": q + layer.r_r_bias}
        case.add(out, rows, [length, keys], {"position_keys": table}, {
            "order": order.tolist(), "key_order": key_order.tolist(),
            "segments": segments.tolist(), "key_segments": key_segments.tolist(),
        })
        for member, value in sums.items():
            case.rows[member][-1] = value.reshape(length, -1)
    # Table row `longest + distance`, for distances from -longest to longest - 1; the last one is not reached.
    case.integers["position_buckets"] = [min(row, 2 * longest - 1) for row in range(2 * longest + 1)]
    return case.result()


def modern():
    config = ModernBertConfig(
        hidden_size=WIDTH, intermediate_size=WIDTH, num_attention_heads=HEADS, num_hidden_layers=2, vocab_size=50,
        local_attention=6, global_attn_every_n_layers=2, pad_token_id=0, bos_token_id=1, eos_token_id=2,
        cls_token_id=1, sep_token_id=2, attention_dropout=0.0, initializer_range=1.0,
    )
    config._attn_implementation = "eager"
    model = ModernBertModel(config).eval()
    local = [layer.attn for layer in model.layers if layer.attn.sliding_window is not None]
    assert len(local) == 1 and local[0].sliding_window == 4
    store, eager = {}, modernbert.eager_attention_forward

    def catching(module, query, key, value, attention_mask, **options):
        if module is local[0]:
            store.update(query=query, key=key, value=value)
        return eager(module, query, key, value, attention_mask, **options)

    local[0].Wo.register_forward_pre_hook(lambda _module, inputs: store.__setitem__("context", inputs[0]))
    case = Case("modernbert", scale=SIZE**-0.5, causal=False, window=3)
    modernbert.eager_attention_forward = catching
    for length in LENGTHS:
        model(input_ids=torch.randint(3, 50, (1, length)), attention_mask=torch.ones(1, length, dtype=torch.long))
        rows = {name: store[name] for name in ["query", "key", "value"]}
        case.add(store["context"], rows, [length, length], view=lambda x: x.transpose(1, 2))
    modernbert.eager_attention_forward = eager
    return case.result()


def main():
    torch.manual_seed(5)
    cases = [
        t5("t5 encoder", False), t5("t5 decoder", True), t5("t5 decoder with a cache", True, take=3),
        deberta(), xlnet("xlnet content", True), xlnet("xlnet query", False), modern(),
    ]
    write_json(HERE / "attention.json", cases, indent=None)


if __name__ == "__main__":
    main()
