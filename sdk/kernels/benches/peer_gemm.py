"""peer_gemm.py [--threads N] [--rows M,M,…] [--engine BINARY]: GFLOP/s of torch.mm and torch.bmm on the shapes of the bench `gemm`.

With --engine, the bench binary runs too, in turn with PyTorch for every layer, and ratios are printed (engine over PyTorch).
"""

import argparse
import subprocess
import time

import torch

LAYERS = [(256, 256), (256, 1024), (1024, 256), (384, 384), (384, 1536), (1536, 384), (768, 768), (768, 3072), (3072, 768)]
ATTENTION = [(384, 128, 32, 128), (384, 128, 64, 128), (384, 128, 128, 64), (384, 20, 32, 20), (384, 20, 20, 32)]


def rate(flop, f):
    def once():
        start = time.perf_counter()
        f()
        return time.perf_counter() - start

    count = min(max(int(0.03 / once()), 3), 2000)
    times = sorted(once() for _ in range(count))
    return 1e-9 * flop / times[len(times) // 4]


def layer(m, k, n):
    x, w, dy = torch.rand(m, k), torch.rand(n, k), torch.rand(m, n)
    y, dx, dw = torch.empty(m, n), torch.empty(m, k), torch.empty(n, k)
    flop = 2 * m * k * n
    return {
        "y": rate(flop, lambda: torch.mm(x, w.t(), out=y)),
        "dx": rate(flop, lambda: torch.mm(dy, w, out=dx)),
        "dw": rate(flop, lambda: torch.mm(dy.t(), x, out=dw)),
    }


def attention(count, m, k, n):
    a, b, t, c = torch.rand(count, m, k), torch.rand(count, k, n), torch.rand(count, n, k), torch.empty(count, m, n)
    flop = 2 * count * m * k * n
    return {"nn": rate(flop, lambda: torch.bmm(a, b, out=c)), "nt": rate(flop, lambda: torch.bmm(a, t.transpose(1, 2), out=c))}


def parse(line):
    shape, *rest = line.split()
    return shape, dict(zip(rest[::2], map(float, rest[1::2])))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rows", default="13,32,64,128,416,1024,4096")
    parser.add_argument("--engine")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.set_grad_enabled(False)
    rows = [int(m) for m in options.rows.split(",")]
    groups = [(f"{k}x{n}", [(f"{m}x{k}x{n}", lambda m=m, k=k, n=n: layer(m, k, n)) for m in rows]) for k, n in LAYERS]
    groups.append(("attention", [("x".join(map(str, sizes)), lambda sizes=sizes: attention(*sizes)) for sizes in ATTENTION]))
    worst = []
    for group, cases in groups:
        engine = {}
        if options.engine:
            command = [options.engine, "--threads", str(options.threads), "--rows", options.rows, "--only", group]
            engine = dict(map(parse, subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()))
        for shape, run in cases:
            parts = []
            ours = engine.get(shape, {})
            peer = run()
            for name, found in peer.items():
                mine = ours.get(name)
                parts.append(f"{name} {found:.0f}" if mine is None else f"{name} {mine:.0f}/{found:.0f}={mine / found:.2f}")
                if mine is not None:
                    worst.append((mine / found, shape, name))
            parts += [f"{name} {value:.0f}" for name, value in ours.items() if name not in peer]
            print(shape, *parts, flush=True)
    if worst:
        worst.sort()
        print("median ratio %.2f, lowest:" % worst[len(worst) // 2][0], *("%s %s %.2f" % (s, n, r) for r, s, n in worst[:8]), sep="\n  ")


if __name__ == "__main__":
    main()
