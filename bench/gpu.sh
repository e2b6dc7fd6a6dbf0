#!/usr/bin/env bash
# Everything that needs a GPU, unattended, into one JSON: bench/gpu.sh [OUT.json]
# Needs an NVIDIA GPU with its driver, Python 3.11 and pip; makes its own environment in .venv-gpu.
# Where all is installed already: FLUORONAV="python3 -m fluoronav" bench/gpu.sh
# ENGINES and FRAMES choose what is measured, and on how many frames.
set -euo pipefail
cd "$(dirname "$0")/.."
out=${1:-out/gpu.json}
frames=${FRAMES:-1500}
engines=${ENGINES:-cuda tensorrt tensorrt-rtx}
folder=$(mktemp -d)
written() { # whatever there is: an hour on somebody's GPU that is cut short has not been for nothing
  rm -f "$folder/first-start.json" launch/.gpu-bench.yaml
  if ! ls "$folder"/*.json > /dev/null 2>&1; then  # what an earlier run wrote stays
    echo "nothing was measured"
    rm -rf "$folder"
    return
  fi
  mkdir -p "$(dirname "$out")"
  python3 - "$folder" "$out" <<'PYTHON'
import json, pathlib, sys
folder, out = map(pathlib.Path, sys.argv[1:])
result = {"gpu": (folder / "gpu.csv").read_text().strip()}
result |= {p.stem: json.loads(p.read_text()) for p in sorted(folder.glob("*.json"))}
out.write_text(json.dumps(result, indent=1) + "\n")
PYTHON
  rm -rf "$folder"
  echo "written: $out"
}
trap written EXIT
trap 'exit 1' TERM INT
nvidia-smi --query-gpu=name,driver_version,memory.total,compute_cap --format=csv,noheader | tee "$folder/gpu.csv"
if [ -z "${FLUORONAV:-}" ]; then
  python3 -m venv .venv-gpu
  .venv-gpu/bin/pip install --quiet --editable '.[gpu,rtx,bench]'
  FLUORONAV=.venv-gpu/bin/fluoronav
fi
for engine in $engines; do
  case $engine in
    cuda) continue ;;  # builds nothing
    tensorrt-rtx) $FLUORONAV engines build --engine "$engine" --precision fp16 || true ;;
  esac
  $FLUORONAV engines build --engine "$engine" --case embedded || echo "$engine: not built"
done
# Every stage on; the registration by the CPU's kernels, and its step on the GPU. The first start compiles the kernels.
latency() { # engine, registration, frames, JSON
  sed "s|engine: auto.*|engine: $1\n  fallback: refuse\n  registration: $2|" launch/demo.yaml \
    > launch/.gpu-bench.yaml
  $FLUORONAV bench latency --frames "$3" --launch launch/.gpu-bench.yaml \
    --stages attenuation registration detection instruments guidance view --json "$4" || echo "$1 $2: no latency"
}
latency cpu kernel 90 "$folder/first-start.json"
for engine in $engines; do
  latency "$engine" graph "$frames" "$folder/latency-$engine-graph.json"
  latency "$engine" kernel "$frames" "$folder/latency-$engine-kernel.json"
done
latency cpu kernel "$frames" "$folder/latency-cpu-kernel.json"
for engine in cpu $engines; do
  $FLUORONAV engines verify --engine "$engine" --case embedded --json "$folder/verify-$engine.json" \
    || echo "$engine: not verified"
done
for engine in $engines; do
  [ "$engine" = tensorrt ] && continue  # its engines are built in single precision
  $FLUORONAV engines verify --engine "$engine" --precision fp16 --json "$folder/verify-$engine-fp16.json" \
    || echo "$engine: not verified in fp16"
done
