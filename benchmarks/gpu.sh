#!/usr/bin/env bash
# What needs an NVIDIA GPU: tests, the kernels' times against torch's, training and inference steps. Under nine minutes: the limits
# of the parts, in seconds, add up to 535. Needs Python 3.11 or newer with torch 2.11 or newer (CUDA), triton, scipy, safetensors,
# pandas, matplotlib, seaborn, rich and pytest, 16 cores or so and 80 GB of GPU memory. Parts that read videos need decord and av
# (and scikit-image) too, and are left out, with a line, where these cannot be imported.
# Results: results/benchmarks/*.csv and *.png, and a copy in the folder given as the first argument. Rows are written as they are
# measured, so a part that meets its limit keeps what it has. One part failing does not stop the next; the exit status tells.
set -uo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
out=${1:-}
scratch=$(mktemp -d)
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH} XDG_CACHE_HOME=${XDG_CACHE_HOME:-$scratch}
failed=0
part() { # seconds, command...
  echo "== ${*:2}"
  timeout "$@" || { echo "failed ($?): ${*:2}"; failed=1; }
}
tests() { # seconds, files and options of pytest...
  part "$1" "$python" -m pytest -q -p no:cacheprovider "${@:2}"
}
step() { # seconds, name, options...
  part "$1" "$python" benchmarks/step.py --device cuda --dtype bf16 --crop 224 --rounds 7 --name "$2" "${@:3}"
}
nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader || exit 2
part 40 "$python" benchmarks/compile_ahead.py bf16 fp32
CSN_DEPTHWISE=triton tests 45 tests/test_depthwise.py -k cuda # one tiling each
tests 20 tests/test_depthwise.py -k "cuda and sixteen" # and the choice among all
part 65 "$python" benchmarks/depthwise.py --device cuda --dtype bf16 --depths 152 --frames 32 --crop 224 --batch 8 --rounds 3 --name depthwise_gpu_bf16_32
part 45 "$python" benchmarks/depthwise.py --device cuda --dtype fp32 --depths 152 --frames 8 --crop 224 --batch 8 --rounds 3 --name depthwise_gpu_fp32_8
step 80 step_gpu_152 --depths 152 --frames 32 --batch 4 --networks ir-CSN ResNet3D --modes train
step 55 step_gpu_152_infer --depths 152 --frames 32 --batch 4 --networks ir-CSN ResNet3D --modes infer
step 45 step_gpu_50_32 --depths 50 --frames 32 --batch 8 --networks ir-CSN ResNet3D --modes train
step 75 step_gpu_50_compiled --depths 50 --frames 8 --batch 16 --networks ir-CSN --modes train --compile
part 25 "$python" benchmarks/scaling.py step --device cuda --rounds 5 --name scaling_gpu
if "$python" -c "import av, decord, skimage"; then
  tests 20 tests/test_steps.py -k wait
  part 20 "$python" experiments/table4_regularization.py --scale photo --only ir-CSN-26 --seeds 0 --device cuda --home "$scratch/home"
else
  echo "left out: tests/test_steps.py and a row of table 4 read videos, and decord, av or scikit-image cannot be imported"
fi
if [ -n "$out" ]; then mkdir -p "$out" && cp results/benchmarks/*gpu* "$XDG_CACHE_HOME"/csn/*.json "$out"/; fi
exit $failed
