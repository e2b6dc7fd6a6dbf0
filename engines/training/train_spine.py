"""Trains a small network that tells vertebrae and other bones apart in a CT, from label maps.

    pip install -e '.[cpu,planning,train]'
    python engines/training/train_spine.py --data ../shared/data --out out/spine --minutes 40 --threads 1

It writes `spine.onnx`, `card.yaml` and `spine.training.json`: a folder for `plan segment --engine network --model`, and
for `bench planning --only network --model`, which compares it with the atlas on patients that it has not seen. Ctrl-C
ends the training early and writes what there is.

Shapes are those of the chest CT (T1 to L2) and of two patients whose vertebrae were drawn by hand (C1 to T12, L1 to
L5); pose, deformation, HU, noise and slices are drawn at random (spine_scans.py). No patient of the bench is read.
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import time
from pathlib import Path

import numpy as np
import torch
from spine_scans import CLASSES, NOT_ASKED, SIDE, SPACING_MM, LabelMap, chest, mask_alone, piece  # beside this file
from torch import nn
from torch.nn import functional
from tqdm import tqdm
from train_instruments import rate, strip_metadata

from fluoronav.paths import write_json
from fluoronav.planning.segmentation.model_card import Card, Intensity, write_card

SEED = 20261129
HELD = 24  # pieces that are never trained on
INTENSITY = Intensity(low=-500, high=1300, mean=100, deviation=250)
# Share of the pieces; the hand-drawn masks have no CT.
SOURCES = {"chest": 0.7, "sub-verse010": 0.22, "sub-gl003": 0.08}
_MASKS = {
    "sub-verse010": "planning/masks/sub-verse010_seg-vert_msk.nii.gz",
    "sub-gl003": "planning/masks/sub-gl003_dir-ax_seg-vert_msk.nii.gz",
}
_EMA = 0.995


class SpineNetwork(nn.Module):
    """A U-Net of voxels of 2, 4, 8 and 16 mm; most of its work is at 4 mm and above."""

    def __init__(self, widths: tuple[int, int, int, int] = (8, 24, 48, 72)) -> None:
        super().__init__()
        a, b, c, d = widths
        self.first = conv(1, a)
        self.second = nn.Sequential(conv(a, b, 2), conv(b, b))
        self.third = nn.Sequential(conv(b, c, 2), conv(c, c))
        self.fourth = nn.Sequential(conv(c, d, 2), conv(d, d))
        self.up_third, self.up_second = conv(d + c, c), conv(c + b, b)
        self.narrow = nn.Conv3d(b, 2 * a, 1)
        self.up_first = conv(3 * a, 2 * a)
        self.head = nn.Conv3d(2 * a, len(CLASSES), 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first = self.first(x)
        second = self.second(first)
        third = self.third(second)
        x = self.up_third(torch.cat([doubled(self.fourth(third)), third], 1))
        x = self.up_second(torch.cat([doubled(x), second], 1))
        return self.head(self.up_first(torch.cat([doubled(self.narrow(x)), first], 1)))


def conv(a: int, b: int, stride: int = 1) -> nn.Module:
    return nn.Sequential(
        nn.Conv3d(a, b, 3, stride, 1, bias=False), nn.InstanceNorm3d(b, affine=True), nn.LeakyReLU(0.01)
    )


def doubled(x: torch.Tensor) -> torch.Tensor:
    return functional.interpolate(x, scale_factor=2.0, mode="nearest")


def normalised(hu: torch.Tensor) -> torch.Tensor:
    """As `planning/segmentation/network.py` does it; outside the scan it pads with zeros."""
    out = (hu.clamp(INTENSITY.low, INTENSITY.high) - INTENSITY.mean) / INTENSITY.deviation
    return out.nan_to_num(0.0)


def loss_of(logits: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
    """Cross-entropy and soft Dice of the classes that are there, as nnU-Net's."""
    classes = classes.long()
    ce = functional.cross_entropy(logits, classes, ignore_index=NOT_ASKED)
    asked = (classes != NOT_ASKED).float()
    p = logits.softmax(1) * asked[:, None]
    losses = []
    for k in range(1, len(CLASSES)):
        truth = (classes == k).float()
        if truth.sum() > 50:
            losses.append(1 - (2 * (p[:, k] * truth).sum() + 1) / (p[:, k].sum() + truth.sum() + 1))
    return ce + (torch.stack(losses).mean() if losses else 0.0)


@torch.no_grad()
def held_dice(model: nn.Module, pieces: list[tuple[torch.Tensor, torch.Tensor]]) -> dict[str, float]:
    """Dice of each class over all held-out pieces together."""
    sums = np.zeros((len(CLASSES), 2))
    for hu, classes in pieces:
        found = model(normalised(hu)).argmax(1)
        found[classes == NOT_ASKED] = NOT_ASKED
        for k in range(1, len(CLASSES)):
            a, b = found == k, classes == k
            sums[k] += [2 * float((a & b).sum()), float(a.sum() + b.sum())]
    return {f"held_dice_{CLASSES[k]}": round(float(sums[k][0] / max(sums[k][1], 1)), 4) for k in range(1, len(CLASSES))}


def drawn(sources: dict[str, LabelMap], rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """A piece of one of the sources, of which a part is in the scan; with the axes of a batch."""
    names = list(sources)
    shares = np.array([SOURCES[n] for n in names])
    while True:
        hu, classes = piece(sources[names[rng.choice(len(names), p=shares / shares.sum())]], rng)
        if (classes != NOT_ASKED).mean() > 0.1:
            return torch.from_numpy(hu)[None, None], torch.from_numpy(classes)[None]


def train(sources: dict[str, LabelMap], options: argparse.Namespace, curve: list[dict]) -> nn.Module:
    torch.manual_seed(SEED)
    model = SpineNetwork()
    if options.on_from:
        model.load_state_dict(torch.load(options.on_from))
    model = model.to(memory_format=torch.channels_last_3d)
    mean = copy.deepcopy(model).eval()
    optimiser = torch.optim.AdamW(model.parameters(), lr=options.rate, weight_decay=1e-3)
    bfloat16 = torch.ops.mkldnn._is_mkldnn_bf16_supported()
    held_rng, rng = np.random.default_rng(SEED), np.random.default_rng(SEED + 1)
    held = [drawn(sources, held_rng) for _ in range(HELD)]
    start, steps, running = time.monotonic(), 0, []
    bar = tqdm(total=100, desc="training", unit="%", mininterval=10)
    try:
        while (fraction := (time.monotonic() - start) / (60 * options.minutes)) < 1:
            for group in optimiser.param_groups:
                group["lr"] = rate(options.rate, steps / 100, fraction)
            pairs = [drawn(sources, rng) for _ in range(options.batch)]
            hu, classes = (torch.cat(parts) for parts in zip(*pairs, strict=True))
            x = normalised(hu).contiguous(memory_format=torch.channels_last_3d)
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bfloat16):
                logits = model(x)
            loss = loss_of(logits.float(), classes)
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 5.0)
            optimiser.step()
            steps += 1
            keep = min(_EMA, steps / (steps + 20))
            with torch.no_grad():
                for a, b in zip(mean.parameters(), model.parameters(), strict=True):
                    a.lerp_(b, 1 - keep)
            running.append(loss.item())
            if len(running) == 100:
                seconds = round(time.monotonic() - start)
                curve.append({"steps": steps, "seconds": seconds, "loss": round(float(np.mean(running)), 4)})
                running = []
                if steps % 300 == 0:
                    curve[-1] |= held_dice(mean, held)
                bar.set_postfix(curve[-1])
                write_json({"curve": curve}, options.out / "spine.training.json")
                torch.save(mean.state_dict(), options.out / "spine.checkpoint.pt")
            bar.update(int(100 * fraction) - bar.n)
    except KeyboardInterrupt:
        print("ended early")
    curve.append({"steps": steps, **held_dice(mean, held)})
    return mean


def exported(model: nn.Module, folder: Path, curve: list[dict], options: argparse.Namespace) -> Card:
    """Writes the network, its card, and the record of its training."""
    path = folder / "spine.onnx"
    model = model.eval().to(memory_format=torch.contiguous_format)
    x = torch.zeros(1, 1, SIDE, SIDE, SIDE)
    torch.onnx.export(model, (x,), path, input_names=["ct"], output_names=["logits"], dynamo=True, external_data=False)
    strip_metadata(path)
    card = Card(
        name="spine", version="1", file=path.name, sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        licence="CC BY-SA 4.0",
        origin="trained by engines/training/train_spine.py on scans made from label maps: chest CT of LIDC-IDRI (CC BY "
        "3.0; labels by TotalSegmentator), masks sub-verse010 and sub-gl003 of VerSe (CC BY-SA 4.0; drawn by hand)",
        intended_use="the extent of vertebrae and of other bones, drafts that a person reviews; it tells no levels",
        orientation="LPS", spacing_mm=(SPACING_MM,) * 3, patch=(SIDE,) * 3, intensity=INTENSITY,
        labels={"vertebrae": 1, "bones": 2}, mirror_axes=(2,),
    )  # fmt: skip
    write_card(card, folder)
    record = {
        "model": path.name, "sha256": card.sha256, "weights": sum(p.numel() for p in model.parameters()),
        "torch": torch.__version__, "seed": SEED, "minutes": options.minutes, "threads": options.threads,
        "batch": options.batch, "rate": options.rate, "curve": curve,
    }  # fmt: skip
    write_json(record, folder / "spine.training.json")
    return card


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder that holds chest/ and planning/masks/")
    parser.add_argument("--out", type=Path, default=Path("out/spine"))
    parser.add_argument("--minutes", type=float, default=40)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch", type=int, default=2, help="pieces in a step")
    parser.add_argument("--rate", type=float, default=3e-3, help="highest learning rate")
    parser.add_argument("--on-from", type=Path, help="spine.checkpoint.pt to go on from")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(options.threads)
    sources = {"chest": chest(options.data)}
    for name, path in _MASKS.items():
        if (options.data / path).exists():
            sources[name] = mask_alone(options.data / path)
    curve: list[dict] = []
    model = train(sources, options, curve)
    card = exported(model, options.out, curve, options)
    print(f"{options.out / card.file}: {(options.out / card.file).stat().st_size} bytes, {curve[-1]}")


if __name__ == "__main__":
    main()
