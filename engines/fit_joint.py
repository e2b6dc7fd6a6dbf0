"""Fits what makes one score of all that is known of a find (`fluoronav/instruments/joint.py`).

    pip install -e '.[cpu,train]'
    python engines/fit_joint.py --data ../shared/data --out engines

Its examples are the finds of both looks, wrong ones included, on scenes as those that they were trained on; so it is
done after both, and again after each training of either. All is seeded; weights and figures are in
instrument-joint.json, and the weights are to be written into joint.py (a test holds one against the other).
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import cv2
import numpy as np
import torch
from examples import exposures, kept_or_made  # beside this file
from torch import nn
from train_instruments import backgrounds_of

from fluoronav.bench.instruments import compared
from fluoronav.geometry import Camera
from fluoronav.instruments.joint import WEIGHTS, features
from fluoronav.instruments.looks import Looks
from fluoronav.paths import shipped, write_json
from fluoronav.simulation.instrument_scenes import Background

SEED = 20380000
# Finds this weak are looked at, too; the stage is a little stricter.
_LEAST_PROPOSED = 0.2
_LIMBS = 0.3
_SCENES_A_PIECE = 50
_SMALL, _PARTS = 1e-5, 5
_LET_THROUGH = 0.01  # wrong finds a scene


def examples(args: tuple[int, int, list[Background]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Finds (n, 8), whether each is an instrument (n,), and the scene of each (n,)."""
    seed, count, of_chest = args
    cv2.setNumThreads(1)
    rng = np.random.default_rng(seed)
    camera = Camera.load(shipped("calibration/demo-carm.yaml"))
    looks = Looks(camera)
    found, right, scenes = [], [], []
    for k, (frame, placed) in enumerate(exposures(rng, camera, of_chest, _LIMBS, count)):
        assert frame.seen is not None
        looked = looks.find(frame, _LEAST_PROPOSED)
        found += list(features(looked, frame.seen, frame.counts.shape))
        for one in looked:
            right.append(any(r["found"] for r in compared([one.second], placed, camera.focal_px)[0]))
            scenes.append(seed * _SCENES_A_PIECE + k)
    return np.array(found, np.float32).reshape(-1, len(WEIGHTS)), np.array(right, bool), np.array(scenes, np.int64)


def fitted(found: torch.Tensor, right: torch.Tensor) -> nn.Linear:
    """The logistic regression of finds; weights of features that say nearly the same are kept small."""
    middle, spread = found.mean(0), found.std(0)
    model = nn.Linear(found.shape[1], 1)
    optimiser = torch.optim.LBFGS(model.parameters(), max_iter=500, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimiser.zero_grad()
        loss = loss_of(model((found - middle) / spread), right) + _SMALL * (model.weight**2).sum()
        loss.backward()
        return loss

    optimiser.step(loss)
    with torch.no_grad():  # standardised no more
        model.weight /= spread
        model.bias -= model.weight @ middle
    return model


def loss_of(log_odds: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    return nn.functional.binary_cross_entropy_with_logits(log_odds[:, 0], right.float())


def held_out(found: torch.Tensor, right: torch.Tensor, scenes: np.ndarray) -> dict[str, float]:
    """Loss, and the share of instruments lost where one wrong find in a hundred scenes that have finds is let through.

    Each fifth of the scenes is scored by what was fitted to the others.
    """
    names = np.random.default_rng(SEED).permutation(np.unique(scenes))
    log_odds = torch.empty(len(found), 1)
    for k in range(_PARTS):
        held = torch.from_numpy(np.isin(scenes, names[k::_PARTS]))
        log_odds[held] = fitted(found[~held], right[~held])(found[held]).detach()
    wrong = log_odds[~right, 0].sort(descending=True).values
    limit = wrong[min(round(_LET_THROUGH * len(names)), len(wrong) - 1)]
    return {"held_loss": loss_of(log_odds, right).item(), "held_lost": (log_odds[right] < limit).float().mean().item()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder that may hold chest/")
    parser.add_argument("--out", type=Path, required=True, help="folder for instrument-joint.json")
    parser.add_argument("--scenes", type=int, default=4500, help="made on two cores, about eight a second")
    parser.add_argument("--views", type=int, default=44, help="of each subject, as backgrounds")
    parser.add_argument("--anatomy", type=Path, help="keep the views here (.npz), or read them")
    parser.add_argument("--cache", type=Path, help="keep the finds here (.npz), or read them")
    options = parser.parse_args()

    def work() -> list[tuple]:
        anatomy = backgrounds_of(options)
        pieces = max(options.scenes // _SCENES_A_PIECE, 1)
        return [(SEED + k, _SCENES_A_PIECE, anatomy) for k in range(pieces)]

    found, right, scenes = kept_or_made(options.cache, ["found", "right", "scenes"], examples, work)
    torch.manual_seed(SEED)
    finds, real = torch.from_numpy(found), torch.from_numpy(right)
    model = fitted(finds, real)
    record = {
        "seed": SEED, "scenes_with_finds": len(np.unique(scenes)), "finds": len(found), "instruments": int(right.sum()),
        "weights": dict(zip((*WEIGHTS, "1"), [*model.weight[0].tolist(), model.bias.item()], strict=True)),
        **held_out(finds, real, scenes),
        "both_logits_alone": held_out(finds[:, :2], real, scenes),
    }  # fmt: skip
    write_json(record, options.out / "instrument-joint.json")
    print(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
