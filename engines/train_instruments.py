"""Trains the instrument detector on simulated exposures and writes engines/instruments.onnx with its model card.

    pip install -e '.[cpu,train]'
    python engines/train_instruments.py --data ../shared/data --out engines

Anatomy: the embedded case and, where DATA has the full chest CT, T5 and the left ribs. `bench instruments` uses T11 and
other shapes. Everything is seeded; the curve is in instruments.training.json.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from concurrent.futures import ProcessPoolExecutor
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from fluoronav.bench.subjects import load_subject, view_poses
from fluoronav.enhancement import AttenuationStage
from fluoronav.geometry import Camera
from fluoronav.instruments.network_input import GRID, KINDS, MAPS, SIDE, network_input
from fluoronav.paths import shipped, write_json
from fluoronav.records import Budget, FrameRecord
from fluoronav.simulation.instrument_scenes import Background, SceneMaker
from fluoronav.simulation.sequence import Anatomy

SEED = 20261125
SUBJECTS = ("embedded", "T5", "ribs")
_CAMERA_SIDE = 512
_LINE_SIGMA, _TIP_SIGMA = 0.8, 1.1  # of the targets, pixels of the 128 grid


class Detector(nn.Module):
    """A U-Net of 128, 64, 32, 16 and 8 pixels on an input of 256, which its first layer halves."""

    def __init__(self, widths: tuple[int, ...] = (16, 24, 40, 64, 96)) -> None:
        super().__init__()
        self.stem = block(2, widths[0], 5, 2)
        self.down = nn.ModuleList(nn.Sequential(block(a, b, 3, 2), block(b, b, 3, 1)) for a, b in pairwise(widths))
        self.first = block(widths[0], widths[0], 3, 1)
        backwards = widths[::-1]
        self.up = nn.ModuleList(nn.Sequential(block(a + b, b, 3, 1)) for a, b in pairwise(backwards))
        self.head = nn.Conv2d(widths[0], len(MAPS), 3, padding=1)
        nn.init.constant_(self.head.bias, -3.0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(self.stem(x))
        kept = [x]
        for down in self.down:
            x = down(x)
            kept.append(x)
        kept.pop()
        for up in self.up:
            x = nn.functional.interpolate(x, scale_factor=2.0, mode="nearest")
            x = up(torch.cat([x, kept.pop()], 1))
        return self.head(x)


def block(a: int, b: int, size: int, stride: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(a, b, size, stride, size // 2, bias=False), nn.BatchNorm2d(b), nn.ReLU())


def scenes(args: tuple[int, int, list[Background]]) -> tuple[np.ndarray, list]:
    """Inputs (n, 2, 256, 256) as float16, and for each its instruments: (kind, axis in pixels of the grid)."""
    seed, count, backgrounds = args
    cv2.setNumThreads(1)
    camera = Camera.load(shipped("calibration/demo-carm.yaml")).scaled(_CAMERA_SIDE / 1024)
    maker, rng = SceneMaker(camera, backgrounds), np.random.default_rng(seed)
    stage = AttenuationStage()
    inputs, truths = np.empty((count, 2, SIDE, SIDE), np.float16), []
    one = np.empty((2, SIDE, SIDE), np.float32)
    for k in range(count):
        counts, placed, _ = maker.scene(rng)
        stage.prepare(None, camera)
        frame = FrameRecord(0, 0, 0, counts, 16, False, None)
        stage.process(frame, Budget(1e6))
        assert frame.seen is not None
        network_input(frame.pyramid[SIDE], frame.seen, one)
        inputs[k] = one
        scale = GRID / _CAMERA_SIDE
        truths.append([(KINDS.index(p.kind), ((p.axis_px + 0.5) * scale - 0.5).astype(np.float32)) for p in placed])
    return inputs, truths


def backgrounds(data: Path, count: int) -> list[Background]:
    half = Camera.load(shipped("calibration/demo-carm.yaml")).scaled(0.25)
    out = []
    for name in SUBJECTS:
        if name != "embedded" and not (data / "chest").is_dir():
            continue
        case = load_subject(name, 1, data).case
        anatomy = Anatomy(case, half)
        for T in tqdm(view_poses(case, count, SEED), f"anatomy: {name}", unit="view"):
            water, bone = anatomy.paths(T)
            out.append(Background(water.astype(np.float16), bone.astype(np.float16)))
    return out


def targets(truth: list, flip: bool, turns: int) -> np.ndarray:
    """The maps, shape (6, 128, 128), for a scene that is mirrored and turned by quarters."""
    out = np.zeros((len(MAPS), GRID, GRID), np.float32)
    y, x = np.mgrid[:GRID, :GRID].astype(np.float32)
    for kind, axis in truth:
        uv = axis.copy()
        if flip:
            uv[:, 0] = GRID - 1 - uv[:, 0]
        for _ in range(turns):  # as np.rot90
            uv = np.stack([uv[:, 1], GRID - 1 - uv[:, 0]], axis=1)
        fine = np.full((4 * GRID, 4 * GRID), 255, np.uint8)
        cv2.polylines(fine, [np.rint((uv + 0.5) * 4 - 0.5).astype(np.int32)], False, 0, 1)
        distance = (
            cv2.resize(cv2.distanceTransform(fine, cv2.DIST_L2, 3), (GRID, GRID), interpolation=cv2.INTER_AREA) / 4
        )
        np.maximum(out[kind], np.exp(-(distance**2) / (2 * _LINE_SIGMA**2)), out=out[kind])
        for channel, end in ((4, uv[0]), (5, uv[-1])):
            d2 = (x - end[0]) ** 2 + (y - end[1]) ** 2
            np.maximum(out[channel], np.exp(-d2 / (2 * _TIP_SIGMA**2)), out=out[channel])
    return out


def loss_of(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Focal loss on soft targets (CornerNet's, Law and Deng 2018), tips and tails weighing more than lines."""
    p = torch.sigmoid(logits)
    ce = nn.functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
    focal = ce * (p - target).abs() ** 2
    weight = torch.tensor([1.0, 1, 1, 1, 6, 2]).view(1, -1, 1, 1)
    return (focal * weight).sum((1, 2, 3)).mean() / 100


def train(inputs: np.ndarray, truths: list, minutes: float, curve: list[dict]) -> Detector:
    torch.manual_seed(SEED)
    rng = np.random.default_rng(SEED)
    # bfloat16 and channels last: three times the steps on the same two cores.
    model = Detector().to(memory_format=torch.channels_last)
    optimiser = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=1e-3)
    held, batch = max(len(inputs) // 20, 16), 16
    start, seen, running = time.monotonic(), 0, []
    bar = tqdm(total=100, desc="training", unit="%")
    while (share := (time.monotonic() - start) / (60 * minutes)) < 1:
        for group in optimiser.param_groups:
            group["lr"] = 2e-3 * min(1.0, seen / 4000 + 0.05) * 0.5 * (1 + np.cos(np.pi * share))
        chosen = rng.integers(held, len(inputs), batch)
        x, y = np.empty((batch, 2, SIDE, SIDE), np.float32), np.empty((batch, len(MAPS), GRID, GRID), np.float32)
        for k, i in enumerate(chosen):
            flip, turns = bool(rng.integers(2)), int(rng.integers(4))
            image = inputs[i][:, :, ::-1] if flip else inputs[i]
            gain = np.array([np.exp(rng.normal(0, 0.25)), np.exp(rng.normal(0, 0.25))], np.float32)[:, None, None]
            x[k] = np.rot90(image, turns, (1, 2)).astype(np.float32) * gain
            y[k] = targets(truths[i], flip, turns)
        frames = torch.from_numpy(x).contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = model(frames)
        loss = loss_of(logits.float(), torch.from_numpy(y))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        seen += batch
        running.append(loss.item())
        if len(running) == 100:
            curve.append(
                {"examples": seen, "loss": float(np.mean(running)), "held_loss": held_loss(model, inputs, truths, held)}
            )
            bar.set_postfix(loss=curve[-1]["loss"], held=curve[-1]["held_loss"])
            running = []
        bar.update(int(100 * share) - bar.n)
    return model


@torch.no_grad()
def held_loss(model: Detector, inputs: np.ndarray, truths: list, held: int) -> float:
    model.eval()
    out = []
    for a in range(0, min(held, 128), 16):
        y = np.stack([targets(t, False, 0) for t in truths[a : a + 16]])
        out.append(loss_of(model(torch.from_numpy(inputs[a : a + 16].astype(np.float32))), torch.from_numpy(y)).item())
    model.train()
    return float(np.mean(out))


class Probabilities(nn.Module):
    def __init__(self, model: Detector) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(self.model(x))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder that may hold chest/")
    parser.add_argument("--out", type=Path, default=Path("engines"))
    parser.add_argument("--scenes", type=int, default=8000)
    parser.add_argument("--views", type=int, default=24, help="views of each subject")
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--cache", type=Path, help="keep the scenes here (.npz), or read them")
    options = parser.parse_args()
    torch.set_num_threads(2)
    if options.cache and options.cache.exists():
        kept = np.load(options.cache, allow_pickle=True)
        inputs, truths = kept["inputs"], list(kept["truths"])
    else:
        anatomy = backgrounds(options.data, options.views)
        work = [(SEED + k, 100, anatomy) for k in range(max(options.scenes // 100, 1))]
        with ProcessPoolExecutor(2) as pool:
            done = list(tqdm(pool.map(scenes, work), "scenes", len(work), unit="hundred"))
        inputs, truths = np.concatenate([d[0] for d in done]), [t for d in done for t in d[1]]
        if options.cache:
            boxed = np.empty(len(truths), object)
            boxed[:] = truths
            np.savez(options.cache, inputs=inputs, truths=boxed)
    curve: list[dict] = []
    model = train(inputs, truths, options.minutes, curve).eval()
    path = options.out / "instruments.onnx"
    example = torch.zeros(1, 2, SIDE, SIDE)
    program = Probabilities(model).eval()
    torch.onnx.export(
        program, (example,), path, input_names=["frame"], output_names=["maps"], dynamo=True, external_data=False
    )
    weights = sum(p.numel() for p in model.parameters())
    x = torch.from_numpy(inputs[:1].astype(np.float32))
    np.savez_compressed(
        options.out / "instruments.parity.npz",
        frame=x.numpy().astype(np.float16),
        maps=program(x.half().float()).detach().numpy(),
    )
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    shapes = {"inputs": {"frame": [1, 2, SIDE, SIDE]}, "outputs": {"maps": [1, len(MAPS), GRID, GRID]}}
    write_json({path.name: {"sha256": sha256, **shapes}}, options.out / "manifest.json")
    write_json(
        {
            "model": path.name,
            "sha256": sha256,
            "weights": weights,
            "seed": SEED,
            "scenes": len(inputs),
            "minutes": options.minutes,
            "torch": torch.__version__,
            "curve": curve,
        },
        options.out / "instruments.training.json",
    )
    print(json.dumps({"weights": weights, "bytes": path.stat().st_size, **curve[-1]} if curve else {}))


if __name__ == "__main__":
    main()
