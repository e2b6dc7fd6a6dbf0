"""Trains the second network, which classifies the strip image of each candidate; writes engines/instrument-strips.onnx.

    python engines/training/train_strips.py --data ../shared/data --out engines

The examples are the candidates of engines/instruments.onnx, false ones included, on scenes like those of its training
but at full resolution. Train it after that network. Everything is seeded; the curve is in
instrument-strips.training.json.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from examples import COUNTS, HARD, exposures, kept_or_made, trainer_arguments  # beside this file
from torch import nn
from tqdm import tqdm
from train_instruments import (
    Residual,
    backgrounds_of,
    block,
    exported,
    load_weights,
    normalised_again,
    rate,
)

from fluoronav.geometry import Camera
from fluoronav.lab.simulation.instrument_scenes import Background, Placed
from fluoronav.paths import shipped
from fluoronav.stream.detection.candidates import CandidateDetector
from fluoronav.stream.detection.network_input import KINDS, MAP_PX
from fluoronav.stream.detection.strip_image import (
    ACROSS_SCALE_PX,
    OUTPUTS,
    SHIFT_SCALE_PX,
    STRIP_BATCH,
    STRIP_COLS,
    STRIP_ROWS,
    TURN_SCALE_DEG,
    sample_strip,
)

SEED = 20261127
NO_KIND, TAIL_END = -1, -2


@dataclass(frozen=True)
class StripExamples:
    """How examples are made and labelled; all chosen."""

    min_score: float = 0.1  # of candidates; the detection stage is stricter
    limbs: float = 0.4  # fraction of scenes in front of limbs
    # Strips of one candidate, jittered; 1 sigma. Some are shifted farther, since a traced line may end before a tip or
    # beyond it.
    strips: int = 3
    along_px: float = 8.0
    far_along_px: float = 25.0
    far_fraction: float = 0.3
    across_px: float = 2.0
    turn_deg: float = 0.9
    # A strip shows an instrument's tip, or its tail, if the end lies within these distances along the strip's axis (the
    # strip shows 50 px ahead), across it, and in direction.
    max_ahead_px: float = 45.0
    max_behind_px: float = 110.0
    max_across_px: float = 14.0
    max_turn_deg: float = 10.0
    # It shows neither if an instrument's axis is off by more than these. Strips in between are left out.
    none_across_px: float = 25.0
    none_turn_deg: float = 20.0
    # Tails are rarely candidates. A tail is added where the first network's map of tails exceeds this.
    min_tail: float = 0.3
    max_held: int = 11_000  # strips that are held out from training


EXAMPLES = StripExamples()


class StripClassifier(nn.Module):
    """Four halvings with residual convolutions, then one convolution over the rest.

    It has convolutions only, which every engine supports.
    """

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            block(2, 24, 5, 2), block(24, 40, 3, 2), Residual(40), block(40, 64, 3, 2), Residual(64),
            block(64, 96, 3, 2), Residual(96), nn.Conv2d(96, 96, (STRIP_ROWS // 16, STRIP_COLS // 16)), nn.ReLU(),
            nn.Dropout(0.2), nn.Conv2d(96, OUTPUTS, 1),
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(x)[:, :, 0, 0]


def examples(args: tuple[int, int, list[Background]]) -> tuple[np.ndarray, np.ndarray]:
    """Strips (n, 2, 48, 128) as float16, and their truth (n, 4) by :func:`_truth`."""
    seed, count, of_chest = args
    cv2.setNumThreads(1)
    rng = np.random.default_rng(seed)
    camera = Camera.load(shipped("calibration/demo-carm.yaml"))
    candidates = CandidateDetector(camera.rows, camera.cols)
    strips, truths = [], []
    one = np.empty((2, STRIP_ROWS, STRIP_COLS), np.float32)
    for frame, placed in exposures(rng, camera, of_chest, EXAMPLES.limbs, count, HARD, COUNTS):
        assert frame.full_field_mask is not None
        ends = [(d.tip_px, d.direction) for d in candidates.detect(frame, EXAMPLES.min_score)]
        tails = tails_in_view(placed, camera)
        ends += [tail for tail in tails if _around(candidates.model.output[0, 5], tail[0], camera) > EXAMPLES.min_tail]
        for end, direction in ends:
            for _ in range(EXAMPLES.strips):
                turn = np.deg2rad(rng.normal(0, EXAMPLES.turn_deg))
                axis = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]) @ direction
                across = np.array([-axis[1], axis[0]])
                far = EXAMPLES.far_along_px if rng.random() < EXAMPLES.far_fraction else EXAMPLES.along_px
                tip = end + rng.normal(0, far) * axis + rng.normal(0, EXAMPLES.across_px) * across
                truth = _truth(placed, tails, tip, axis)
                if truth is None:
                    continue
                sample_strip(frame.counts, frame.full_field_mask, tip, axis, frame.dark, False, one)
                strips.append(one.astype(np.float16))
                truths.append(truth)
    return np.array(strips, np.float16).reshape(-1, 2, STRIP_ROWS, STRIP_COLS), np.array(truths, np.float64).reshape(
        -1, 4
    )


End = tuple[np.ndarray, np.ndarray]  # position, (column, row) px, and outward direction of the axis


def tails_in_view(placed: tuple[Placed, ...], camera: Camera) -> list[End]:
    """The tails of a scene's instruments that lie inside the field."""
    return [(p.axis_px[-1], p.tail_direction) for p in placed if p.shows_tail(camera)]


def _around(grid: np.ndarray, at_px: np.ndarray, camera: Camera) -> float:
    """Maximum of a map within one of its pixels around a position."""
    col, row = np.rint((at_px + 0.5) * MAP_PX / max(camera.rows, camera.cols) - 0.5).astype(int)
    return float(grid[max(row - 1, 0) : row + 2, max(col - 1, 0) : col + 2].max())


def _truth(
    placed: tuple[Placed, ...], tails: list[End], tip: np.ndarray, axis: np.ndarray
) -> tuple[float, float, float, float] | None:
    """Class of a strip (a kind, a tail or none), and the true end relative to it: along, across (px), rotation (deg).

    None if the strip clearly shows neither an instrument's end nor none.
    """
    normal, ambiguous = np.array([-axis[1], axis[0]]), False

    def off(end: np.ndarray, true: np.ndarray) -> tuple[float, float, float]:
        turn = float(np.rad2deg(np.arctan2(true @ normal, true @ axis)))
        return float((end - tip) @ axis), float((end - tip) @ normal), turn

    def fits(along: float, across: float, turn: float) -> bool:
        return (
            -EXAMPLES.max_behind_px < along < EXAMPLES.max_ahead_px
            and abs(across) < EXAMPLES.max_across_px
            and abs(turn) < EXAMPLES.max_turn_deg
        )

    for p in placed:
        along, across, turn = off(p.axis_px[0], p.tip_direction)
        if fits(along, across, turn):
            return KINDS.index(p.kind), along, across, turn
        distance = np.abs((p.axis_px - tip) @ normal).min() if abs(along) < 2 * EXAMPLES.max_behind_px else np.inf
        ambiguous |= bool(distance < EXAMPLES.none_across_px and abs(turn) < EXAMPLES.none_turn_deg)
    for end, outwards in tails:
        offsets = off(end, outwards)
        if fits(*offsets):
            return TAIL_END, *offsets
    return None if ambiguous else (NO_KIND, 0.0, 0.0, 0.0)


def loss_of(out: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    kind, (shift, across, turn) = truth[:, 0].long(), truth[:, 1:].T
    tip, tail = kind >= 0, kind == TAIL_END
    log_odds = nn.functional.binary_cross_entropy_with_logits
    loss = log_odds(out[:, 0], (tip | tail).float())
    if (tip | tail).any():
        # Tip or tail is an output of its own: a blunt end is clearly a wire's, but the strip may not show which.
        loss = loss + log_odds(out[tip | tail, 9], tip[tip | tail].float())
    if tip.any():
        loss = loss + 0.5 * nn.functional.cross_entropy(out[tip, 1:5], kind[tip])
        # A Laplace likelihood: the scale of the error is learned with the shift, and outliers have a bounded gradient.
        off = (out[tip, 5] - shift[tip] / SHIFT_SCALE_PX).abs()
        log_b = out[tip, 6].clamp(-4, 3)
        loss = loss + 0.5 * (off * torch.exp(-log_b) + log_b).mean()
        huber = nn.functional.smooth_l1_loss
        loss = loss + 0.3 * huber(out[tip, 7], across[tip] / ACROSS_SCALE_PX)
        loss = loss + 0.3 * huber(out[tip, 8], (turn[tip] / TURN_SCALE_DEG).clamp(-3, 3))
    return loss


def varied(x: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Strips with random contrast, noise, shading and field edge, some mirrored, and which were mirrored."""
    n = len(x)
    flipped = rng.random(n) < 0.5
    x[flipped] = x[flipped, :, ::-1]
    x[:, 0] *= np.exp(rng.normal(0, 0.2, (n, 1, 1)))
    x[:, 0] += rng.standard_normal(x[:, 0].shape, np.float32) * (0.2 * rng.random((n, 1, 1), np.float32) ** 2)
    slope = rng.normal(0, 0.4, (n, 2, 1, 1)) * (rng.random((n, 1, 1, 1)) < 0.5)
    x[:, 0] += slope[:, 0] * np.linspace(-1, 1, STRIP_ROWS)[:, None] + slope[:, 1] * np.linspace(-1, 1, STRIP_COLS)
    ends = rng.integers(STRIP_COLS // 2, 3 * STRIP_COLS, n)[:, None, None]
    x[:, 1] *= np.arange(STRIP_COLS) < ends
    x[:, 0] *= x[:, 1]
    return x, flipped


def train(
    model: StripClassifier,
    strips: np.ndarray,
    truths: np.ndarray,
    minutes: float,
    highest_rate: float,
    curve: list[dict],
) -> StripClassifier:
    rng = np.random.default_rng((SEED, len(strips)))
    model = model.to(memory_format=torch.channels_last).train()
    bfloat16 = torch.ops.mkldnn._is_mkldnn_bf16_supported()
    optimiser = torch.optim.AdamW(model.parameters(), lr=highest_rate, weight_decay=1e-2)
    wanted = torch.from_numpy(truths.astype(np.float32))
    held, batch = min(len(strips) // 10, EXAMPLES.max_held), 128
    kinds = truths[held:, 0]
    tips, tails, none = (held + np.flatnonzero(w) for w in (kinds >= 0, kinds == TAIL_END, kinds == NO_KIND))
    start, examples_seen, running = time.monotonic(), 0, []
    bar = tqdm(total=100, desc="training", unit="%")
    while (share := (time.monotonic() - start) / (60 * minutes)) < 1:
        for group in optimiser.param_groups:
            group["lr"] = rate(highest_rate, examples_seen / 6400, share)
        shares = ((tips, 7 * batch // 16), (tails, 3 * batch // 16), (none, 6 * batch // 16))
        chosen = np.concatenate([rng.choice(which, count) for which, count in shares])
        x, flipped = varied(strips[chosen].astype(np.float32), rng)
        truth = wanted[chosen].clone()
        truth[torch.from_numpy(flipped), 2:] *= -1
        shown = torch.from_numpy(x).contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bfloat16):
            out = model(shown)
        loss = loss_of(out.float(), truth)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        examples_seen += batch
        running.append(loss.item())
        if len(running) == 500:
            curve.append(
                {"examples": examples_seen, "loss": float(np.mean(running)), **held_out(model, strips, truths, held)}
            )
            bar.set_postfix(curve[-1])
            running = []
        bar.update(int(100 * share) - bar.n)
    return model


@torch.no_grad()
def held_out(model: StripClassifier, strips: np.ndarray, truths: np.ndarray, held: int) -> dict[str, float]:
    """On scenes that were not trained on: loss, and the fraction of tips lost at a false positive rate of 2 %.

    The rate is that of strips without an end, and that of tails.
    """
    model.eval()
    shown = strips[:held].astype(np.float32)
    out = torch.cat([model(torch.from_numpy(shown[a : a + 256])) for a in range(0, held, 256)])
    model.train()
    truth = torch.from_numpy(truths[:held]).float()
    kind, shift = truth[:, 0].long(), truth[:, 1]
    tip = kind >= 0

    def lost(log_odds: torch.Tensor, which: int) -> float:
        limit = torch.quantile(log_odds[kind == which], 0.98)
        return float((log_odds[tip] < limit).float().mean())

    return {
        "held_loss": float(loss_of(out, truth)),
        "held_lost": lost(out[:, 0], NO_KIND),
        "held_lost_to_tails": lost(out[:, 9], TAIL_END),
        "held_kind_right": float((out[tip, 1:5].argmax(1) == kind[tip]).float().mean()),
        "held_tip_px": float((SHIFT_SCALE_PX * out[tip, 5] - shift[tip]).abs().median()),
        "held_turn_deg": float((TURN_SCALE_DEG * out[tip, 8] - truth[tip, 3]).abs().median()),
    }


def main() -> None:
    parser = trainer_arguments(__doc__, "scenes", count=8000, views=30, minutes=25)
    parser.add_argument("--anatomy", type=Path, help="keep the views here (.npz), or read them")
    parser.add_argument("--on-from", type=Path, help="instrument-strips.onnx to go on from")
    parser.add_argument("--rate", type=float, default=2e-3, help="highest learning rate")
    parser.add_argument("--seed", type=int, default=20300000, help="of the scenes")
    parser.add_argument(
        "--also", type=Path, nargs="*", default=[], help="strips that other runs kept, to train on, too"
    )
    options = parser.parse_args()
    torch.set_num_threads(2)

    def work() -> list[tuple]:
        anatomy = backgrounds_of(options)
        return [(options.seed + k, 50, anatomy) for k in range(max(options.scenes // 50, 1))]

    parts = [kept_or_made(cache, ["strips", "truths"], examples, work) for cache in (options.cache, *options.also)]
    strips, truths = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    parts.clear()
    torch.manual_seed(SEED)
    model, before = StripClassifier(), []
    if options.on_from:
        load_weights(model, options.on_from, "")
        earlier = json.loads(options.on_from.with_suffix(".training.json").read_text())
        before = [*earlier.get("before", []), {k: v for k, v in earlier.items() if k != "before"}]
        normalised_again(model, torch.from_numpy(strips[-4096:].astype(np.float32)))
    curve: list[dict] = []
    model = train(model, strips, truths, options.minutes, options.rate, curve).eval()
    record = {
        "seed": options.seed, "strips": len(strips), "instruments": int((truths[:, 0] >= 0).sum()),
        "tails": int((truths[:, 0] == TAIL_END).sum()), "minutes": options.minutes, "curve": curve, "before": before,
    }  # fmt: skip
    print(exported(model, "instrument-strips", "strips", "judgements", strips[:STRIP_BATCH], record, options.out))


if __name__ == "__main__":
    main()
