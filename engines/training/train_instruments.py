"""Trains the instrument detector on simulated exposures and writes engines/instruments.onnx with its model card.

    pip install -e '.[cpu,train]'
    python engines/training/train_instruments.py --data ../shared/data --out engines

and on from there, on other scenes, at a lower rate:

    python engines/training/train_instruments.py --data ../shared/data --out engines \\
        --on-from engines/instruments.onnx --rate 8e-4 --seed 20270000 --scenes 14000 --minutes 45

On a GPU, with scenes made by other cores while it trains:
    ... --device cuda --batch 128 --processes 15 --begin-with 2000 --scenes 60000

Anatomy: the embedded case and, where DATA has the full chest CT, T5, T8 and the left ribs; and limbs made of simple
bodies. `bench instruments` uses T11, other shapes and real X-rays. All is seeded, but for the minutes; the
curve is in instruments.training.json.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import torch
from examples import Examples, Growing  # beside this file
from onnx import numpy_helper
from torch import nn
from tqdm import tqdm

from fluoronav.geometry import Camera
from fluoronav.lab.bench.subjects import load_subject, view_poses
from fluoronav.lab.simulation.instrument_scenes import Background
from fluoronav.lab.simulation.sequence import Anatomy
from fluoronav.paths import shipped, write_json
from fluoronav.stream.detection.network_input import CHANNELS, MAPS

SEED = 20261125
SUBJECTS = ("embedded", "T5", "T8", "ribs")
DEEP_FROM = 40  # channels of the levels with residual convolutions


class Detector(nn.Module):
    """A U-Net of 128, 64, 32, 16 and 8 pixels on an input of 256 (five channels), which its first layer halves."""

    def __init__(self, widths: tuple[int, ...] = (16, 24, 40, 64, 96)) -> None:
        super().__init__()
        self.stem = block(CHANNELS, widths[0], 5, 2)
        self.down = nn.ModuleList(nn.Sequential(block(a, b, 3, 2), block(b, b, 3, 1)) for a, b in pairwise(widths))
        # Where a pixel is cheap and sees far: 32 pixels and below.
        self.deep = nn.ModuleList(
            nn.Sequential(Residual(b), Residual(b)) if b >= DEEP_FROM else nn.Identity() for b in widths[1:]
        )
        self.first = block(widths[0], widths[0], 3, 1)
        backwards = widths[::-1]
        # What goes up the last step is most of the pixels: half its channels are as good, and a third of a millisecond.
        self.narrow = nn.Conv2d(widths[1], widths[1] // 2, 1)
        given = (*backwards[:-2], widths[1] // 2)
        self.up = nn.ModuleList(nn.Sequential(block(a + b, b, 3, 1)) for a, b in zip(given, backwards[1:], strict=True))
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
            x = self.narrow(x) if up is self.up[-1] else x
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
    stay as they are: they add nothing; and so do outputs that it does not have.
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
        # The exporter names it so when it comes out of a normalisation, and plainly the second time.
        bias = kept.get(f"{prefix}{name}.weight_bias", kept.get(f"{prefix}{name}.bias"))
        assert bias is not None and layer.bias is not None, name
        layer.weight.data[: len(weight)] = torch.from_numpy(weight)
        layer.bias.data[: len(bias)] = torch.from_numpy(bias)


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


def loss_of(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Focal loss on soft targets (CornerNet's, Law and Deng 2018), tips and tails weighing more than lines."""
    p = torch.sigmoid(logits)
    ce = nn.functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
    focal = ce * (p - target).abs() ** 2
    weight = torch.tensor([1.0, 1, 1, 1, 6, 2], device=logits.device).view(1, -1, 1, 1)
    return (focal * weight).sum((1, 2, 3)).mean() / 100


def train(
    model: Detector, options: argparse.Namespace, examples: Examples, growing: Growing | None, curve: list[dict],
    out: Path,
) -> Detector:  # fmt: skip
    device = examples.device
    # bfloat16 and channels last: three times the steps where the cores have it, a tenth where they have not.
    bfloat16 = device.type == "cuda" or torch.ops.mkldnn._is_mkldnn_bf16_supported()
    torch.backends.cudnn.benchmark = True
    model = model.to(device, memory_format=torch.channels_last).train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=options.rate, weight_decay=1e-3, fused=True)
    rng = np.random.default_rng(options.seed)
    start, examples_seen, running = time.monotonic(), 0, []
    bar = tqdm(total=100, desc="training", unit="%")
    while (fraction := (time.monotonic() - start) / (60 * options.minutes)) < 1:
        if growing:
            growing.take()
        frames, wanted = examples.drawn(options.batch, rng)
        for group in optimiser.param_groups:
            group["lr"] = rate(options.rate, examples_seen / (250 * options.batch), fraction)
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=bfloat16):
            logits = model(frames.contiguous(memory_format=torch.channels_last))
        loss = loss_of(logits.float(), wanted)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        examples_seen += len(frames)
        running.append(loss.detach())
        if len(running) == 500:
            lost = float(torch.stack(running).mean())
            held = held_loss(model, examples)
            curve.append({"examples": examples_seen, "scenes": len(examples), "loss": lost, "held_loss": held})
            bar.set_postfix(loss=lost, held=held)
            running = []
            write_json({"curve": curve}, out)
            torch.save(model.state_dict(), out.with_suffix(".checkpoint.pt"))
        bar.update(int(100 * fraction) - bar.n)
    return model


def rate(highest: float, warmed: float, fraction: float) -> float:
    """A learning rate that rises while `warmed` goes to 1, and falls as a cosine over the fraction of the training."""
    return highest * min(1.0, warmed + 0.05) * 0.5 * (1 + float(np.cos(np.pi * fraction)))


@torch.no_grad()
def held_loss(model: Detector, examples: Examples) -> float:
    model.eval()
    out = []
    for a in range(0, examples.held, 16):
        frames, wanted = examples.plain(slice(a, min(a + 16, examples.held)))
        out.append(loss_of(model(frames), wanted).item())
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
    parser.add_argument("--processes", type=int, default=2, help="that make the scenes")
    parser.add_argument(
        "--begin-with", type=int, help="training begins with so many scenes, others are added as they come (all)"
    )
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
    torch.manual_seed(SEED)
    room, device = max(options.scenes, 100), torch.device(options.device)
    model, before = Detector(), []
    if options.on_from:
        load_weights(model, options.on_from)
        earlier = json.loads(options.on_from.with_suffix(".training.json").read_text())
        before = [*earlier.get("before", []), {k: v for k, v in earlier.items() if k != "before"}]
    curve: list[dict] = []
    with ExitStack() as stack:
        growing = None
        if options.cache and options.cache.exists():
            examples = Examples.kept(options.cache, device)
        else:
            examples = Examples(room, device)
            growing = Growing(examples, room, options.seed, backgrounds_of(options), options.processes)
            stack.enter_context(growing)
            growing.wait(min(options.begin_with or room, room))
        if options.on_from:
            normalised_again(model, examples.plain(slice(128))[0].cpu())
        model = train(model, options, examples, growing, curve, options.out / "instruments.training.json")
    model = model.cpu().eval()
    if options.cache and not options.cache.exists():
        examples.save(options.cache)
    record = {
        "seed": options.seed,
        "scenes": len(examples),
        "minutes": options.minutes,
        "batch": options.batch,
        "on": torch.cuda.get_device_name() if device.type == "cuda" else f"{torch.get_num_threads()} cores",
        "curve": curve,
        "before": before,
    }

    def written(model: Detector) -> str:
        return exported(
            Probabilities(model), "instruments", "frame", "maps", examples.parity_input(), record, options.out
        )

    print(written(model))
    if options.averaged:
        mean = averaged(options.on_from, options.out / "instruments.onnx")
        record["averaged"] = {"held_loss": held_loss(mean.to(device), examples)}
        print(written(mean.cpu().eval()))


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
