"""`fluoronav bench latency`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from fluoronav.cli.arguments import add_field, add_json, add_launch, add_verb, at_least_one, count, image_size, positive
from fluoronav.cli.reporting import report, say
from fluoronav.paths import shipped

_JSON, _JSON_OF_PAIRS = Path("out/latency.json"), Path("out/latency-pairs.json")
_MOST_PAIRS = 100
# Options that a run in another process is given, where they are not the defaults: an older checkout has fewer.
_PASSED_ON: dict[str, Any] = {
    "fps": 30.0, "frames": 3000, "size": 1024, "transport": "tcp", "aperture": 0.98, "blades": 0.9, "stages": None,
}  # fmt: skip


def add_verbs(verbs: argparse._SubParsersAction) -> None:
    latency = add_verb(
        verbs,
        "latency",
        "measure the time from exposure to overlay, ms, with grabber, pipeline and subscriber as processes",
        _latency,
        "fluoronav bench latency --fps 30 --frames 3000",
        "fluoronav bench latency --size 512 --stages attenuation registration --json out/small.json",
        "fluoronav bench latency --frames 900 --kernels-for avx2",
        "fluoronav bench latency --frames 900 --against ../fluoronav-before --pairs 3",
    )
    latency.add_argument("--fps", type=positive, default=30.0, help="frames per second")
    latency.add_argument("--frames", type=at_least_one, default=3000, help="number of frames")
    latency.add_argument("--size", type=image_size, default=1024, help="side of a frame, pixels")
    latency.add_argument("--transport", choices=("tcp", "ipc"), default="tcp", help="transport of the messages")
    add_launch(latency)
    latency.add_argument(
        "--stages", nargs="+", metavar="STAGE",
        help="stages to run instead of the launch file's: attenuation registration detection instruments guidance view",
    )  # fmt: skip
    add_field(latency)
    add_json(latency, str(_JSON))
    latency.add_argument("--png", type=Path, metavar="FILE", help="draw the histogram here; by default beside the JSON")
    comparing = latency.add_argument_group("comparing")
    comparing.add_argument(
        "--kernels-for", choices=("avx2",), metavar="avx2",
        help="compile the kernels as for a processor with AVX2 and without AVX-512, and keep NumPy and OpenCV to it; "
        "ONNX Runtime has no such switch, so networks use what the processor has",
    )  # fmt: skip
    comparing.add_argument(
        "--against", type=Path, metavar="CHECKOUT",
        help="measure this checkout and another one in turns, and print the ratios; the JSON is out/latency-pairs.json "
        "by default, and no histogram is drawn",
    )  # fmt: skip
    comparing.add_argument(
        "--pairs", type=_pairs, default=3, help="runs of each checkout with --against; A B, then B A, and so on"
    )


def _pairs(text: str) -> int:
    value = count(text)
    if not 1 <= value <= _MOST_PAIRS:
        raise argparse.ArgumentTypeError(f"{text} is not between 1 and {_MOST_PAIRS}")
    return value


def _latency(options: argparse.Namespace) -> int:
    if options.against is not None:
        return _in_turns(options)
    if options.kernels_for:
        return _with_other_kernels(options)
    return _here(options)


def _here(options: argparse.Namespace) -> int:
    import tempfile

    from fluoronav.case import load_case
    from fluoronav.geometry import Camera
    from fluoronav.lab import latency_report
    from fluoronav.lab.simulation.flat_panel import FlatPanel
    from fluoronav.lab.simulation.rig import capture_run, scaled_camera
    from fluoronav.lab.simulation.sequence import load_or_render
    from fluoronav.site.launch import load_launch

    panel = FlatPanel(aperture_fraction=options.aperture, collimator_fraction=options.blades)
    launch = load_launch(options.launch, **({"stages": options.stages} if options.stages else {}))
    case = load_case(launch.case)
    with tempfile.TemporaryDirectory() as folder:
        load_or_render(case, Camera.load(scaled_camera(launch.camera, options.size, Path(folder))), panel=panel)
    recording = capture_run(
        launch.model_dump(mode="json"), options.frames, options.fps, options.transport, say, options.size,
        collimated=("--aperture", str(options.aperture), "--blades", str(options.blades)),
    )  # fmt: skip
    result = latency_report.report(recording, case.target_ct, launch.deadline_ms)
    result["settings"] = {
        "fps": options.fps, "frames": options.frames, "size": options.size, "transport": options.transport,
        "aperture": options.aperture, "blades": options.blades, "stages": list(launch.stages),
    }  # fmt: skip
    report(latency_report.table(result), result, options.json)
    png = options.png or options.json.with_suffix(".png")
    latency_report.draw_histogram(recording, launch.deadline_ms, png)
    print(f"written: {options.json}, {png}")
    return 1 if result["failed"] else 0


def _with_other_kernels(options: argparse.Namespace) -> int:
    """Measures in a process whose kernels are those of another instruction set."""
    from fluoronav.lab.bench.latency_pairs import run_alone

    where = ["--json", str(options.json.resolve())]
    where += ["--png", str(options.png.resolve())] if options.png else []
    return run_alone(_arguments(options), where, _environment(options), say)


def _in_turns(options: argparse.Namespace) -> int:
    from fluoronav.lab.bench.latency_pairs import bench_pairs, other_checkout, table, this_checkout

    sides = this_checkout(), other_checkout(options.against)
    result = bench_pairs(sides, _arguments(options), options.pairs, _environment(options), say)
    path = _JSON_OF_PAIRS if options.json == _JSON else options.json
    report(table(result), result, path)
    print(f"written: {path}")
    return 0


def _environment(options: argparse.Namespace) -> dict[str, str]:
    import os

    from fluoronav.lab.kernels import environment_for

    return environment_for(options.kernels_for) if options.kernels_for else dict(os.environ)


def _arguments(options: argparse.Namespace) -> list[str]:
    """The options of a run in another process, with absolute paths."""
    arguments = []
    for name, default in _PASSED_ON.items():
        value = getattr(options, name)
        if value != default:
            arguments += [f"--{name}", *(map(str, value) if isinstance(value, list) else [str(value)])]
    if options.launch != shipped("launch/demo.yaml"):
        arguments += ["--launch", str(options.launch.resolve())]
    return arguments
