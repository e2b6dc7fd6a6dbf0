"""Writes engines/instruments.int8.onnx and engines/instrument-strips.int8.onnx, for CPUs that are faster in 8 bits.

    pip install -e '.[cpu,train]'
    python engines/training/quantise.py --data ../shared/data --out engines

After each training. What is computed gets its ranges from scenes as training's, of another seed; printed is the loss of
both on scenes that neither training nor this has seen. The manifest gets the hash of each, and how far its answer to
the parity example is off (`entries_in_8_bits.py`): a CPU where it is farther off runs the whole network.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import train_instruments as first  # beside this file
import train_strips as second
from entries_in_8_bits import write_entry
from examples import Examples, Growing, kept_or_made
from tqdm import tqdm

from fluoronav.imaging.inference import InferenceSettings, Model
from fluoronav.imaging.inference.eight_bits import quantised
from fluoronav.imaging.inference.manifest import approved
from fluoronav.lab.simulation.instrument_scenes import Background

SEED = 20350000
# So many scenes for each look; of the first so many scenes, and of the second so many strips, ranges are taken.
_SCENES, _CALIBRATING = 600, 40
_STRIP_SCENES, _CALIBRATING_STRIPS = 400, 800

# What a network says of an input, and the loss of that.
Asked = Callable[[Model], float]


def first_look(backgrounds: list[Background]) -> tuple[list[np.ndarray], Asked]:
    examples = Examples(_SCENES, torch.device("cpu"))
    with Growing(examples, _SCENES, SEED, backgrounds, 2) as growing:
        growing.wait(_SCENES)
    frames, wanted = examples.plain(slice(_SCENES))

    def lost(model: Model) -> float:
        losses = []
        for k in tqdm(range(_CALIBRATING, _SCENES), model.provider, unit="scene"):
            model.input[...] = frames[k].numpy()
            model.run()
            said = torch.logit(torch.from_numpy(model.output), eps=1e-6)
            losses.append(first.loss_of(said, wanted[k : k + 1]).item())
        return float(np.mean(losses))

    return [frames[k : k + 1].numpy() for k in range(_CALIBRATING)], lost


def second_look(backgrounds: list[Background]) -> tuple[list[np.ndarray], Asked]:
    work = [(SEED + k, 50, backgrounds) for k in range(_STRIP_SCENES // 50)]
    strips, truths = kept_or_made(None, ["strips", "truths"], second.examples, lambda: work)
    shown = strips.astype(np.float32)

    def lost(model: Model) -> float:
        said = []
        measured = range(_CALIBRATING_STRIPS, len(shown) - second.STRIP_BATCH + 1, second.STRIP_BATCH)
        for a in tqdm(measured, model.provider, unit="pair"):
            model.input[...] = shown[a : a + second.STRIP_BATCH]
            model.run()
            said.append(model.output.copy())
        told = torch.from_numpy(np.concatenate(said))
        return second.loss_of(told, torch.from_numpy(truths[measured.start :][: len(told)]).float()).item()

    pairs = range(0, _CALIBRATING_STRIPS, second.STRIP_BATCH)
    return [shown[a : a + second.STRIP_BATCH] for a in pairs], lost


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder that may hold chest/")
    parser.add_argument("--anatomy", type=Path, help="keep the views of it here (.npz), or read them")
    parser.add_argument("--views", type=int, default=24, help="views of each subject")
    parser.add_argument("--out", type=Path, default=Path("engines"))
    parser.add_argument("--only", choices=["instruments", "instrument-strips"], help="where the other is as it was")
    options = parser.parse_args()
    anatomy = first.backgrounds_of(options)
    for name, look in (("instruments", first_look), ("instrument-strips", second_look)):
        if options.only not in (None, name):
            continue
        calibrating, lost = look(anatomy)
        path, file = options.out / f"{name}.onnx", options.out / f"{name}.int8.onnx"
        short = replace(quantised(approved(path), calibrating), path=file)
        file.write_bytes(short.content)
        write_entry(path, short)
        for precision in ("fp32", "int8"):
            model = Model(path, InferenceSettings.model_validate({"cpu_precision": precision}))
            print(f"{name}: loss in {precision}: {lost(model):.4f}")


if __name__ == "__main__":
    main()
