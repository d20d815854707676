"""Writes sentences/: a tiny BERT with files of sentence-transformers in many forms, and the vectors that it computes with each.

`cases.json` holds for each case the files besides those of `base/` (JSON by path; a text that begins with "@" is the name of a file of
`base/` or `parts/` that is put there) and the vectors of `texts.json`'s texts. `saved` cases are written by `SentenceTransformer.save`."""

import json
import shutil
import tempfile
from pathlib import Path

import torch
import transformers as hf
from safetensors.torch import save_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense, Normalize, Transformer
from sentence_transformers.sentence_transformer.modules import LayerNorm, Pooling

from reference import HERE

ROOT = HERE / "sentences"
WIDTH = 16
WORDS = """the The a train Train is late Late to Zürich zürich and we We take it É é query : document not [PAD] [UNK] [CLS] [SEP] [MASK] , . !
Σ σ #s""".split()
TEXTS = [
    "The train to Zürich is late", "a", "We take The Late train , and not it .", "É [MASK] Σ", "",
    "train train Train late Late a a we We take it , and the train is not late , not late !",
]
TRANSFORMER, POOLING = "sentence_transformers.models.Transformer", "sentence_transformers.models.Pooling"
OLD = ["cls_token", "max_tokens", "mean_tokens", "mean_sqrt_len_tokens", "weightedmean_tokens", "lasttoken"]


def listing(*modules):
    return [{"idx": k, "name": str(k), "path": path, "type": kind} for k, (path, kind) in enumerate(modules)]


def modules(*more):
    return listing(("", TRANSFORMER), ("1_Pooling", POOLING), *more)


def pooling(mode, **more):
    return {"embedding_dimension": WIDTH, "pooling_mode": mode, **more}


def old_pooling(*chosen, **more):
    return {"word_embedding_dimension": WIDTH, **{f"pooling_mode_{key}": key in chosen for key in OLD}, **more}


def dense(out=6, activation="torch.nn.modules.activation.Tanh", **more):
    return {"in_features": WIDTH, "out_features": out, "bias": True, "activation_function": activation, **more}


def cases():
    plain = {"modules.json": modules(), "sentence_bert_config.json": {"max_seq_length": 24, "do_lower_case": False}}
    normal = ("2_Normalize", "sentence_transformers.models.Normalize")
    for mode in Pooling.POOLING_MODES:
        yield f"new {mode}", plain | {"1_Pooling/config.json": pooling(mode)}
    yield "new list", plain | {"1_Pooling/config.json": pooling(["max", "cls", "weightedmean"])}
    for key in OLD:
        yield f"old {key}", plain | {"1_Pooling/config.json": old_pooling(key)}
    yield "old several", plain | {"1_Pooling/config.json": old_pooling("mean_tokens", "cls_token", "lasttoken")}
    yield "old none", plain | {"1_Pooling/config.json": old_pooling()}
    yield "both spellings", plain | {"1_Pooling/config.json": old_pooling("cls_token", pooling_mode="max")}
    mean = plain | {"1_Pooling/config.json": pooling("mean")}
    yield "normalize", mean | {"modules.json": modules(normal)}
    yield "dropout", mean | {
        "modules.json": modules(("2_Dropout", "sentence_transformers.models.Dropout"), normal), "2_Dropout/config.json": {"dropout": 0.5}}
    layer = ("2_Dense", "sentence_transformers.models.Dense")
    for name in ("Tanh", "ReLU", "GELU", "Sigmoid", "SiLU"):
        yield f"dense {name}", mean | {
            "modules.json": modules(layer), "2_Dense/config.json": dense(activation=f"torch.nn.modules.activation.{name}"),
            "2_Dense/model.safetensors": "@dense.safetensors"}
    yield "dense by default", mean | {
        "modules.json": modules(layer), "2_Dense/config.json": {"in_features": WIDTH, "out_features": 6},
        "2_Dense/pytorch_model.bin": "@dense.bin"}
    yield "dense without bias, residual", mean | {
        "modules.json": modules(layer, ("3_Normalize", normal[1])),
        "2_Dense/config.json": dense(activation="torch.nn.modules.linear.Identity", bias=False, use_residual=True),
        "2_Dense/model.safetensors": "@residual.safetensors"}
    yield "dense, layer norm", plain | {
        "1_Pooling/config.json": pooling(["cls", "mean"]),
        "modules.json": modules(layer, ("3_LayerNorm", "sentence_transformers.models.LayerNorm"), ("4_Normalize", normal[1])),
        "2_Dense/config.json": dense(in_features=2 * WIDTH), "2_Dense/model.safetensors": "@wide.safetensors",
        "3_LayerNorm/config.json": {"dimension": 6}, "3_LayerNorm/model.safetensors": "@norm.safetensors"}
    yield "lower case", mean | {"sentence_bert_config.json": {"max_seq_length": 24, "do_lower_case": True}}
    yield "length of the module", mean | {"sentence_bert_config.json": {"max_seq_length": 6}}
    yield "length of the tokenizer", mean | {
        "sentence_bert_config.json": {"max_seq_length": None},
        "tokenizer_config.json": {"tokenizer_class": "BertTokenizer", "do_lower_case": False, "model_max_length": 7}}
    yield "length of the model", mean | {"sentence_bert_config.json": {"do_lower_case": False}}
    yield "length of the call", mean | {
        "sentence_bert_config.json": {"max_seq_length": 12, "processing_kwargs": {"text": {"max_length": 5}}}}
    yield "another module's file", {
        "modules.json": modules(), "1_Pooling/config.json": pooling("mean"), "sentence_roberta_config.json": {"max_seq_length": 5}}
    prompts = {"prompts": {"query": "query : ", "document": "document : "}, "default_prompt_name": "query"}
    yield "prompt", mean | {"config_sentence_transformers.json": prompts}
    yield "no prompt", mean | {"config_sentence_transformers.json": prompts | {"default_prompt_name": None}}
    for mode in Pooling.POOLING_MODES:
        yield f"prompt out of {mode}", plain | {
            "1_Pooling/config.json": pooling(mode, include_prompt=False), "config_sentence_transformers.json": prompts}
    yield "truncated", mean | {
        "modules.json": modules(normal),
        "config_sentence_transformers.json": {
            "truncate_dim": 5, "similarity_fn_name": "dot", "model_type": "SentenceTransformer",
            "__version__": {"sentence_transformers": "4.1.0"}}}
    yield "other folders", {
        "modules.json": listing(("0_Transformer", "sentence_transformers.models.Transformer.Transformer"),
                                ("deep/pool", "sentence_transformers.sentence_transformer.modules.pooling.Pooling")),
        "0_Transformer/": "@base", "0_Transformer/sentence_bert_config.json": {"max_seq_length": 9}, "deep/pool/config.json": pooling("cls")}


def random(shape, seed):
    return 0.4 * torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def write_base():
    base, parts = ROOT / "base", ROOT / "parts"
    parts.mkdir(parents=True)
    config = hf.BertConfig(vocab_size=len(WORDS), hidden_size=WIDTH, num_hidden_layers=1, num_attention_heads=2, intermediate_size=24,
                           max_position_embeddings=24)
    model = hf.BertModel(config).eval()
    with torch.no_grad():
        for k, p in enumerate(model.parameters()):
            p.copy_(random(p.shape, k))
    model.save_pretrained(base)
    (base / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    (base / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer", "do_lower_case": False}))
    # The same weights as other programs leave them: in the format before PyTorch 1.6, wrapped, with the old names of layer norms; and
    # in two files with an index.
    state = model.state_dict()
    old = {f"module.bert.{name}".replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): value
           for name, value in state.items()}
    torch.save(old, parts / "legacy.bin", _use_new_zipfile_serialization=False)
    files = ["pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin"]
    for k, file in enumerate(files):
        torch.save(dict(list(state.items())[k::2]), parts / file)
    index = {"metadata": {"total_size": 0}, "weight_map": {name: files[k % 2] for k, name in enumerate(state)}}
    (parts / "pytorch_model.bin.index.json").write_text(json.dumps(index, indent=1) + "\n")
    weights = {"linear.weight": random((6, WIDTH), 101), "linear.bias": random((6,), 102)}
    save_file(weights, parts / "dense.safetensors")
    torch.save(weights, parts / "dense.bin")
    save_file({"linear.weight": random((6, WIDTH), 103), "residual.weight": random((6, WIDTH), 104)}, parts / "residual.safetensors")
    save_file({"linear.weight": random((6, 2 * WIDTH), 105), "linear.bias": random((6,), 106)}, parts / "wide.safetensors")
    save_file({"norm.weight": random((6,), 107), "norm.bias": random((6,), 108)}, parts / "norm.safetensors")


def put(folder, files):
    if not any(path.endswith("/") for path in files):
        shutil.copytree(ROOT / "base", folder, dirs_exist_ok=True)
    for path, content in files.items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        if content == "@base":
            shutil.copytree(ROOT / "base", target, dirs_exist_ok=True)
        elif isinstance(content, str):
            shutil.copy(ROOT / "parts" / content[1:], target)
        else:
            target.write_text(json.dumps(content))


def vectors(folder):
    model = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    return [[round(float(v), 7) for v in row] for row in model.encode(TEXTS)]


def saved():
    """A model that sentence-transformers writes itself: its files, and its vectors."""
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        torch.manual_seed(5)
        parts = [Transformer(str(ROOT / "base"), max_seq_length=10), Pooling(WIDTH, ("mean", "lasttoken"), include_prompt=False),
                 Dense(2 * WIDTH, 6, bias=False), LayerNorm(6), Normalize()]
        model = SentenceTransformer(modules=parts, device="cpu", prompts={"query": "query : "}, default_prompt_name="query",
                                    similarity_fn_name="euclidean", truncate_dim=4)
        model.save(str(folder), create_model_card=False)
        files = {}
        for path in sorted(folder.rglob("*")):
            name = path.relative_to(folder).as_posix()
            if path.suffix == ".json" and name not in ("config.json", "tokenizer.json", "tokenizer_config.json"):
                files[name] = json.loads(path.read_text())
            elif path.suffix == ".safetensors" and "/" in name:
                part = "saved-" + name.replace("/", "-")
                shutil.copy(path, ROOT / "parts" / part)
                files[name] = "@" + part
        return files


def main():
    shutil.rmtree(ROOT, ignore_errors=True)
    write_base()
    lines = []
    for name, files in [*cases(), ("saved by sentence-transformers", saved())]:
        with tempfile.TemporaryDirectory() as folder:
            put(Path(folder), files)
            rows = vectors(folder)
        print(name, rows[0][:3])
        lines.append(json.dumps({"name": name, "files": files, "vectors": rows}, ensure_ascii=False))
    (ROOT / "cases.json").write_text("[\n" + ",\n".join(lines) + "\n]\n")
    (ROOT / "texts.json").write_text(json.dumps(TEXTS, ensure_ascii=False, indent=1) + "\n")
    for path in ROOT.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)


if __name__ == "__main__":
    main()
