#!/usr/bin/env bash
# Everything that needs a card, in one go, from prebuilt binaries. See README.md for how they get into `carry/`.
#
# usage: tests/gpu/run.sh CARRY [OUT] [checks|speed|all]
#   CARRY: the folder that build.sh made; OUT: where logs go (default: CARRY/out); each of checks and speed ends within 10 minutes: what does not
#   fit is said not to have run.
set -uo pipefail
carry=$(cd "$1" && pwd)
# Only the packed file needs to travel.
if [ ! -x "$carry/gpu-check" ]; then
  mkdir -p /tmp/easytransfer-carry
  tar -C /tmp/easytransfer-carry -xJf "$carry/carry.tar.xz" || exit 2
  carry=/tmp/easytransfer-carry
fi
out=${2:-$carry/out}
part=${3:-all}
mkdir -p "$out"
here=$(cd "$(dirname "$0")" && pwd)
failures=0
# Seconds of the whole script.
budget=570
[ "$part" = all ] && budget=1140

# The toolkit's libraries: those of pip's packages where PyTorch brought them, else the system's.
site=$(python3 -c 'import nvidia, os; print(os.path.join(list(nvidia.__path__)[0], "cu13", "lib"))' 2>/dev/null)
if [ -d "$site" ]; then
  export ET_CUDA_LIBRARIES=$site
  export LD_LIBRARY_PATH=$site${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
fi
export ET_ENGINE_PATH=$carry ET_PLUGIN_PATH=$carry/plugins

stage() { # name, seconds at most, command...
  local name=$1 limit=$2
  shift 2
  echo "== $name"
  local start=$SECONDS left=$((budget - SECONDS))
  if [ $left -lt 10 ]; then
    echo "== $name: not run, no time is left"
    failures=$((failures + 1))
    return
  fi
  [ $left -lt "$limit" ] && limit=$left
  timeout "$limit" "$@" >"$out/$name.log" 2>&1
  local code=$?
  tail -n 4 "$out/$name.log"
  grep -c '^FAILED' "$out/$name.log" | sed 's/^/   failed lines: /'
  grep '^FAILED' "$out/$name.log" | head -n 20
  echo "== $name: exit $code, $((SECONDS - start)) s"
  [ $code -eq 0 ] || failures=$((failures + 1))
}

stage devices 60 "$carry/easytransfer" device list
cat "$out/devices.log"

checks() {
  stage ops-f32 120 "$carry/gpu-check" ops --device cuda --precision f32
  stage optim 60 "$carry/gpu-check" optim --device cuda
  stage ops-tf32 60 "$carry/gpu-check" ops --device cuda --precision tf32
  stage ops-bf16 60 "$carry/gpu-check" ops --device cuda --precision bf16
  stage ops-f16 60 "$carry/gpu-check" ops --device cuda --precision f16

  # The first 50 steps of one fine-tuning on both engines. Dropout draws the same numbers, so only rounding differs.
  if [ -d "$carry/encoder" ] && [ -f "$carry/train.tsv" ]; then
    for device in cpu cuda; do
      stage "train-$device" 150 "$carry/easytransfer" train --device $device --app text-classify --encoder "$carry/encoder" \
        --train "$carry/train.tsv" --output "$out/run-$device" --quiet --set max_steps=50 --set log_every=1 --set seed=7 --set batch.rows=32
    done
    stage curves 30 python3 "$here/curves.py" "$out/run-cpu/logs/metrics.jsonl" "$out/run-cuda/logs/metrics.jsonl"
    stage train-bf16 90 "$carry/easytransfer" train --device cuda --precision bf16 --app text-classify --encoder "$carry/encoder" \
      --train "$carry/train.tsv" --output "$out/run-bf16" --quiet --set max_steps=50 --set log_every=1 --set seed=7 --set batch.rows=32
  fi

  if command -v compute-sanitizer >/dev/null; then
    stage memcheck 120 compute-sanitizer --tool memcheck --error-exitcode 9 "$carry/gpu-check" optim --device cuda
    stage racecheck 120 compute-sanitizer --tool racecheck --error-exitcode 9 "$carry/gpu-check" optim --device cuda
  fi
}

# Ours first: its lines are kept even if the other side runs out of time.
speed() {
  local common=(--config "$carry/bert-base.json" --workloads "$carry/workloads.json")
  for precision in bf16 f32 tf32; do
    # Only the precision that is compared says where the time goes.
    local trace=()
    [ $precision = bf16 ] && trace=(--trace "$out/trace.json")
    stage speed-$precision 75 "$carry/gpu-check" speed --device cuda --precision $precision "${common[@]}" --seconds 3 "${trace[@]}"
  done
  stage peer 330 python3 "$here/peer.py" "${common[@]}" --seconds 3
  grep -h '^{' "$out"/speed-*.log "$out"/peer.log >"$out/speed.jsonl"
  python3 "$here/table.py" "$out/speed.jsonl" | tee "$out/speed.txt"
}

case $part in
checks) checks ;;
speed) speed ;;
*) checks && speed ;;
esac
echo "stages that failed: $failures"
exit $((failures > 0))
