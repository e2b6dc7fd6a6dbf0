"""Trains the denoiser of the display's picture and writes engines/denoiser.onnx.

    python engines/training/train_denoiser.py --data ../shared/data --out engines

The inputs are simulated exposures at 8 to 100 photons a pixel with moving instruments, after the temporal filter; the
targets are the exposures without noise. Real X-rays have no target without noise. Their photons are split at random
into two independent exposures of one scene, and one is predicted from the other. The thorax of the embedded case and
two of the real X-rays are left out: `bench enhancement` measures on them. Everything is seeded; the curve is in
denoiser.training.json. DATA holds chest/, knee/ and wrist/.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import torch
from examples import kept_or_made, trainer_arguments  # beside this file
from torch import nn
from tqdm import tqdm
from train_instruments import backgrounds, exported, rate

from fluoronav.geometry import Camera
from fluoronav.imaging.xray.denoiser import SIDE
from fluoronav.imaging.xray.file import read_xray
from fluoronav.imaging.xray.noise import NoiseModel
from fluoronav.imaging.xray.temporal_filter import TemporalFilter
from fluoronav.lab.simulation.instrument_scenes import Background, SceneMaker, limb
from fluoronav.paths import shipped

SEED = 20261129
SUBJECTS = ("T5", "T8", "ribs")
CROP, _CROPS, _FRAMES, _FIRST = 256, 5, 7, 2
_PHOTONS = (8.0, 100.0)
_LIMBS, _REAL = 0.4, 0.25  # fractions of scenes in front of limbs, and of real X-rays in a batch
_REAL_FILES = ("knee/frame0138_cam2.tif", "knee/frame0180_cam1.tif", "knee/frame0180_cam2.tif",
         "wrist/frame0099_cam2.tif", "wrist/frame0158_cam1.tif", "wrist/frame0158_cam2.tif")  # fmt: skip


class Denoiser(nn.Module):
    """Noise of a frame, by a U-Net of 256, 128 and 64 pixels on a frame of 1024; its pixels are blocks of 4 by 4.

    Its input is the difference from a smoothed frame, so that it cannot change the brightness of large areas.
    """

    def __init__(self, widths: tuple[int, int, int] = (24, 32, 48)) -> None:
        super().__init__()
        a, b, c = widths
        self.stem, self.first = conv(17, a), conv(a, a)
        self.down, self.second = conv(a, b, 2), conv(b, b)
        self.further, self.third, self.fourth = conv(b, c, 2), conv(c, c), conv(c, c)
        self.to_second, self.to_first = nn.Conv2d(c, b, 1), nn.Conv2d(b, a, 1)
        self.up, self.last = conv(b, b), conv(a, a)
        self.head = nn.Conv2d(a, 16, 3, padding=1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        frame, worth = x[:, :1], x[:, 1:]
        smooth = nn.functional.interpolate(nn.functional.avg_pool2d(frame, 16), scale_factor=16.0, mode="bilinear")
        sigma = torch.rsqrt(nn.functional.avg_pool2d(worth, 4).clamp(min=1.0))
        full = self.first(self.stem(torch.cat([nn.functional.pixel_unshuffle(0.25 * (frame - smooth), 4), sigma], 1)))
        half = self.second(self.down(full))
        quarter = self.fourth(self.third(self.further(half)))
        half = self.up(half + doubled(self.to_second(quarter)))
        full = self.last(full + doubled(self.to_first(half)))
        return frame + 4.0 * nn.functional.pixel_shuffle(self.head(full), 4)


def conv(a: int, b: int, stride: int = 1) -> nn.Module:
    return nn.Sequential(nn.Conv2d(a, b, 3, stride, 1), nn.ReLU())


def doubled(x: torch.Tensor) -> torch.Tensor:
    return nn.functional.interpolate(x, scale_factor=2.0, mode="nearest")


def sequences(args: tuple[int, int, list[Background]]) -> tuple[np.ndarray]:
    """Crops (n, 3, 256, 256) as float16: temporally filtered, equivalent number of frames, noise-free; mean removed."""
    seed, count, of_chest = args
    cv2.setNumThreads(1)
    rng = np.random.default_rng(seed)
    camera = Camera.load(shipped("calibration/demo-carm.yaml"))
    half = camera.scaled(0.5)
    makers = [SceneMaker(camera, of_chest), SceneMaker(camera, [limb(rng, half) for _ in range(6)])]
    out = []
    for _ in range(count):
        photons = float(np.exp(rng.uniform(*np.log(_PHOTONS))))
        temporal = TemporalFilter(camera.rows, camera.cols)
        for k, (chain, beam, _) in enumerate(makers[int(rng.random() < _LIMBS)].beams(rng, _FRAMES, photons)):
            s = chain.settings
            full = 2**s.bits - 1
            dark, per_photon = s.offset_fraction * full, full * (1 - s.offset_fraction) / (s.headroom * s.photons)
            shown = temporal(chain.counts(beam, int(rng.integers(30000))), dark, chain.field_mask)
            if k < _FIRST or temporal.model is None:
                continue
            clean = temporal.model.stabilised(
                dark + per_photon * np.minimum(chain.exposure(beam)[0], s.headroom * s.photons)
            )
            out += crops(rng, (shown, temporal.worth, clean), chain.field_mask)
    return (np.array(out, np.float16),)


def crops(rng: np.random.Generator, pictures: tuple[np.ndarray, ...], field_mask: np.ndarray) -> Iterator[np.ndarray]:
    """Crops of some pictures, at least 60 % of them inside the field of view."""
    rows, cols = pictures[0].shape
    for _ in range(_CROPS):
        y, x = (4 * int(rng.integers((n - CROP) // 4 + 1)) for n in (rows, cols))
        here = (slice(y, y + CROP), slice(x, x + CROP))
        if field_mask[here].mean() < 0.6:
            continue
        piece = np.stack([p[here] for p in pictures]).astype(np.float32)
        # float16 has eleven bits. The mean is removed; the network does not use it.
        piece[::2] -= piece[2].mean()
        yield piece


def real_photons(data: Path) -> list[np.ndarray]:
    """Real X-rays as photon counts, integers (rows, cols), by a gain estimated from their noise."""
    out = []
    for name in _REAL_FILES:
        if not (data / name).exists():
            continue
        beam = np.exp(-read_xray(data / name, with_camera=True).attenuation).astype(np.float64)
        # Noise variance by brightness, from a filter that flat areas and ramps do not excite (Immerkaer, Computer
        # Vision and Image Understanding 64:300, 1996).
        mask = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float64) / 6
        answer = np.abs(cv2.filter2D(beam, cv2.CV_64F, mask))[8:-8:2, 8:-8:2].ravel()
        level = cv2.GaussianBlur(beam, (0, 0), 3)[8:-8:2, 8:-8:2].ravel()
        bright = level > np.quantile(level, 0.3)
        gain = float(np.median((answer[bright] / 0.6745) ** 2 / level[bright]))
        out.append(np.rint(beam / max(gain, 1e-6)).astype(np.int64))
        print(f"{name}: about {np.median(out[-1]):.0f} photons a pixel")
    return out


def split(photons: list[np.ndarray], rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Input (2, 256, 256) and target (256, 256): two independent exposures of one scene, from one real X-ray.

    Random splitting of Poisson counts gives two independent Poisson counts.
    """
    whole = photons[int(rng.integers(len(photons)))]
    y, x = (int(rng.integers(n - CROP + 1)) for n in whole.shape)
    piece = whole[y : y + CROP, x : x + CROP]
    wanted = float(np.exp(rng.uniform(*np.log(_PHOTONS))))
    fraction = float(np.clip(wanted / max(piece.mean(), 1.0), 0.02, 0.6))
    first = rng.binomial(piece, fraction)
    second = (piece - first) * (fraction / (1 - fraction))
    model = NoiseModel(1.0, 0.0, 0.0)
    frames = float(rng.choice([1.0, 2.0, 4.0, 5.5]))  # as if it were the mean of so many
    a, b = (model.stabilised(p) / np.sqrt(frames) for p in (first, second))
    level = b.mean()
    return np.stack([a - level, np.full(a.shape, frames)]).astype(np.float32), (b - level).astype(np.float32)


def turned(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    x = np.rot90(x, int(rng.integers(4)), (-2, -1))
    return x[..., ::-1] if rng.random() < 0.5 else x


def train(pieces: np.ndarray, photons: list[np.ndarray], minutes: float, curve: list[dict]) -> Denoiser:
    torch.manual_seed(SEED)
    rng, model = np.random.default_rng(SEED), Denoiser().to(memory_format=torch.channels_last)
    optimiser = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=1e-4)
    held, batch = max(len(pieces) // 20, 16), 8
    start, examples_seen, running = time.monotonic(), 0, []
    bar = tqdm(total=100, desc="training", unit="%")
    while (fraction := (time.monotonic() - start) / (60 * minutes)) < 1:
        for group in optimiser.param_groups:
            group["lr"] = rate(2e-3, examples_seen / 2000, fraction)
        x, y = np.empty((batch, 2, CROP, CROP), np.float32), np.empty((batch, 1, CROP, CROP), np.float32)
        real = np.zeros(batch, bool)
        for k in range(batch):
            real[k] = bool(photons) and rng.random() < _REAL
            if real[k]:
                given, wanted = split(photons, rng)
            else:
                given, wanted = np.split(pieces[rng.integers(held, len(pieces))].astype(np.float32), [2])
            both = turned(np.concatenate([given, wanted.reshape(1, CROP, CROP)]), rng)
            x[k], y[k] = both[:2], both[2:]
        off = model(torch.from_numpy(x)) - torch.from_numpy(y)
        is_real = torch.from_numpy(real)
        # With noisy targets, only the squared error has its minimum at the truth.
        loss = (off[~is_real].abs().mean() if (~is_real).any() else 0.0) + 0.1 * (
            (off[is_real] ** 2).mean() if is_real.any() else 0.0
        )
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        examples_seen += batch
        running.append(float(loss))
        if len(running) == 100:
            curve.append({"examples": examples_seen, "loss": float(np.mean(running)), **held_out(model, pieces[:held])})
            bar.set_postfix(curve[-1])
            running = []
        bar.update(int(100 * fraction) - bar.n)
    return model


@torch.no_grad()
def held_out(model: Denoiser, pieces: np.ndarray) -> dict[str, float]:
    """Error on simulated exposures that were not trained on, in standard deviations of a frame's noise."""
    some = torch.from_numpy(pieces[:64].astype(np.float32))
    off = model(some[:, :2]) - some[:, 2:]
    before = some[:, :1] - some[:, 2:]
    rms, rms_before = (float((x**2).mean().sqrt()) for x in (off, before))
    return {"held_loss": float(off.abs().mean()), "held_rms": rms, "held_rms_before": rms_before}


def main() -> None:
    options = trainer_arguments(__doc__, "sequences", count=240, views=10, minutes=20).parse_args()
    torch.set_num_threads(2)

    def work() -> list[tuple]:
        anatomy = backgrounds(options.data, options.views, SUBJECTS)
        return [(SEED + k, 8, anatomy) for k in range(max(options.sequences // 8, 1))]

    (pieces,) = kept_or_made(options.cache, ["pieces"], sequences, work)
    photons, curve = real_photons(options.data), []
    model = train(pieces, photons, options.minutes, curve).eval()
    example = np.zeros((1, 2, SIDE, SIDE), np.float32)
    example[0, :, :CROP, :CROP] = pieces[0, :2]
    record = {"seed": SEED, "pieces": len(pieces), "real": len(photons), "minutes": options.minutes, "curve": curve}
    print(exported(model, "denoiser", "frame", "denoised", example, record, options.out))


if __name__ == "__main__":
    main()
