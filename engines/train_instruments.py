"""Trains the instrument detector on simulated exposures and writes engines/instruments.onnx with its model card.

    pip install -e '.[cpu,train]'
    python engines/train_instruments.py --data ../shared/data --out engines

and on from there, on other scenes, at a lower rate:

    python engines/train_instruments.py --data ../shared/data --out engines --on-from engines/instruments.onnx \\
        --rate 8e-4 --seed 20270000 --scenes 14000 --minutes 45

On a GPU (an H100 is shown as many examples in three minutes as two cores in two hours):
    ... --device cuda --batch 64 --processes 16

Anatomy: the embedded case and, where DATA has the full chest CT, T5, T8 and the left ribs; and limbs made of simple
bodies. `bench instruments` uses T11, other shapes and real X-rays. Everything is seeded; the curve is in
instruments.training.json.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, fields
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import nn
from tqdm import tqdm

from fluoronav.bench.subjects import load_subject, view_poses
from fluoronav.enhancement import AttenuationStage
from fluoronav.enhancement.attenuation import write_attenuation
from fluoronav.geometry import Camera
from fluoronav.instruments.network_input import CHANNELS, FINE, GRID, KINDS, MAPS, SIDE, Field, in_channels
from fluoronav.paths import shipped, write_json
from fluoronav.records import Budget, FrameRecord
from fluoronav.simulation.instrument_scenes import Background, SceneMaker, limb
from fluoronav.simulation.sequence import Anatomy

SEED = 20261125
SUBJECTS = ("embedded", "T5", "T8", "ribs")
_CAMERA_SIDE = FINE
_STEP = 4 / 127  # of the inputs, which are kept as whole numbers of it; their noise is larger
_LIMBS, _BEHIND = 0.3, 0.25  # shares of scenes in front of limbs, and of examples with another scene behind them
_PHOTONS = (12.0, 160.0)  # mean detected photons a pixel of 1024
# Of scenes with 0 to 3 instruments: more of them than the simulator shows by itself, since each is something to learn.
COUNTS = (0.15, 0.25, 0.3, 0.3)
DEEP_FROM = 40  # channels of the levels with residual convolutions
_LINE_SIGMA, _TIP_SIGMA = 0.8, 1.1  # of the targets, pixels of the 128 grid


class Detector(nn.Module):
    """A U-Net of 128, 64, 32, 16 and 8 pixels on an input of 256 (five channels), which its first layer halves."""

    def __init__(self, widths: tuple[int, ...] = (16, 24, 40, 64, 96)) -> None:
        super().__init__()
        self.stem = block(CHANNELS, widths[0], 5, 2)
        self.down = nn.ModuleList(nn.Sequential(block(a, b, 3, 2), block(b, b, 3, 1)) for a, b in pairwise(widths))
        # Where a pixel is cheap and sees far: 32 pixels and below.
        self.deep = nn.ModuleList(Residual(b) if b >= DEEP_FROM else nn.Identity() for b in widths[1:])
        self.first = block(widths[0], widths[0], 3, 1)
        backwards = widths[::-1]
        self.up = nn.ModuleList(nn.Sequential(block(a + b, b, 3, 1)) for a, b in pairwise(backwards))
        self.head = nn.Conv2d(widths[0], len(MAPS), 3, padding=1)
        nn.init.constant_(self.head.bias, -3.0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(self.stem(x))
        kept = [x]
        for down, deep in zip(self.down, self.deep, strict=True):
            x = deep(down(x))
            kept.append(x)
        kept.pop()
        for up in self.up:
            x = nn.functional.interpolate(x, scale_factor=2.0, mode="nearest")
            x = up(torch.cat([x, kept.pop()], 1))
        return self.head(x)


class Residual(nn.Module):
    """Two convolutions beside what they are given; at first they add nothing."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = block(width, width, 3, 1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        nn.init.zeros_(self.second.weight)
        nn.init.zeros_(self.second.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(x + self.second(self.first(x)))


def block(a: int, b: int, size: int, stride: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(a, b, size, stride, size // 2, bias=False), nn.BatchNorm2d(b), nn.ReLU())


def load_weights(model: nn.Module, path: Path, prefix: str = "model.") -> None:
    """Takes the weights of an exported model; its normalisations are in its convolutions already, and stay there.

    `prefix` is what the exporter put before the names of the model's parts. Residuals that the file does not have yet
    stay as they are: they add nothing.
    """
    kept = {i.name: numpy_helper.to_array(i) for i in onnx.load(path).graph.initializer}
    for name, layer in list(model.named_modules()):
        in_a_block = isinstance(layer, nn.Sequential) and len(layer) == 3 and isinstance(layer[1], nn.BatchNorm2d)
        if in_a_block and f"{prefix}{name}.0.weight" in kept:
            layer[1], layer[0].bias = nn.Identity(), nn.Parameter(torch.zeros(layer[0].out_channels))
    for name, layer in model.named_modules():
        if not isinstance(layer, nn.Conv2d):
            continue
        weight = kept.get(f"{prefix}{name}.weight")
        if weight is None:
            assert name.startswith("deep."), name  # a model from before there were any
            continue
        layer.weight.data = torch.from_numpy(weight.copy())
        # The exporter names it so when it comes out of a normalisation, and plainly the second time.
        bias = kept.get(f"{prefix}{name}.weight_bias", kept.get(f"{prefix}{name}.bias"))
        assert bias is not None and layer.bias is not None, name
        layer.bias.data = torch.from_numpy(bias.copy())


def averaged(*paths: Path) -> Detector:
    """The mean of the weights of models that went on one from the other: better than each (Izmailov et al. 2018)."""
    states = []
    for path in paths:
        model = Detector()
        load_weights(model, path)
        states.append(model.state_dict())
    model.load_state_dict({name: sum(s[name] for s in states) / len(states) for name in states[0]})
    return model


def normalised_again(model: nn.Module, frames: torch.Tensor) -> None:
    """Puts normalisations back where :func:`load_weights` found them in the convolutions, with what leaves the answer
    to these frames as it was: training needs them."""

    def match(norm: nn.BatchNorm2d, given: tuple[torch.Tensor]) -> None:
        var, mean = torch.var_mean(given[0].detach(), (0, 2, 3), correction=0)
        norm.weight.data = torch.sqrt(var + norm.eps)
        norm.bias.data += mean
        norm.running_mean, norm.running_var = mean, var

    hooks = []
    for layer in model.modules():
        if isinstance(layer, nn.Sequential) and len(layer) == 3 and isinstance(layer[1], nn.Identity):
            conv = layer[0]
            layer[1] = nn.BatchNorm2d(conv.out_channels)
            layer[1].bias.data, conv.bias = conv.bias.data, None
            hooks.append(layer[1].register_forward_pre_hook(match))
    with torch.no_grad():
        model.train()(frames)
    for hook in hooks:
        hook.remove()


def scenes(args: tuple[int, int, list[Background]]) -> tuple[np.ndarray, ...]:
    """Details (n, 512, 512) and wholes (n, 256, 256) in steps of 4 / 127, the maps that belong to them
    (n, 6, 128, 128) in 255ths, and the number of instruments of each."""
    seed, count, backgrounds = args
    cv2.setNumThreads(1)
    camera = Camera.load(shipped("calibration/demo-carm.yaml")).scaled(_CAMERA_SIDE / 1024)
    rng = np.random.default_rng(seed)
    limbs = [limb(rng, camera) for _ in range(12)]
    makers = [SceneMaker(camera, backgrounds), SceneMaker(camera, limbs)]
    stage = AttenuationStage()
    details, wholes = np.empty((count, FINE, FINE), np.int8), np.empty((count, SIDE, SIDE), np.int8)
    maps, counted = np.empty((count, len(MAPS), GRID, GRID), np.uint8), np.zeros(count, np.int64)
    one, fine = np.empty((CHANNELS, SIDE, SIDE), np.float32), np.empty((FINE, FINE), np.float32)
    for k in range(count):
        while True:
            photons = float(np.exp(rng.uniform(*np.log(_PHOTONS))))
            counts, placed, seen = makers[int(rng.random() < _LIMBS)].scene(
                rng, photons, int(rng.choice(len(COUNTS), p=COUNTS))
            )
            stage.prepare(None, camera)
            frame = FrameRecord(0, 0, 0, counts, 16, False, None)
            stage.process(frame, Budget(1e6))
            assert frame.seen is not None
            # Where a thick limb in the open beam passes for the aperture's rim, its instruments cannot be asked for.
            inside = cv2.resize(seen.astype(np.uint8), frame.seen.shape[::-1], interpolation=cv2.INTER_NEAREST) > 0
            if frame.seen[inside].mean() > 0.93:
                break
        write_attenuation(counts.astype(np.float32), frame, fine)
        Field(frame.seen).write(frame.pyramid[SIDE], fine, one)
        steps = np.rint(one / _STEP).astype(np.int8)
        details[k], wholes[k] = out_of_channels(steps), steps[4]
        scale = GRID / _CAMERA_SIDE
        truth = [
            (KINDS.index(p.kind), ((p.axis_px + 0.5) * scale - 0.5).astype(np.float32), not p.tip_hidden)
            for p in placed
        ]
        maps[k], counted[k] = np.rint(255 * targets(truth)), len(placed)
    return details, wholes, maps, counted


def out_of_channels(channels: np.ndarray) -> np.ndarray:
    """The detail, (512, 512), that four channels hold."""
    return channels[:4].reshape(2, 2, SIDE, SIDE).transpose(2, 0, 3, 1).reshape(FINE, FINE)


def kept_or_made(
    cache: Path | None, names: list[str], make: Callable[[tuple], tuple], work: Callable[[], list[tuple]],
    processes: int = 2,
) -> list[np.ndarray]:  # fmt: skip
    """Arrays from a file; or made on several cores, a part for each piece of work, joined, and kept there."""
    if cache and cache.exists():
        with np.load(cache) as kept:
            return [kept[name] for name in names]
    pieces = work()
    with ProcessPoolExecutor(processes) as pool:
        done = list(tqdm(pool.map(make, pieces), make.__name__, len(pieces), unit="piece"))
    arrays = [np.concatenate(parts) for parts in zip(*done, strict=True)]
    if cache:
        np.savez(cache, **dict(zip(names, arrays, strict=True)))
    return arrays


def backgrounds(data: Path, count: int, subjects: tuple[str, ...] = SUBJECTS) -> list[Background]:
    half = Camera.load(shipped("calibration/demo-carm.yaml")).scaled(0.25)
    out = []
    for name in subjects:
        if name != "embedded" and not (data / "chest").is_dir():
            continue
        case = load_subject(name, 1, data).case
        anatomy = Anatomy(case, half)
        for T in tqdm(view_poses(case, count, SEED), f"anatomy: {name}", unit="view"):
            water, bone = anatomy.paths(T)
            out.append(Background(water.astype(np.float16), bone.astype(np.float16)))
    return out


def backgrounds_of(options: argparse.Namespace) -> list[Background]:
    """From a file, or made and kept there."""
    if options.anatomy and options.anatomy.exists():
        with np.load(options.anatomy) as kept:
            return [Background(*pair) for pair in zip(kept["water"], kept["bone"], strict=True)]
    made = backgrounds(options.data, options.views)
    if options.anatomy:
        np.savez_compressed(options.anatomy, water=[b.water for b in made], bone=[b.bone for b in made])
    return made


def targets(truth: list[tuple[int, np.ndarray, bool]]) -> np.ndarray:
    """The maps, shape (6, 128, 128), of instruments: kind, axis in pixels of the grid from the tip on, and whether the
    tip can be seen. One that cannot is not asked for."""
    out = np.zeros((len(MAPS), GRID, GRID), np.float32)
    y, x = np.mgrid[:GRID, :GRID].astype(np.float32)
    for kind, uv, tip_in_sight in truth:
        fine = np.full((4 * GRID, 4 * GRID), 255, np.uint8)
        cv2.polylines(fine, [np.rint((uv + 0.5) * 4 - 0.5).astype(np.int32)], False, 0, 1)
        distance = (
            cv2.resize(cv2.distanceTransform(fine, cv2.DIST_L2, 3), (GRID, GRID), interpolation=cv2.INTER_AREA) / 4
        )
        np.maximum(out[kind], np.exp(-(distance**2) / (2 * _LINE_SIGMA**2)), out=out[kind])
        for channel, end in ((4, uv[0]), (5, uv[-1]))[0 if tip_in_sight else 1 :]:
            d2 = (x - end[0]) ** 2 + (y - end[1]) ** 2
            np.maximum(out[channel], np.exp(-d2 / (2 * _TIP_SIGMA**2)), out=out[channel])
    return out


@dataclass(frozen=True)
class Examples:
    """What :func:`scenes` makes."""

    details: np.ndarray
    wholes: np.ndarray
    maps: np.ndarray
    counted: np.ndarray

    def __len__(self) -> int:
        return len(self.maps)

    def input(self, k: int) -> np.ndarray:
        """One as the network is shown it, shape (5, 256, 256)."""
        out = np.empty((CHANNELS, SIDE, SIDE), np.float32)
        in_channels(self.details[k] * np.float32(_STEP), out)
        out[4] = self.wholes[k] * np.float32(_STEP)
        return out

    def varied(self, k: int, behind: int | None, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """A scene mirrored, turned, at another size and contrast, and with another scene's anatomy added to it.

        Attenuations of what lies one behind the other add up, so the sum of two inputs is an input, but for its noise.
        """
        stacks = [
            self.details[k] * np.float32(_STEP), self.wholes[k] * np.float32(_STEP),
            self.maps[k].transpose(1, 2, 0) * np.float32(1 / 255),
        ]  # fmt: skip
        mirrored, turns = rng.random() < 0.5, int(rng.integers(4))
        stacks = [np.rot90(s[:, ::-1] if mirrored else s, turns) for s in stacks]
        if rng.random() < 0.6:
            turn, size = float(rng.uniform(-45, 45)), float(np.exp(rng.uniform(-0.2, 0.3)))
            for n, s in enumerate(stacks):
                side = s.shape[0]
                M = cv2.getRotationMatrix2D(((side - 1) / 2, (side - 1) / 2), turn, size)
                stacks[n] = cv2.warpAffine(np.ascontiguousarray(s), M, (side, side))
        detail, whole, wanted = stacks
        contrast = np.exp(rng.normal(0, 0.25, 2)).astype(np.float32)
        detail, whole = detail * contrast[0], whole * contrast[1]
        if behind is not None:
            share = np.float32(rng.uniform(0.2, 0.8) * _STEP)
            detail += share * self.details[behind] * (detail != 0)
            whole += share * self.wholes[behind] * (whole != 0)
        if rng.random() < 0.3:
            noise = rng.standard_normal((FINE, FINE), dtype=np.float32)
            detail += noise * np.float32(rng.uniform(0.04, 0.4)) * (detail != 0)
        out = np.empty((CHANNELS, SIDE, SIDE), np.float32)
        in_channels(detail, out)
        out[4] = whole
        return out, wanted.transpose(2, 0, 1)


class Shown(torch.utils.data.Dataset):
    """What training is shown, one after the other: each drawn by its number, by whichever process."""

    def __init__(self, examples: Examples, held: int) -> None:
        self._examples, self._held = examples, held
        # Without an aperture: a wire that leaves the view behind it would seem to end in it.
        whole = (examples.wholes != 0).mean((1, 2)) > 0.95
        self._empty = np.flatnonzero((examples.counted == 0) & whole & (np.arange(len(examples)) >= held))

    def __len__(self) -> int:
        return 1 << 40

    def __getitem__(self, n: int) -> tuple[np.ndarray, np.ndarray]:
        cv2.setNumThreads(1)
        rng = np.random.default_rng((SEED, n))
        k = int(rng.integers(self._held, len(self._examples)))
        behind = int(rng.choice(self._empty)) if rng.random() < _BEHIND else None
        frame, wanted = self._examples.varied(k, behind, rng)
        return frame.astype(np.float16), np.rint(wanted * 255).astype(np.uint8)


def loss_of(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Focal loss on soft targets (CornerNet's, Law and Deng 2018), tips and tails weighing more than lines."""
    p = torch.sigmoid(logits)
    ce = nn.functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
    focal = ce * (p - target).abs() ** 2
    weight = torch.tensor([1.0, 1, 1, 1, 6, 2], device=logits.device).view(1, -1, 1, 1)
    return (focal * weight).sum((1, 2, 3)).mean() / 100


def train(model: Detector, options: argparse.Namespace, examples: Examples, curve: list[dict], out: Path) -> Detector:
    device = torch.device(options.device)
    # bfloat16 and channels last: three times the steps where the cores have it, a tenth where they have not.
    bfloat16 = device.type == "cuda" or torch.ops.mkldnn._is_mkldnn_bf16_supported()
    model = model.to(device, memory_format=torch.channels_last).train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=options.rate, weight_decay=1e-3)
    held = max(len(examples) // 20, 16)
    shown = torch.utils.data.DataLoader(
        Shown(examples, held), options.batch, num_workers=options.processes if device.type == "cuda" else 0
    )
    start, seen, running = time.monotonic(), 0, []
    bar = tqdm(total=100, desc="training", unit="%")
    for frames, wanted in shown:
        if (share := (time.monotonic() - start) / (60 * options.minutes)) >= 1:
            break
        for group in optimiser.param_groups:
            group["lr"] = rate(options.rate, seen / 4000, share)
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=bfloat16):
            logits = model(frames.to(device).float().contiguous(memory_format=torch.channels_last))
        loss = loss_of(logits.float(), wanted.to(device).float() / 255)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        seen += len(frames)
        running.append(loss.detach())
        if len(running) * len(frames) >= 200 * options.batch:
            lost = float(torch.stack(running).mean())
            curve.append({"examples": seen, "loss": lost, "held_loss": held_loss(model, examples, held)})
            bar.set_postfix(loss=lost, held=curve[-1]["held_loss"])
            running = []
            write_json({"curve": curve}, out)
            torch.save(model.state_dict(), out.with_suffix(".checkpoint.pt"))
        bar.update(int(100 * share) - bar.n)
    return model


def rate(highest: float, warmed: float, share: float) -> float:
    """A learning rate that rises while `warmed` goes to 1, and falls as a cosine over the training's share."""
    return highest * min(1.0, warmed + 0.05) * 0.5 * (1 + float(np.cos(np.pi * share)))


@torch.no_grad()
def held_loss(model: Detector, examples: Examples, held: int) -> float:
    model.eval()
    device, out = next(model.parameters()).device, []
    for a in range(0, min(held, 256), 16):
        wanted = torch.from_numpy(examples.maps[a : a + 16].astype(np.float32) / 255).to(device)
        shown = torch.from_numpy(np.stack([examples.input(k) for k in range(a, a + 16)])).to(device)
        out.append(loss_of(model(shown), wanted).item())
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
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder that may hold chest/")
    parser.add_argument("--anatomy", type=Path, help="keep the views of it here (.npz), or read them")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--processes", type=int, default=2, help="that make the scenes, and vary them for a GPU")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--out", type=Path, default=Path("engines"))
    parser.add_argument("--scenes", type=int, default=8000)
    parser.add_argument("--views", type=int, default=24, help="views of each subject")
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--cache", type=Path, help="keep the scenes here (.npz), or read them")
    parser.add_argument("--on-from", type=Path, help="instruments.onnx to go on from")
    parser.add_argument(
        "--averaged", action="store_true", help="write the mean of the weights that it went on from and ended at"
    )
    parser.add_argument("--rate", type=float, default=2e-3, help="highest learning rate")
    parser.add_argument("--seed", type=int, default=SEED, help="of the scenes")
    options = parser.parse_args()
    torch.set_num_threads(2)

    def work() -> list[tuple]:
        anatomy = backgrounds_of(options)
        return [(options.seed + k, 100, anatomy) for k in range(max(options.scenes // 100, 1))]

    examples = Examples(
        *kept_or_made(options.cache, [part.name for part in fields(Examples)], scenes, work, options.processes)
    )
    torch.manual_seed(SEED)
    model, before = Detector(), []
    record_path = options.out / "instruments.training.json"
    if options.on_from:
        load_weights(model, options.on_from)
        earlier = json.loads(options.on_from.with_suffix(".training.json").read_text())
        before = [*earlier.get("before", []), {k: v for k, v in earlier.items() if k != "before"}]
        normalised_again(model, torch.from_numpy(np.stack([examples.input(k) for k in range(128)])))
    curve: list[dict] = []
    model = train(model, options, examples, curve, record_path).cpu().eval()
    record = {
        "seed": options.seed,
        "scenes": len(examples),
        "minutes": options.minutes,
        "batch": options.batch,
        "on": torch.cuda.get_device_name() if options.device == "cuda" else f"{torch.get_num_threads()} cores",
        "curve": curve,
        "before": before,
    }

    def written(model: Detector) -> str:
        example = examples.input(0)[None]
        return exported(Probabilities(model), "instruments", "frame", "maps", example, record, options.out)

    print(written(model))
    if options.averaged:
        mean = averaged(options.on_from, options.out / "instruments.onnx")
        record["averaged"] = {"held_loss": held_loss(mean, examples, max(len(examples) // 20, 16))}
        print(written(mean.eval()))


def strip_metadata(path: Path) -> None:
    """Takes out what the exporter notes of the source it traced: paths of the machine that it ran on."""
    model = onnx.load(path)
    del model.metadata_props[:]
    graph = model.graph
    for part in (model, graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        part.doc_string = ""
        if hasattr(part, "metadata_props"):
            del part.metadata_props[:]
    onnx.save(model, path)


def exported(
    program: nn.Module, name: str, given: str, made: str, example: np.ndarray, record: dict, folder: Path
) -> str:
    """Writes model, manifest entry, parity example and training record; returns what to print."""
    path, program = folder / f"{name}.onnx", program.eval()
    x = torch.from_numpy(example.astype(np.float16).astype(np.float32))  # as it is kept
    torch.onnx.export(program, (x,), path, input_names=[given], output_names=[made], dynamo=True, external_data=False)
    strip_metadata(path)
    with torch.no_grad():
        out = program(x)
    np.savez_compressed(folder / f"{name}.parity.npz", given=x.numpy().astype(np.float16), made=out.numpy())
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    manifest = folder / "manifest.json"
    entries = json.loads(manifest.read_text()) if manifest.exists() else {}
    shapes = {"inputs": {given: list(x.shape)}, "outputs": {made: list(out.shape)}}
    write_json(entries | {path.name: {"sha256": sha256, **shapes}}, manifest)
    weights = sum(p.numel() for p in program.parameters())
    whole = {"model": path.name, "sha256": sha256, "weights": weights, "torch": torch.__version__, **record}
    write_json(whole, folder / f"{name}.training.json")
    return json.dumps({"weights": weights, "bytes": path.stat().st_size, **(record["curve"] or [{}])[-1]})


if __name__ == "__main__":
    main()
