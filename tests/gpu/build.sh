#!/usr/bin/env bash
# Builds what run.sh needs and puts it into one folder: the command, gpu-check, the plugins, the CUDA engine, and an encoder with data
# where they are given. Runs where there is Rust; needs no card.
#
# usage: tests/gpu/build.sh CARRY [--fetch-toolkit] [ENCODER SST2]
#   SST2: a folder with train.tsv and dev.tsv
set -euo pipefail
carry=$1
shift
fetch=()
if [ "${1:-}" = --fetch-toolkit ]; then
  fetch=(--fetch-toolkit)
  shift
fi
cd "$(dirname "$0")/../.."
release=${CARGO_TARGET_DIR:-target}/release
cargo build --release --workspace
cargo xtask stage
# An H100's architecture; 80 makes a library for every card from Ampere on.
CUDA_COMPUTE_CAP=${CUDA_COMPUTE_CAP:-90} cargo xtask engine cuda "${fetch[@]}"
mkdir -p "$carry"
cp "$release/easytransfer" "$release/gpu-check" "$release/libeasytransfer_engine_cuda.so" "$carry/"
cp -r "$release/plugins" "$carry/"
cp tests/gpu/{bert-base,albert-base,workloads}.json "$carry/"
if [ $# -ge 2 ]; then
  rm -rf "$carry/encoder"
  mkdir "$carry/encoder"
  cp -L "$1"/{config.json,tokenizer*.json,vocab.txt,special_tokens_map.json} "$carry/encoder/" 2>/dev/null || true
  python3 tests/gpu/halve.py "$1/model.safetensors" "$carry/encoder/model.safetensors"
  mkdir -p "$carry/sst-2"
  cp -L "$2"/{train,dev}.tsv "$carry/sst-2/"
fi
# The programs share much code, which a dictionary larger than all of them sees; run.sh unpacks.
(cd "$carry" && tar -cf - easytransfer gpu-check plugins *.so $(ls -d *.json encoder sst-2 2>/dev/null)) | xz -T1 -6 --lzma2=dict=96MiB >"$carry/carry.tar.xz"
du -sh "$carry" "$carry/carry.tar.xz"
