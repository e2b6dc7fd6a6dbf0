"""Simulated exposures for everything that is trained here, and the maps that belong to them for the first network."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import TimeoutError, get_context
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from fluoronav.geometry import Camera
from fluoronav.lab.simulation.instrument_scenes import Background, Placed, SceneMaker, limb
from fluoronav.paths import shipped
from fluoronav.stream.detection.network_input import CHANNELS, DETAIL_PX, INPUT_PX, KINDS, MAP_PX, MAPS, NetworkInput
from fluoronav.stream.frame import Budget, FrameRecord
from fluoronav.stream.preprocessing.stage import AttenuationStage

_STEP = 4 / 127  # of the inputs, which are kept as whole numbers of it; their noise is larger
# Fractions: scenes in front of limbs, instruments that are hard to see in full, and examples with another scene added.
_LIMBS, HARD, _BEHIND = 0.3, 0.25, 0.25
_PHOTONS = (12.0, 160.0)  # mean detected photons a pixel of 1024
# Fractions of scenes with 0 to 3 instruments; more instruments than the simulator's default, since each is an example.
COUNTS = (0.15, 0.25, 0.3, 0.3)
_LINE_SIGMA, _TIP_SIGMA = 0.8, 1.1  # of the targets, pixels of the 128 grid
_MOST_HELD = 500  # scenes that are never trained on
_PIECE = 25  # scenes that one process makes at a time
_NAMES = ("details", "wholes", "maps", "counted")

Scenes = tuple[NDArray[np.int8], NDArray[np.int8], NDArray[np.uint8], NDArray[np.int64]]
_backgrounds: list[Background] = []  # of a process that makes scenes


def exposures(
    rng: np.random.Generator, camera: Camera, backgrounds: list[Background], limbs: float, count: int,
    hard: float = 0.0, instruments: tuple[float, ...] | None = None,
) -> Iterator[tuple[FrameRecord, tuple[Placed, ...]]]:  # fmt: skip
    """Scenes at full resolution, as the pipeline receives them, and what is in them.

    Parameters
    ----------
    rng : Generator
        May be drawn from between two of them.
    camera : Camera
    backgrounds : list of Background
    limbs, hard : float
        Fractions of scenes in front of limbs, and of instruments that are hard to see in full.
    count : int
    instruments : tuple of float, optional
        Fractions of scenes with 0, 1, 2 ... instruments; by default the simulator's.
    """
    half = camera.scaled(0.5)
    makers = [SceneMaker(camera, some, hard=hard) for some in (backgrounds, [limb(rng, half) for _ in range(8)])]
    stage = AttenuationStage()
    for _ in range(count):
        maker = makers[int(rng.random() < limbs)]
        shown = None if instruments is None else int(rng.choice(len(instruments), p=instruments))
        counts, placed, _ = maker.scene(rng, count=shown)
        yield _received(counts, camera, stage), placed


def _received(counts: NDArray[np.uint16], camera: Camera, stage: AttenuationStage) -> FrameRecord:
    """A frame as the first of a stream, with field of view, attenuation and pyramid."""
    frame = FrameRecord.of_counts(counts)
    stage.prepare(None, camera)
    stage.process(frame, Budget(1e6))
    return frame


def scenes(seed: int, count: int, backgrounds: list[Background]) -> Scenes:
    """Details (n, 512, 512) and wholes (n, 256, 256) in steps of 4 / 127, the maps that belong to them
    (n, 6, 128, 128) in 255ths, and the number of instruments of each."""
    cv2.setNumThreads(1)
    camera = Camera.load(shipped("calibration/demo-carm.yaml")).scaled(DETAIL_PX / 1024)
    rng = np.random.default_rng(seed)
    limbs = [limb(rng, camera) for _ in range(6)]
    makers = [SceneMaker(camera, some, hard=HARD) for some in (backgrounds, limbs)]
    stage = AttenuationStage()
    details, wholes = np.empty((count, DETAIL_PX, DETAIL_PX), np.int8), np.empty((count, INPUT_PX, INPUT_PX), np.int8)
    maps, counted = np.empty((count, len(MAPS), MAP_PX, MAP_PX), np.uint8), np.zeros(count, np.int64)
    one = np.empty((CHANNELS, INPUT_PX, INPUT_PX), np.float32)
    for k in range(count):
        while True:
            photons = float(np.exp(rng.uniform(*np.log(_PHOTONS))))
            counts, placed, field_mask = makers[int(rng.random() < _LIMBS)].scene(
                rng, photons, int(rng.choice(len(COUNTS), p=COUNTS))
            )
            frame = _received(counts, camera, stage)
            assert frame.full_field_mask is not None
            # Skip scenes in which a thick limb in the open beam is taken for the field edge: it hides its instruments.
            inside = (
                cv2.resize(
                    field_mask.astype(np.uint8), frame.full_field_mask.shape[::-1], interpolation=cv2.INTER_NEAREST
                )
                > 0
            )
            if frame.full_field_mask[inside].mean() > 0.93:
                break
        NetworkInput(frame.full_field_mask).write(frame.pyramid[INPUT_PX], frame.pyramid[DETAIL_PX], one)
        steps = np.rint(one / _STEP).astype(np.int8)
        details[k], wholes[k] = (
            steps[:4].reshape(2, 2, INPUT_PX, INPUT_PX).transpose(2, 0, 3, 1).reshape(DETAIL_PX, DETAIL_PX),
            steps[4],
        )
        scale = MAP_PX / DETAIL_PX
        truth = [
            (KINDS.index(p.kind), ((p.axis_px + 0.5) * scale - 0.5).astype(np.float32), not p.tip_hidden)
            for p in placed
        ]
        maps[k], counted[k] = np.rint(255 * targets(truth)), len(placed)
    return details, wholes, maps, counted


def targets(truth: list[tuple[int, np.ndarray, bool]]) -> np.ndarray:
    """Target maps, shape (6, 128, 128), of instruments: kind, axis from the tip (pixels of the grid), tip visible.

    Hidden tips are not drawn.
    """
    out = np.zeros((len(MAPS), MAP_PX, MAP_PX), np.float32)
    y, x = np.mgrid[:MAP_PX, :MAP_PX].astype(np.float32)
    for kind, uv, tip_in_sight in truth:
        fine = np.full((4 * MAP_PX, 4 * MAP_PX), 255, np.uint8)
        cv2.polylines(fine, [np.rint((uv + 0.5) * 4 - 0.5).astype(np.int32)], False, 0, 1)
        distance = (
            cv2.resize(cv2.distanceTransform(fine, cv2.DIST_L2, 3), (MAP_PX, MAP_PX), interpolation=cv2.INTER_AREA) / 4
        )
        np.maximum(out[kind], np.exp(-(distance**2) / (2 * _LINE_SIGMA**2)), out=out[kind])
        for channel, end in ((4, uv[0]), (5, uv[-1]))[0 if tip_in_sight else 1 :]:
            d2 = (x - end[0]) ** 2 + (y - end[1]) ** 2
            np.maximum(out[channel], np.exp(-d2 / (2 * _TIP_SIGMA**2)), out=out[channel])
    return out


class Examples:
    """Scenes on the training device; more can be added during the training.

    Parameters
    ----------
    room : int
        Maximum number of scenes.
    device : torch.device

    Attributes
    ----------
    held : int
        Number of scenes at the start that are held out from training.
    """

    def __init__(self, room: int, device: torch.device) -> None:
        self.held, self.device, self._count = min(room // 20, _MOST_HELD), device, 0
        self._details = torch.empty((room, 1, DETAIL_PX, DETAIL_PX), dtype=torch.int8, device=device)
        self._wholes = torch.empty((room, 1, INPUT_PX, INPUT_PX), dtype=torch.int8, device=device)
        self._maps = torch.empty((room, len(MAPS), MAP_PX, MAP_PX), dtype=torch.uint8, device=device)
        self._counted = np.zeros(room, np.int64)
        self._empty: list[int] = []

    def __len__(self) -> int:
        return self._count

    def add(self, details: np.ndarray, wholes: np.ndarray, maps: np.ndarray, counted: np.ndarray) -> None:
        """What :func:`scenes` makes."""
        a, b = self._count, self._count + len(maps)
        self._details[a:b, 0] = torch.from_numpy(details).to(self.device)
        self._wholes[a:b, 0] = torch.from_numpy(wholes).to(self.device)
        self._maps[a:b] = torch.from_numpy(maps).to(self.device)
        self._counted[a:b] = counted
        # Only scenes without a field edge are added to others: a wire that leaves the field of one would seem to end.
        whole = (counted == 0) & ((wholes != 0).mean((1, 2)) > 0.95)
        self._empty += [a + int(k) for k in np.flatnonzero(whole) if a + k >= self.held]
        self._count = b

    def save(self, path: Path) -> None:
        kept = (self._details[:, 0], self._wholes[:, 0], self._maps)
        arrays = [t[: self._count].cpu().numpy() for t in kept] + [self._counted[: self._count]]
        np.savez(path, **dict(zip(_NAMES, arrays, strict=True)))

    @classmethod
    def kept(cls, path: Path, device: torch.device) -> Examples:
        """What :meth:`save` wrote."""
        with np.load(path) as arrays:
            parts = [arrays[name] for name in _NAMES]
        examples = cls(len(parts[0]), device)
        examples.add(*parts)
        return examples

    def plain(self, rows: slice) -> tuple[torch.Tensor, torch.Tensor]:
        """Inputs without augmentation, (n, 5, 256, 256), and targets, (n, 6, 128, 128)."""
        return (
            _in_channels(self._details[rows] * _STEP, self._wholes[rows] * _STEP),
            self._maps[rows].float() / 255,
        )

    def parity_input(self) -> np.ndarray:
        """The held-out input with the most instruments, (1, 5, 256, 256), as the model's parity example."""
        k = int(self._counted[: self.held].argmax())
        return self.plain(slice(k, k + 1))[0].cpu().numpy()

    @torch.no_grad()
    def drawn(self, count: int, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """Random augmented inputs and targets: mirrored, rotated, scaled, with other contrast, some with anatomy added.

        Attenuations along a ray add up, so the sum of two inputs is an input, apart from its noise.
        """
        rows = torch.from_numpy(rng.integers(self.held, self._count, count)).to(self.device)
        theta = self._tensor(_motions(count, rng))
        detail = _moved(self._details[rows].float() * _STEP, theta)
        whole = _moved(self._wholes[rows].float() * _STEP, theta)
        wanted = _moved(self._maps[rows].float() / 255, theta)
        field_mask, whole_mask = detail.abs() > _STEP / 8, whole.abs() > _STEP / 8
        contrast = self._tensor(np.exp(rng.normal(0, 0.25, (2, count, 1, 1, 1))))
        detail, whole = detail * contrast[0], whole * contrast[1]
        behind = np.flatnonzero(rng.random(count) < _BEHIND)
        if len(self._empty) and len(behind):
            other = torch.from_numpy(rng.choice(self._empty, len(behind))).to(self.device)
            fraction = self._tensor(rng.uniform(0.2, 0.8, (len(behind), 1, 1, 1)) * _STEP)
            detail[behind] += fraction * self._details[other] * field_mask[behind]
            whole[behind] += fraction * self._wholes[other] * whole_mask[behind]
        noisy = np.flatnonzero(rng.random(count) < 0.3)
        noise = self._tensor(rng.uniform(0.04, 0.4, (len(noisy), 1, 1, 1)))
        detail[noisy] += noise * torch.randn_like(detail[noisy]) * field_mask[noisy]
        return _in_channels(detail, whole), wanted

    def _tensor(self, array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(array.astype(np.float32)).to(self.device)


def _motions(count: int, rng: np.random.Generator) -> np.ndarray:
    """Random affine maps from output to input, (n, 2, 3): mirroring, quarter turns, smaller rotations and scales."""
    more = rng.random(count) < 0.6
    turn = np.deg2rad(90 * rng.integers(4, size=count) + np.where(more, rng.uniform(-45, 45, count), 0))
    size = np.exp(np.where(more, rng.uniform(-0.2, 0.3, count), 0))
    theta = np.zeros((count, 2, 3))
    theta[:, 0, 0], theta[:, 0, 1], theta[:, 1, 0], theta[:, 1, 1] = (
        part / size for part in (np.cos(turn), -np.sin(turn), np.sin(turn), np.cos(turn))
    )
    theta[rng.random(count) < 0.5, 0] *= -1
    return theta


def _moved(pictures: torch.Tensor, theta: torch.Tensor) -> torch.Tensor:
    grid = torch.nn.functional.affine_grid(theta, list(pictures.shape), align_corners=False)
    return torch.nn.functional.grid_sample(pictures, grid, align_corners=False)


def _in_channels(detail: torch.Tensor, whole: torch.Tensor) -> torch.Tensor:
    return torch.cat([torch.nn.functional.pixel_unshuffle(detail, 2), whole], 1)


def _begin(backgrounds: list[Background]) -> None:
    _backgrounds[:] = backgrounds


def _piece(seed: int) -> Scenes:
    return scenes(seed, _PIECE, _backgrounds)


class Growing:
    """Makes scenes in other processes and adds them to the examples as they are ready.

    Parameters
    ----------
    examples : Examples
    count, seed : int
        Of the scenes.
    backgrounds : list of Background
    processes : int
    """

    def __init__(
        self, examples: Examples, count: int, seed: int, backgrounds: list[Background], processes: int
    ) -> None:
        self._examples = examples
        # Each process gets the backgrounds once. They are spawned, since a process that uses a GPU must not be forked.
        self._pool = get_context("spawn").Pool(processes, _begin, (backgrounds,))
        self._made = self._pool.imap_unordered(_piece, range(seed, seed + max(count // _PIECE, 1)))

    def __enter__(self) -> Growing:
        return self

    def __exit__(self, *error: object) -> None:
        self._pool.terminate()

    def take(self, patience_s: float = 0.0) -> bool:
        """Adds the scenes that are ready, after waiting for the first up to `patience_s`; False if none will follow."""
        try:
            while True:
                self._examples.add(*self._made.next(patience_s))
                patience_s = 0.0
        except TimeoutError:
            return True
        except StopIteration:
            return False

    def wait(self, count: int) -> None:
        """Adds scenes until there are `count`, or all."""
        with tqdm(total=count, desc="scenes", unit="scene") as bar:
            while len(self._examples) < count and self.take(1.0):
                bar.update(len(self._examples) - bar.n)


def trainer_arguments(doc: str | None, scenes: str, count: int, views: int, minutes: float) -> argparse.ArgumentParser:
    """A parser with the arguments that trainers have in common; `scenes` names the option for their number."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder that holds the real images and CTs")
    parser.add_argument("--out", type=Path, default=Path("engines"))
    parser.add_argument(f"--{scenes}", type=int, default=count)
    parser.add_argument("--views", type=int, default=views, help="views of each subject")
    parser.add_argument("--minutes", type=float, default=minutes)
    parser.add_argument("--cache", type=Path, help="keep the examples here (.npz), or read them")
    return parser


def kept_or_made(
    cache: Path | None, names: list[str], make: Callable[[tuple], tuple], work: Callable[[], list[tuple]]
) -> list[np.ndarray]:
    """Arrays from the cache, or made on two cores, one part for each piece of work, joined and cached."""
    if cache and cache.exists():
        with np.load(cache) as kept:
            return [kept[name] for name in names]
    pieces = work()
    with ProcessPoolExecutor(2) as pool:
        done = list(tqdm(pool.map(make, pieces), make.__name__, len(pieces), unit="piece"))
    arrays = [np.concatenate(parts) for parts in zip(*done, strict=True)]
    if cache:
        np.savez(cache, **dict(zip(names, arrays, strict=True)))
    return arrays
