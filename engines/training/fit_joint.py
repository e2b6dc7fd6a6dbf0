"""Fits the joint score of a candidate to the outputs of both networks (`fluoronav/stream/detection/joint_score.py`).

    pip install -e '.[cpu,train]'
    python engines/training/fit_joint.py --data ../shared/data --out engines

The examples are the candidates of both networks, false ones included, on scenes like those of their training. Fit again
after each training of either network. Everything is seeded. Weights and figures are in instrument-joint.json. Copy the
weights to joint_score.py; a test compares the two.
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
from train_strips import tails_in_view

from fluoronav.geometry import Camera
from fluoronav.lab.bench.instruments import compared
from fluoronav.lab.bench.matching import SAME_PX, off_px
from fluoronav.lab.simulation.instrument_scenes import Background
from fluoronav.paths import shipped, write_json
from fluoronav.stream.detection.joint_score import FEATURES, WEIGHTS, candidate_features
from fluoronav.stream.detection.stage import SCORES
from fluoronav.stream.detection.two_stage import TwoStageDetector

SEED = 20380000
_LIMBS = 0.3  # fraction of scenes in front of limbs
_SCENES_A_PIECE = 50
_RIDGE = 1e-5  # L2 penalty of the standardised weights
_FOLDS = 5  # of the cross-validation, by scene
_FALSE_POSITIVES = 0.01  # per scene, at which lost tips are counted
NONE, TIP, TAIL = range(3)


def examples(args: tuple[int, int, list[Background]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features of candidates (n, 11); the class of each, a tip, a tail or none (n,); and its scene (n,)."""
    seed, count, of_chest = args
    cv2.setNumThreads(1)
    rng = np.random.default_rng(seed)
    camera = Camera.load(shipped("calibration/demo-carm.yaml"))
    detector = TwoStageDetector(camera)
    found, kinds, scenes = [], [], []
    for k, (frame, placed) in enumerate(exposures(rng, camera, of_chest, _LIMBS, count)):
        assert frame.full_field_mask is not None
        candidates = detector.detect(frame, SCORES.candidate)
        found += list(candidate_features(candidates, frame.full_field_mask, frame.counts.shape))
        tails = tails_in_view(placed, camera)
        for one in candidates:
            is_tip = any(r["found"] for r in compared([one.second], placed, camera.focal_px)[0])
            is_tail = any(off_px(one.second, *tail) < SAME_PX for tail in tails)
            kinds.append(TIP if is_tip else TAIL if is_tail else NONE)
            scenes.append(seed * _SCENES_A_PIECE + k)
    return np.array(found, np.float32).reshape(-1, FEATURES), np.array(kinds, np.int64), np.array(scenes, np.int64)


def fitted(found: torch.Tensor, right: torch.Tensor) -> nn.Linear:
    """Logistic regression on standardised features, with a ridge penalty, since some features correlate strongly."""
    mean, spread = found.mean(0), found.std(0)
    model = nn.Linear(found.shape[1], 1)
    optimiser = torch.optim.LBFGS(model.parameters(), max_iter=500, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimiser.zero_grad()
        logits = model((found - mean) / spread)[:, 0]
        loss = nn.functional.binary_cross_entropy_with_logits(logits, right.float())
        loss = loss + _RIDGE * (model.weight**2).sum()
        loss.backward()
        return loss

    optimiser.step(loss)
    with torch.no_grad():  # for features that are not standardised
        model.weight /= spread
        model.bias -= model.weight @ mean
    return model


class JointScore:
    """Two logistic regressions: that an instrument ends at the candidate, and, if so, that the end is its tip.

    The first is fitted to all candidates, the second to those at an end.
    """

    def __init__(self, found: torch.Tensor, kinds: torch.Tensor) -> None:
        ends = kinds != NONE
        self.is_end, self.is_tip = fitted(found, ends), fitted(found[ends], kinds[ends] == TIP)

    @torch.no_grad()
    def __call__(self, found: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(self.is_end(found)[:, 0]) * torch.sigmoid(self.is_tip(found)[:, 0])

    def weights(self) -> dict[str, list[float]]:
        rows = np.stack([np.append(m.weight.detach().numpy(), m.bias.item()) for m in (self.is_end, self.is_tip)], 1)
        return dict(zip(WEIGHTS, rows.tolist(), strict=True))


def held_out(found: torch.Tensor, kinds: torch.Tensor, scenes: np.ndarray) -> dict[str, float]:
    """Loss, and the fraction of tips lost at one false positive in a hundred scenes that have candidates.

    By cross-validation: each fold of scenes is scored by the fit to the others.
    """
    names = np.random.default_rng(SEED).permutation(np.unique(scenes))
    score = torch.empty(len(found))
    for k in range(_FOLDS):
        held = torch.from_numpy(np.isin(scenes, names[k::_FOLDS]))
        score[held] = JointScore(found[~held], kinds[~held])(found[held])
    tips = kinds == TIP
    false_scores = score[~tips].sort(descending=True).values
    threshold = false_scores[min(round(_FALSE_POSITIVES * len(names)), len(false_scores) - 1)]
    return {
        "held_loss": nn.functional.binary_cross_entropy(score, tips.float()).item(),
        "held_lost": (score[tips] < threshold).float().mean().item(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder that may hold chest/")
    parser.add_argument("--out", type=Path, required=True, help="folder for instrument-joint.json")
    parser.add_argument("--scenes", type=int, default=4500, help="made on two cores, about eight a second")
    parser.add_argument("--views", type=int, default=44, help="of each subject, as backgrounds")
    parser.add_argument("--anatomy", type=Path, help="keep the views here (.npz), or read them")
    parser.add_argument("--cache", type=Path, help="keep the candidates here (.npz), or read them")
    options = parser.parse_args()

    def work() -> list[tuple]:
        anatomy = backgrounds_of(options)
        pieces = max(options.scenes // _SCENES_A_PIECE, 1)
        return [(SEED + k, _SCENES_A_PIECE, anatomy) for k in range(pieces)]

    found, what, scenes = kept_or_made(options.cache, ["found", "what", "scenes"], examples, work)
    torch.manual_seed(SEED)
    candidates, kinds = torch.from_numpy(found), torch.from_numpy(what)
    record = {
        "seed": SEED, "scenes_with_finds": len(np.unique(scenes)), "finds": len(found),
        "instruments": int((what == TIP).sum()), "tails": int((what == TAIL).sum()),
        "weights": JointScore(candidates, kinds).weights(),
        **held_out(candidates, kinds, scenes),
        "networks_alone": held_out(candidates[:, [0, 1, 3]], kinds, scenes),
    }  # fmt: skip
    write_json(record, options.out / "instrument-joint.json")
    print(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
