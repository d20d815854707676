#!/usr/bin/env bash
# Everything that needs a card, in one go, from prebuilt binaries. See README.md for how they get into `carry/`.
#
# usage: tests/gpu/run.sh CARRY [OUT] [checks|learning|speed|all]
#   CARRY: the folder that build.sh made; OUT: where logs go (default: CARRY/out); each part ends within SECONDS_AT_MOST (570): what does not
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
: >"$out/failed.txt"
here=$(cd "$(dirname "$0")" && pwd)
# When the part that runs has to end.
until=0
begin() { until=$((SECONDS + ${SECONDS_AT_MOST:-570})); }

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
  local start=$SECONDS left=$((until - SECONDS))
  if [ $left -lt 10 ]; then
    echo "== $name: not run, no time is left" | tee -a "$out/failed.txt"
    return
  fi
  [ $left -lt "$limit" ] && limit=$left
  timeout "$limit" "$@" >"$out/$name.log" 2>&1
  local code=$?
  # In one piece, as stages may run side by side.
  echo "== $name: exit $code, $((SECONDS - start)) s, $(grep -c '^ok' "$out/$name.log") ok, $(grep -c '^FAILED' "$out/$name.log") failed
$(grep '^FAILED' "$out/$name.log" | head -n 20 | cut -c1-200)
$(tail -n 3 "$out/$name.log" | cut -c1-600)"
  [ $code -eq 0 ] || echo "$name" >>"$out/failed.txt"
}

begin
stage devices 60 "$carry/easytransfer" device list
cat "$out/devices.log"

# The options that follow say where the bundle goes.
train=("$carry/easytransfer" train --app text-classify --encoder "$carry/encoder" --train "$carry/sst-2/train.tsv" --quiet)

# Side by side: none of these is timed.
checks() {
  begin
  for precision in f32 tf32 bf16 f16; do
    stage ops-$precision 120 "$carry/gpu-check" ops --device cuda --precision $precision &
  done
  stage optim 60 "$carry/gpu-check" optim --device cuda &
  # The first 50 steps of one fine-tuning on both engines. Dropout draws the same numbers, so only rounding differs.
  if [ -d "$carry/encoder" ]; then
    local first=(--set max_steps=50 --set log_every=1 --set seed=7 --set batch.rows=32)
    stage train-cpu 150 "${train[@]}" --output "$out/run-cpu" --device cpu "${first[@]}" &
    stage train-cuda 90 "${train[@]}" --output "$out/run-cuda" --device cuda "${first[@]}" &
    stage train-bf16 90 "${train[@]}" --output "$out/run-bf16" --device cuda --precision bf16 "${first[@]}" &
  fi
  if command -v compute-sanitizer >/dev/null; then
    # Memory of its own for every tensor, so that an access outside of it is seen.
    local -x ET_CARD_POOL=0
    stage memcheck 200 compute-sanitizer --tool memcheck --error-exitcode 9 "$carry/gpu-check" optim --device cuda &
    stage racecheck 200 compute-sanitizer --tool racecheck --error-exitcode 9 "$carry/gpu-check" optim --device cuda &
    stage memcheck-ops 300 compute-sanitizer --tool memcheck --report-api-errors no --error-exitcode 9 "$carry/gpu-check" ops --device cuda --precision bf16 &
  fi
  wait
  if [ -d "$carry/encoder" ]; then
    stage curves 30 python3 "$here/curves.py" "$out/run-cpu/logs/metrics.jsonl" "$out/run-cuda/logs/metrics.jsonl"
  fi
}

# One epoch of the whole file by both sides with the same settings, several seeds side by side; the last lines say the accuracies.
learning() {
  begin
  for seed in ${SEEDS:-1 2 3}; do
    stage learn-$seed 300 "${train[@]}" --output "$out/run-learn-$seed" --device cuda --valid "$carry/sst-2/dev.tsv" --set epochs=1 --set lr=1e-4 \
      --set app.pooling=mean --set seed=$seed &
    stage learn-pytorch-$seed 300 python3 "$here/../bench/peer_finetune.py" --device cuda --model "$carry/encoder" --data "$carry/sst-2" \
      --lr 1e-4 --pooling mean --window 64 --seed $seed &
  done
  wait
  grep -ho 'kept step.*accuracy [0-9.]*' "$out"/learn-?.log "$out"/learn-??.log 2>/dev/null | sed 's/.*accuracy/ours/'
  grep -ho '"dev_accuracy": [0-9.]*' "$out"/learn-pytorch-*.log | sed 's/.*:/PyTorch/'
}

# Ours first: its lines are kept even if the other side runs out of time.
speed() {
  begin
  for model in bert albert; do
    local common=(--config "$carry/$model-base.json" --workloads "$carry/workloads.json" --seconds "${SECONDS_EACH:-3}")
    # Only the precision that is compared says where the time goes.
    stage speed-$model-bf16 75 "$carry/gpu-check" speed --device cuda --precision bf16 "${common[@]}" --trace "$out/trace-$model.json"
    stage speed-$model-f32 75 "$carry/gpu-check" speed --device cuda --precision f32 "${common[@]}"
    stage peer-$model 240 python3 "$here/peer.py" "${common[@]}"
    grep -h '^{' "$out"/speed-$model-*.log "$out"/peer-$model.log >"$out/speed-$model.jsonl"
    echo "$model-base"
    python3 "$here/table.py" "$out/speed-$model.jsonl" | tee "$out/speed-$model.txt"
  done
}

case $part in
checks | learning | speed) $part ;;
*)
  checks
  learning
  speed
  ;;
esac
echo "stages that failed: $(tr '\n' ' ' <"$out/failed.txt")"
[ ! -s "$out/failed.txt" ]
