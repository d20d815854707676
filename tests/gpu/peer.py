"""peer.py: BERT-base by transformers and PyTorch on the same shapes as gpu-check speed; one line of JSON per shape and way."""
import json
import statistics
import time

import torch
from transformers import BertConfig, BertModel

SHORT = [4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 16, 19, 23, 29, 40]
SHAPES = {"32x128": [128] * 32, "16x512": [512] * 16, "sst2 1024 rows": SHORT * 64}


def batches(lens, group):
    """Dynamic padding with length grouping: sorted, then cut into batches of `group` rows."""
    lens = sorted(lens)
    for at in range(0, len(lens), group):
        part = lens[at:at + group]
        width = max(part)
        ids = torch.randint(999, 30000, (len(part), width), device="cuda")
        mask = torch.tensor([[1] * n + [0] * (width - n) for n in part], device="cuda")
        yield ids, (None if min(part) == width else mask)


def measure(name, way, model, lens, autocast, train):
    group = len(lens) if len(set(lens)) == 1 else 256
    data = list(batches(lens, group))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True) if train else None
    times = []
    for round in range(13):
        torch.cuda.synchronize()
        start = time.perf_counter()
        for ids, mask in data:
            with torch.autocast("cuda", torch.bfloat16, enabled=autocast), torch.set_grad_enabled(train):
                pooled = model(ids, attention_mask=mask).pooler_output
                loss = pooled.float().square().mean()
            if train:
                loss.backward()
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
        loss.item()
        if round >= 3:
            times.append(time.perf_counter() - start)
    seconds = statistics.median(times)
    print(json.dumps({"side": "pytorch " + way, "work": "train" if train else "forward", "shape": name,
                      "ms": seconds * 1e3, "tokens_per_s": sum(lens) / seconds}), flush=True)


def main():
    torch.manual_seed(1)
    for attention in ["eager", "sdpa"]:
        for precision in ["f32", "tf32", "bf16"]:
            torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
            torch.backends.cudnn.allow_tf32 = precision == "tf32"
            model = BertModel(BertConfig(), attn_implementation=attention).cuda()
            way = f"{attention} {precision}"
            for name, lens in SHAPES.items():
                model.train()
                measure(name, way, model, lens, precision == "bf16", True)
            model.eval()
            for rows in [1, 32, 256]:
                measure(f"{rows}x128", way, model, [128] * rows, precision == "bf16", False)
    model = torch.compile(BertModel(BertConfig(), attn_implementation="sdpa").cuda().train())
    for name in ["32x128", "16x512"]:
        measure(name, "compile bf16", model, SHAPES[name], True, True)


main()
