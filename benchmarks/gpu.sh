#!/usr/bin/env bash
# What needs an NVIDIA GPU: tests, the kernels' times against torch's, training and inference steps. Under nine minutes: the limits
# of the parts, in seconds, add up to 535. Needs Python 3.11 or newer with torch 2.11 or newer (CUDA), triton, scipy, safetensors,
# pandas, matplotlib, seaborn, rich, pytest and pytest-xdist, 16 cores or so and 80 GB of GPU memory. Parts that read videos need decord
# and av (and scikit-image) too, and are left out, with a line, where these cannot be imported.
#     benchmarks/gpu.sh [FOLDER [PART..]]      the parts, in this order: the first words of the lines below
# Results: results/benchmarks/*.csv and *.png, and a copy in FOLDER. Rows are written as they are measured, so a part that meets its
# limit keeps what it has. One part failing does not stop the next; the exit status tells.
set -uo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
out=${1:-}
chosen=" ${*:2} "
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH} XDG_CACHE_HOME=${XDG_CACHE_HOME:-$scratch}
failed=0
part() { # name, seconds, command...
  case "$chosen" in "  " | *" $1 "*) ;; *) return ;; esac
  echo "== $1: ${*:3}"
  timeout -k 1 "${@:2}" || { echo "failed ($?): $1"; failed=1; }
  if [ -n "$out" ]; then mkdir -p "$out" && cp results/benchmarks/*gpu* "$XDG_CACHE_HOME"/csn/*.json "$out"/ 2>/dev/null; fi
}
tests() { # name, seconds, files and options of pytest...
  part "$1" "$2" "$python" -m pytest -q -p no:cacheprovider -p no:benchmark "${@:3}" # that plugin does not stand beside xdist
}
layers() { # name, seconds, options...
  part "$1" "$2" "$python" benchmarks/depthwise.py --device cuda --depths 152 --crop 224 --batch 8 --rounds 3 "${@:3}"
}
step() { # name, seconds, options...
  part "$1" "$2" "$python" benchmarks/step.py --device cuda --dtype bf16 --crop 224 --rounds 7 --name "step_gpu_$1" "${@:3}"
}
nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader || exit 2
part compile 65 "$python" benchmarks/compile_ahead.py bf16 fp32
CSN_DEPTHWISE=triton tests kernels 75 tests/test_depthwise.py tests/test_norm.py tests/test_stem.py tests/test_graph.py -k "cuda or eager or graph" -n 12
tests choice 20 tests/test_depthwise.py -k "cuda and sixteen" -n 2 # among our kernels and torch's; above it is fixed
layers bf16 40 --dtype bf16 --frames 32 --name depthwise_gpu_bf16_32
part norm 20 "$python" benchmarks/norm.py --depth 152 --frames 32 --crop 224 --batch 4 --dtype bf16 --name norm_gpu_bf16_32
step 152 65 --depths 152 --frames 32 --batch 4 --networks ir-CSN ResNet3D --modes train
step 152_infer 65 --depths 152 --frames 32 --batch 4 --networks ir-CSN ResNet3D --modes infer
part work 25 "$python" benchmarks/kernels.py --depth 152 --frames 32 --crop 224 --batch 4 --dtype bf16 --name kernels_gpu_152
step 50 60 --depths 50 --frames 32 --batch 8 --networks ir-CSN ResNet3D --modes train
layers fp32 25 --dtype fp32 --frames 8 --name depthwise_gpu_fp32_8
if "$python" -c "import av, decord, skimage"; then
  CSN_DEPTHWISE=triton tests training 45 tests/test_steps.py tests/test_evaluate.py -k "wait or graph" -n 8
  CSN_DEPTHWISE=triton part table4 30 "$python" experiments/table4_regularization.py --scale smoke --only ir-CSN-26 --seeds 0 --device cuda --home "$scratch/home"
else
  echo "left out: training and table4 read videos, and decord, av or scikit-image cannot be imported"
fi
exit $failed
