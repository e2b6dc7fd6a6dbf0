"""Writes engines/*.int8.onnx of the instruments' networks, for CPUs that are faster in 8 bits.

    pip install -e '.[cpu,train]'
    python engines/training/quantise.py --data ../shared/data --out engines

Run it after each training. The ranges of activations are calibrated on scenes like those of training, with another
seed. Weights have 7 bits, so that no CPU's sums saturate. It prints the loss in both precisions on scenes that were
used neither for training nor for calibration. The manifest gets the hash of each model and the deviation of its output
on the parity example (`entries_in_8_bits.py`). On a CPU where the deviation is larger, the single-precision network
runs instead.
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
from tiles import write_tiles
from tqdm import tqdm

from fluoronav.imaging.inference import InferenceSettings, Model
from fluoronav.imaging.inference.eight_bits import quantised
from fluoronav.imaging.inference.manifest import approved
from fluoronav.lab.simulation.instrument_scenes import Background

SEED = 20350000
_SCENES, _CALIBRATING = 600, 40  # of the first network: scenes, and how many of them are for calibration
_STRIP_SCENES, _CALIBRATING_STRIPS = 400, 800  # of the second network: scenes, and strips for calibration

Loss = Callable[[Model], float]  # of a model on the scenes that are not for calibration


def first_network(backgrounds: list[Background]) -> tuple[list[np.ndarray], Loss]:
    """Inputs for calibration, and the loss, of the network that proposes candidates."""
    examples = Examples(_SCENES, torch.device("cpu"))
    with Growing(examples, _SCENES, SEED, backgrounds, 2) as growing:
        growing.wait(_SCENES)
    frames, wanted = examples.plain(slice(_SCENES))

    def loss(model: Model) -> float:
        losses = []
        for k in tqdm(range(_CALIBRATING, _SCENES), model.provider, unit="scene"):
            model.input[...] = frames[k].numpy()
            model.run()
            logits = torch.logit(torch.from_numpy(model.output), eps=1e-6)
            losses.append(first.loss_of(logits, wanted[k : k + 1]).item())
        return float(np.mean(losses))

    return [frames[k : k + 1].numpy() for k in range(_CALIBRATING)], loss


def second_network(backgrounds: list[Background]) -> tuple[list[np.ndarray], Loss]:
    """Inputs for calibration, and the loss, of the network that classifies strips."""
    work = [(SEED + k, 50, backgrounds) for k in range(_STRIP_SCENES // 50)]
    strips, truths = kept_or_made(None, ["strips", "truths"], second.examples, lambda: work)
    shown = strips.astype(np.float32)

    def loss(model: Model) -> float:
        outputs = []
        measured = range(_CALIBRATING_STRIPS, len(shown) - second.STRIP_BATCH + 1, second.STRIP_BATCH)
        for a in tqdm(measured, model.provider, unit="pair"):
            model.input[...] = shown[a : a + second.STRIP_BATCH]
            model.run()
            outputs.append(model.output.copy())
        output = torch.from_numpy(np.concatenate(outputs))
        return second.loss_of(output, torch.from_numpy(truths[measured.start :][: len(output)]).float()).item()

    pairs = range(0, _CALIBRATING_STRIPS, second.STRIP_BATCH)
    return [shown[a : a + second.STRIP_BATCH] for a in pairs], loss


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder that may hold chest/")
    parser.add_argument("--anatomy", type=Path, help="keep the views of it here (.npz), or read them")
    parser.add_argument("--views", type=int, default=24, help="views of each subject")
    parser.add_argument("--out", type=Path, default=Path("engines"))
    parser.add_argument(
        "--only", choices=["instruments", "instrument-strips"], help="only this network, if the other has not changed"
    )
    options = parser.parse_args()
    anatomy = first.backgrounds_of(options)
    for name, network in (("instruments", first_network), ("instrument-strips", second_network)):
        if options.only not in (None, name):
            continue
        calibrating, loss = network(anatomy)
        path, file = options.out / f"{name}.onnx", options.out / f"{name}.int8.onnx"
        short = replace(quantised(approved(path), calibrating), path=file)
        file.write_bytes(short.content)
        write_entry(path, short)
        if name == "instruments":
            write_tiles(options.out)
        for precision in ("fp32", "int8"):
            model = Model(path, InferenceSettings.model_validate({"cpu_precision": precision}))
            print(f"{name}: loss in {precision}: {loss(model):.4f}")


if __name__ == "__main__":
    main()
