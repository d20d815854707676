"""peer_attention.py [LENGTH...]: the table of the bench `attention` for PyTorch's scaled_dot_product_attention on two threads.

Queries, keys and values are [runs, length, H], as three projections make them; all runs have one length, so nothing is padded.
"""

import sys
import time
from statistics import median

import torch
from torch.nn.functional import scaled_dot_product_attention

RUNS, HEADS, SECONDS = 32, 12, 0.2


def case(head_size, length, p):
    projected = [torch.rand(RUNS, length, HEADS, head_size).mul_(2).sub_(1) for _ in range(3)]
    gradient = torch.rand(RUNS, HEADS, length, head_size).mul_(2).sub_(1)
    forward, backward = [], []
    begin = time.perf_counter()
    while len(forward) < 5 or time.perf_counter() - begin < SECONDS:
        q, k, v = (x.transpose(1, 2).requires_grad_() for x in projected)
        start = time.perf_counter()
        o = scaled_dot_product_attention(q, k, v, dropout_p=p)
        middle = time.perf_counter()
        torch.autograd.grad(o, (q, k, v), gradient)
        end = time.perf_counter()
        forward.append(middle - start)
        backward.append(end - middle)
    product = 2e-9 * RUNS * length * length * HEADS * head_size
    f, b = median(forward), median(backward)
    print(f"{head_size} {length:3} {p} | {f * 1e3:8.3f} {2 * product / f:4.0f} | {b * 1e3:8.3f} {5 * product / b:4.0f}", flush=True)


def main():
    torch.set_num_threads(2)
    torch.manual_seed(0)
    lengths = [int(text) for text in sys.argv[1:]] or [8, 13, 20, 32, 50, 64, 128, 256, 384, 512]
    print("d len p | forward ms GFLOP/s | backward ms GFLOP/s")
    for head_size in (32, 64):
        for length in lengths:
            for p in (0.0, 0.1):
                case(head_size, length, p)


if __name__ == "__main__":
    main()
