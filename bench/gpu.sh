#!/usr/bin/env bash
# Runs every bench that needs a GPU and writes one JSON: bench/gpu.sh [OUT.json]
# Needs an NVIDIA GPU with its driver, Python 3.11 and pip; installs into .venv-gpu.
# With an installed fluoronav: FLUORONAV="python3 -m fluoronav" bench/gpu.sh
# ENGINES: engines to measure. FRAMES: frames of each latency run.
set -euo pipefail
cd "$(dirname "$0")/.."
out=${1:-out/gpu.json}
frames=${FRAMES:-1500}
engines=${ENGINES:-cuda tensorrt tensorrt-rtx}
folder=$(mktemp -d)
write_result() { # also after an error or a signal: completed measurements are kept
  rm -f "$folder/first-start.json" launch/.gpu-bench.yaml
  if ! ls "$folder"/*.json > /dev/null 2>&1; then  # keeps the result of an earlier run
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
trap write_result EXIT
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
# All stages; the registration by the CPU's kernels, and its step on the GPU. The first start compiles the kernels.
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
  [ "$engine" = tensorrt ] && continue  # built in single precision
  $FLUORONAV engines verify --engine "$engine" --precision fp16 --json "$folder/verify-$engine-fp16.json" \
    || echo "$engine: not verified in fp16"
done
