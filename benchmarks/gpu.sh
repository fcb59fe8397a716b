#!/usr/bin/env bash
# What needs an NVIDIA GPU: the kernels' tests, their times against torch, training and inference steps. Under nine minutes.
# Needs Python 3.11 or newer with torch (CUDA), pandas, matplotlib, seaborn, rich and pytest. Results: results/benchmarks/*.csv
# and *.png, or the folder given as the first argument. One part failing does not stop the next; the exit status tells.
set -uo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
out=${1:-}
export PYTHONPATH=$PWD XDG_CACHE_HOME=${XDG_CACHE_HOME:-$(mktemp -d)}
failed=0
part() { # seconds, command...
  echo "== ${*:2}"
  timeout "$@" || { echo "failed ($?): ${*:2}"; failed=1; }
}
nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader || exit 2
part 90 "$python" -m pytest -q -p no:cacheprovider tests/test_depthwise.py -k "cuda"
part 100 "$python" benchmarks/depthwise.py --device cuda --dtype bf16 --depths 152 --frames 32 --crop 224 --batch 8 --rounds 3 --name depthwise_gpu_bf16_32
part 80 "$python" benchmarks/depthwise.py --device cuda --dtype fp32 --depths 152 --frames 8 --crop 224 --batch 8 --rounds 3 --name depthwise_gpu_fp32_8
part 140 "$python" benchmarks/step.py --device cuda --dtype bf16 --depths 152 --frames 32 --crop 224 --batch 8 --rounds 7 \
  --networks ir-CSN ResNet3D --modes train --name step_gpu_152
part 110 "$python" benchmarks/step.py --device cuda --dtype bf16 --depths 50 --frames 8 --crop 224 --batch 32 --rounds 7 --name step_gpu_50
if [ -n "$out" ]; then mkdir -p "$out" && cp results/benchmarks/*gpu* "$XDG_CACHE_HOME"/csn/*.json "$out"/; fi
exit $failed
