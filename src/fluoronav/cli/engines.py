"""`fluoronav engines build|verify`."""

from __future__ import annotations

import argparse

from fluoronav.cli.arguments import CASE_HELP, add_family, add_json, add_verb
from fluoronav.cli.reporting import report
from fluoronav.paths import shipped


def add_verbs(verbs: argparse._SubParsersAction) -> None:
    family = add_family(
        verbs, "engines", "build and verify the networks' engines", "fluoronav engines verify --engine cpu"
    )
    build = add_verb(
        family,
        "build",
        "compile every network for GPUs ahead of time, into the cache, so that a start in the OR never compiles",
        _build,
        "fluoronav engines build --engine tensorrt-rtx --target this",
        "fluoronav engines build --engine tensorrt --target sm89 --precision fp16 --case embedded",
    )
    build.add_argument(
        "--engine", choices=("tensorrt-rtx", "tensorrt"), default="tensorrt-rtx", help="runtime to compile for"
    )
    build.add_argument(
        "--target",
        nargs="+",
        default=["this"],
        help="compute capabilities such as sm89; `this` GPU; or `all` that TensorRT-RTX can build for without a GPU",
    )
    verify = add_verb(
        family,
        "verify",
        "run every network on an engine and on the CPU, and print largest difference, latency (ms) and memory (MB)",
        _verify,
        "fluoronav engines verify --engine openvino",
        "fluoronav engines verify --engine cuda --precision fp16 --json out/engines.json",
    )
    verify.add_argument("--engine", default="cpu", help="cpu, openvino, cuda, tensorrt or tensorrt-rtx")
    for parser in (build, verify):
        parser.add_argument("--case", help=f"include the registration step of this case: {CASE_HELP}")
        parser.add_argument(
            "--precision", choices=("fp32", "fp16"), default="fp32", help="precision of the networks on a GPU"
        )
    add_json(verify, "out/engines.json")


def _build(options: argparse.Namespace) -> None:
    from tqdm import tqdm

    from fluoronav.imaging.inference.cache import TARGETS, keep
    from fluoronav.imaging.inference.cuda import this_gpu
    from fluoronav.imaging.inference.manifest import approved, shipped_models
    from fluoronav.imaging.inference.tensorrt import build

    targets = list(TARGETS) if options.target == ["all"] else options.target
    targets = [this_gpu() if t == "this" else t for t in targets]
    models = [(approved(path), options.precision) for path in shipped_models()]
    if options.case:
        from fluoronav.case import load_case
        from fluoronav.imaging.registration.graph_backend import step_models_of_case

        # Sums over all pixels overflow in half precision.
        models += [(step, "fp32") for step in step_models_of_case(load_case(options.case))]
    work = [(model, precision, target) for model, precision in models for target in targets]
    for model, precision, target in (bar := tqdm(work, unit="engine")):
        bar.set_description(f"{model.path.name} for {target}")
        key, content = build(model, options.engine, target, precision)
        tqdm.write(f"{keep(key, content)}  {len(content) / 1e6:.1f} MB")


def _verify(options: argparse.Namespace) -> int:
    from fluoronav.imaging.inference.verify import table, verify

    result = verify(options.engine, options.precision)
    if options.case:
        from fluoronav.case import load_case
        from fluoronav.geometry import Camera
        from fluoronav.imaging.inference import InferenceSettings
        from fluoronav.imaging.registration.graph_backend import verified_steps

        settings = InferenceSettings.model_validate({"engine": options.engine, "fallback": "refuse"})
        camera = Camera.load(shipped("calibration/demo-carm.yaml"))
        result["models"] += verified_steps(load_case(options.case), camera, settings)
    report(table(result), result, options.json)
    return 0 if all(m["within"] for m in result["models"]) else 1
