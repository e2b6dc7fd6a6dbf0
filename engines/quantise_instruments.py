"""Writes engines/instruments.int8.onnx: the first network in 8 bits, for CPUs that are faster so.

    pip install -e '.[cpu,train]'
    python engines/quantise_instruments.py --data ../shared/data --out engines

After each training. What is computed gets its ranges from scenes as training's, of another seed; printed is the loss of
both on scenes that neither training nor this has seen.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from dataclasses import fields
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm
from train_instruments import Examples, backgrounds_of, kept_or_made, loss_of, scenes  # beside this file

from fluoronav.inference import InferenceSettings, Model
from fluoronav.inference.eight_bits import quantised
from fluoronav.inference.manifest import approved
from fluoronav.paths import write_json

SEED = 20350000
_CALIBRATING = 40


def lost(model: Model, examples: Examples) -> float:
    """Mean loss, as in training, of all but the calibrating examples."""
    losses = []
    for k in tqdm(range(_CALIBRATING, len(examples)), model.provider, unit="scene"):
        model.input[...] = examples.input(k)
        model.run()
        said = torch.logit(torch.from_numpy(model.output), eps=1e-6)
        losses.append(loss_of(said, torch.from_numpy(examples.maps[k : k + 1].astype(np.float32) / 255)).item())
    return float(np.mean(losses))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder that may hold chest/")
    parser.add_argument("--anatomy", type=Path, help="keep the views of it here (.npz), or read them")
    parser.add_argument("--views", type=int, default=24, help="views of each subject")
    parser.add_argument("--scenes", type=int, default=600, help=f"{_CALIBRATING} of them calibrate, the others measure")
    parser.add_argument("--out", type=Path, default=Path("engines"))
    options = parser.parse_args()

    def work() -> list[tuple]:
        anatomy = backgrounds_of(options)
        return [(SEED + k, 50, anatomy) for k in range(max(options.scenes // 50, 2))]

    examples = Examples(*kept_or_made(None, [part.name for part in fields(Examples)], scenes, work))
    path = options.out / "instruments.onnx"
    whole = approved(path)
    short = quantised(whole, (examples.input(k)[None] for k in range(_CALIBRATING)))
    file = options.out / "instruments.int8.onnx"
    file.write_bytes(short.content)
    manifest = options.out / "manifest.json"
    entries = json.loads(manifest.read_text())
    entries[path.name]["int8"] = {"file": file.name, "sha256": hashlib.sha256(short.content).hexdigest()}
    write_json(entries, manifest)
    for precision in ("fp32", "int8"):
        settings = InferenceSettings.model_validate({"cpu_precision": precision})
        print(f"loss in {precision}: {lost(Model(path, settings), examples):.4f}")


if __name__ == "__main__":
    main()
