"""peer.py: an encoder of transformers in PyTorch over the same batches as `gpu-check speed`. One line of JSON per workload and way, and the
card's rate of matrix products.

Ways: eager, sdpa and compile (torch.compile over sdpa), each in the precisions asked for; batches are padded to their longest row (they are
grouped by length already). `community` is the setting of transformers' examples: eager, f32, every row padded to 128.
"""
import argparse
import copy
import json
import statistics
import time

import torch
from transformers import AutoConfig, AutoModel


def say(**line):
    print(json.dumps(line), flush=True)


class Side:
    def __init__(self, arguments):
        self.device = torch.device(arguments.device)
        self.seconds = arguments.seconds
        with open(arguments.config) as file:
            self.config = AutoConfig.for_model(**json.load(file))
        with open(arguments.workloads) as file:
            self.workloads = json.load(file)

    def wait(self):
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def padded(self, lens, width):
        """Ids and mask in page-locked memory, as a data loader leaves them."""
        ids = torch.randint(min(999, self.config.vocab_size - 1), self.config.vocab_size, (len(lens), width))
        mask = None
        if min(lens) < width:
            mask = torch.tensor([[1] * n + [0] * (width - n) for n in lens])
        if self.device.type == "cuda":
            ids, mask = ids.pin_memory(), None if mask is None else mask.pin_memory()
        return ids, mask

    def matrix_rate(self):
        """TFLOP/s of bf16 products of 8192 x 8192 matrices (small ones on the CPU)."""
        n = 8192 if self.device.type == "cuda" else 256
        a, b = (torch.randn(n, n, device=self.device, dtype=torch.bfloat16) for _ in range(2))
        times = []
        for _ in range(12):
            self.wait()
            start = time.perf_counter()
            for _ in range(10):
                a @ b
            self.wait()
            times.append((time.perf_counter() - start) / 10)
        say(side="card", work="matrix rate", tflops=2 * n**3 / statistics.median(times[2:]) / 1e12)

    def measure(self, way, workload, model, autocast, width=None):
        train = workload["work"] == "train"
        data = [self.padded(lens, width or max(lens)) for lens in workload["batches"]]
        model.train(train)
        optimizer = None
        if train:
            optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, weight_decay=0.01, fused=self.device.type == "cuda")

        def one(ids, mask):
            ids = ids.to(self.device, non_blocking=True)
            mask = None if mask is None else mask.to(self.device, non_blocking=True)
            with torch.autocast(self.device.type, torch.bfloat16, enabled=autocast), torch.set_grad_enabled(train):
                loss = model(ids, attention_mask=mask).pooler_output.float().square().mean()
            if train:
                loss.backward()
                torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
            return loss

        # The first rounds compile and choose algorithms.
        for ids, mask in data[:3] * 2:
            one(ids, mask)
        times, begin = [], time.perf_counter()
        while len(times) < 4 or time.perf_counter() - begin < self.seconds:
            self.wait()
            start = time.perf_counter()
            for ids, mask in data:
                loss = one(ids, mask)
            loss.item()
            times.append(time.perf_counter() - start)
        seconds = statistics.median(times[1:])
        tokens = sum(map(sum, workload["batches"]))
        say(side="pytorch", way=way, work=workload["work"], shape=workload["shape"], rounds=len(times) - 1,
            ms_per_batch=seconds * 1e3 / len(data), tokens_per_s=tokens / seconds)

    def model(self, attention):
        config = copy.deepcopy(self.config)
        config._attn_implementation = attention
        return AutoModel.from_config(config).to(self.device)

    def run(self, mode, precision):
        torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
        torch.backends.cudnn.allow_tf32 = precision == "tf32"
        torch.manual_seed(1)
        model = self.model("eager" if mode == "eager" else "sdpa")
        if mode == "compile":
            torch._dynamo.reset()
            model = torch.compile(model)
        for workload in self.workloads:
            try:
                self.measure(f"{mode} {precision}", workload, model, precision == "bf16")
            except Exception as error:  # one way that fails must not hide the others
                say(side="pytorch", way=f"{mode} {precision}", work=workload["work"], shape=workload["shape"],
                    failed=str(error).splitlines()[0][:200])

    def community(self):
        model = self.model("eager")
        for workload in self.workloads:
            if workload["work"] == "train" and max(map(max, workload["batches"])) < 128:
                self.measure("community", workload, model, False, width=128)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--config", required=True)
    parser.add_argument("--workloads", required=True)
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--modes", default="sdpa,compile,eager")
    parser.add_argument("--precisions", default="bf16")
    arguments = parser.parse_args()
    side = Side(arguments)
    side.matrix_rate()
    for precision in arguments.precisions.split(","):
        for mode in arguments.modes.split(","):
            side.run(mode, precision)
    side.community()


main()
