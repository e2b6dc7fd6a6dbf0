#!/usr/bin/env bash
# Everything that needs a GPU, unattended, into one JSON: bench/gpu.sh [OUT.json]
# Needs an NVIDIA GPU with its driver, Python 3.11 and pip; makes its own environment in .venv-gpu.
set -euo pipefail
cd "$(dirname "$0")/.."
out=${1:-out/gpu.json}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
nvidia-smi --query-gpu=name,driver_version,memory.total,compute_cap --format=csv,noheader | tee "$folder/gpu.csv"
python3 -m venv .venv-gpu
.venv-gpu/bin/pip install --quiet --editable '.[gpu,rtx,bench]'
run=.venv-gpu/bin/fluoronav
"$run" engines build --engine tensorrt-rtx --target this --case embedded
"$run" engines build --engine tensorrt-rtx --target this --precision fp16
"$run" engines build --engine tensorrt --target this || echo "tensorrt: not built"
for engine in cpu cuda tensorrt tensorrt-rtx; do
  "$run" engines verify --engine "$engine" --json "$folder/verify-$engine.json" || echo "$engine: not verified"
done
for engine in cuda tensorrt-rtx; do
  "$run" engines verify --engine "$engine" --precision fp16 --json "$folder/verify-$engine-fp16.json" \
    || echo "$engine: not verified in fp16"
done
# Every stage on; the registration by the CPU's kernels, and its step on the GPU.
for how in "cpu kernel" "tensorrt-rtx kernel" "tensorrt-rtx graph"; do
  read -r engine registration <<< "$how"
  sed "s|engine: auto.*|engine: $engine\n  fallback: refuse\n  registration: $registration|" \
    launch/demo.yaml > launch/.gpu-bench.yaml
  "$run" bench latency --frames 1500 --launch launch/.gpu-bench.yaml \
    --stages attenuation registration detection instruments guidance view \
    --json "$folder/latency-$engine-$registration.json" || echo "$how: no latency"
done
rm -f launch/.gpu-bench.yaml
mkdir -p "$(dirname "$out")"
python3 - "$folder" "$out" <<'PYTHON'
import json, pathlib, sys
folder, out = map(pathlib.Path, sys.argv[1:])
result = {"gpu": (folder / "gpu.csv").read_text().strip()}
result |= {p.stem: json.loads(p.read_text()) for p in sorted(folder.glob("*.json"))}
out.write_text(json.dumps(result, indent=1) + "\n")
PYTHON
echo "written: $out"
