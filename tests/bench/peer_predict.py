"""ONNX Runtime's side of the prediction bench (`cargo run --release -p easytransfer-bench --bin prediction`).

    peer_predict.py prepare DIR [--models minilm,bert-base]   exports the models, as they are, fused for Transformers, and quantised
    peer_predict.py serve DIR --model NAME --threads N        answers commands, one JSON object per line, with times

Both sides turn texts into normalised means over token vectors and include the tokenizer. BERT-base has random weights, the same on both
sides: `prepare` writes them as a Hugging Face directory.
"""

import argparse
import json
import os
import shutil
import sys
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
SHARED = Path(os.environ.get("ET_SHARED", ROOT / ".." / "shared"))
MINILM = SHARED / "models" / "all-MiniLM-L6-v2"
MAX_LENGTH = 256
HEADS = {"minilm": (12, 384), "bert-base": (12, 768)}


def bert_base(folder):
    import torch
    from transformers import BertConfig, BertModel

    torch.manual_seed(1)
    folder.mkdir(parents=True, exist_ok=True)
    BertModel(BertConfig()).eval().save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "special_tokens_map.json"):
        shutil.copy(MINILM / name, folder / name)


def export(source, target, name):
    import onnx
    import torch
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.transformers import optimizer
    from transformers import AutoModel

    class Vectors(torch.nn.Module):
        def __init__(self, model):
            super().__init__()
            self.model = model

        def forward(self, input_ids, attention_mask, token_type_ids):
            states = self.model(
                input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids
            ).last_hidden_state
            mask = attention_mask[..., None].to(states.dtype)
            mean = (states * mask).sum(1) / mask.sum(1)
            return mean / mean.norm(dim=1, keepdim=True)

    model = AutoModel.from_pretrained(source, dtype=torch.float32, attn_implementation="eager").eval()
    ids = torch.ones(2, 9, dtype=torch.int64)
    names = ["input_ids", "attention_mask", "token_type_ids"]
    target.mkdir(parents=True, exist_ok=True)
    plain = target / "f32.onnx"
    torch.onnx.export(
        Vectors(model), (ids, ids, ids * 0), str(plain), input_names=names, output_names=["vectors"], dynamo=False,
        opset_version=17, dynamic_axes={name: {0: "rows", 1: "tokens"} for name in names} | {"vectors": {0: "rows"}},
    )
    heads, hidden = HEADS[name]
    fused = target / "f32-fused.onnx"
    optimized = optimizer.optimize_model(str(plain), model_type="bert", num_heads=heads, hidden_size=hidden, opt_level=0)
    optimized.save_model_to_file(str(fused))
    for graph in (plain, fused):
        output = str(graph).replace("f32", "int8")
        # Shapes cannot be inferred through the fused operators.
        extra = {"DefaultTensorType": onnx.TensorProto.FLOAT}
        quantize_dynamic(str(graph), output, weight_type=QuantType.QInt8, extra_options=extra)


class Peer:
    def __init__(self, folder, name, threads):
        import onnxruntime
        from tokenizers import Tokenizer

        self.folder, self.threads, self.runtime = folder / name, threads, onnxruntime
        self.tokenizer = Tokenizer.from_file(str(MINILM / "tokenizer.json"))
        self.tokenizer.enable_truncation(MAX_LENGTH)
        self.sessions = {}

    def session(self, graph):
        if graph not in self.sessions:
            options = self.runtime.SessionOptions()
            options.intra_op_num_threads = self.threads
            options.inter_op_num_threads = 1
            options.graph_optimization_level = self.runtime.GraphOptimizationLevel.ORT_ENABLE_ALL
            path = str(self.folder / f"{graph}.onnx")
            self.sessions[graph] = self.runtime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        return self.sessions[graph]

    def vectors(self, graph, texts):
        encoded = self.tokenizer.encode_batch(texts)
        ids = np.array([e.ids for e in encoded], dtype=np.int64)
        mask = np.array([e.attention_mask for e in encoded], dtype=np.int64)
        feed = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        return self.session(graph).run(None, feed)[0]

    def throughput(self, graph, texts, order, rows):
        self.tokenizer.enable_padding()
        self.session(graph)
        begin = time.perf_counter()
        indices = list(range(len(texts)))
        if order == "sorted":
            indices.sort(key=lambda i: len(texts[i]))
        answers = [None] * len(texts)
        for start in range(0, len(indices), rows):
            picked = indices[start : start + rows]
            for i, vector in zip(picked, self.vectors(graph, [texts[i] for i in picked])):
                answers[i] = vector
        return time.perf_counter() - begin, answers

    def latency(self, graph, text, count):
        self.tokenizer.no_padding()
        session, times = self.session(graph), []
        for _ in range(count):
            begin = time.perf_counter()
            encoded = self.tokenizer.encode(text)
            ids = np.array([encoded.ids], dtype=np.int64)
            session.run(None, {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)})
            times.append(time.perf_counter() - begin)
        return times


def serve(a):
    peer = Peer(a.folder, a.model, a.threads)
    print(json.dumps({"ready": peer.runtime.__version__}), flush=True)
    for line in sys.stdin:
        command = json.loads(line)
        if "latency" in command:
            answer = {"times": peer.latency(command["graph"], command["latency"], command["count"])}
        else:
            seconds, vectors = peer.throughput(command["graph"], command["texts"], command["order"], command["rows"])
            answer = {"seconds": seconds, "first": [float(x) for x in vectors[0]]}
        print(json.dumps(answer), flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["prepare", "serve"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--models", default="minilm,bert-base")
    parser.add_argument("--model", default="minilm")
    parser.add_argument("--threads", type=int, default=2)
    a = parser.parse_args()
    if a.command == "serve":
        return serve(a)
    for name in a.models.split(","):
        source = MINILM
        if name == "bert-base":
            source = a.folder / "bert-base-weights"
            bert_base(source)
        export(source, a.folder / name, name)
        print(f"{name}: exported")


if __name__ == "__main__":
    main()
