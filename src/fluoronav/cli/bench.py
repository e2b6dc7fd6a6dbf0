"""`fluoronav bench`: one verb per measurement."""

from __future__ import annotations

import argparse
from pathlib import Path

from fluoronav.cli.arguments import (
    add_data,
    add_family,
    add_json,
    add_launch,
    add_verb,
    at_least_one,
    image_size,
    page_size,
    positive,
)
from fluoronav.cli.bench_cohort import add_verbs as _add_cohort
from fluoronav.cli.bench_latency import add_verbs as _add_latency
from fluoronav.cli.bench_pacs import add_verbs as _add_pacs
from fluoronav.cli.bench_planning import add_verbs as _add_planning
from fluoronav.cli.reporting import report, say

_SUBJECTS = ["embedded", "T5", "T8", "T11", "ribs", "wrist"]


def add_verbs(verbs: argparse._SubParsersAction) -> None:
    bench = add_family(verbs, "bench", "measure latency, accuracy and failures", "fluoronav bench latency --fps 30")
    for add in (
        _add_latency, _add_tracking, _add_registration, _add_instruments, _add_enhancement, _add_display, _add_engines,
        _add_faults, _add_peers, _add_start, _add_witness, _add_pacs, _add_planning, _add_cohort,
    ):  # fmt: skip
        add(bench)


def _add_tracking(bench: argparse._SubParsersAction) -> None:
    tracking = add_verb(
        bench,
        "tracking",
        "measure error (mm) and time (ms) of the registration in each frame of the demo's sequence, and draw them over "
        "time with its keyframes",
        _tracking,
        "fluoronav bench tracking --frames 900",
    )
    tracking.add_argument("--fps", type=positive, default=30.0, help="frames per second")
    tracking.add_argument("--frames", type=at_least_one, default=600, help="number of frames")
    add_json(tracking, "out/tracking.json")
    tracking.add_argument("--png", type=Path, metavar="FILE", help="draw the plot here; by default beside the JSON")


def _add_registration(bench: argparse._SubParsersAction) -> None:
    registration = add_verb(
        bench,
        "registration",
        "measure search, tracking and confidence on real CTs with known poses and on real wrist X-rays; takes many "
        "minutes",
        _registration,
        "fluoronav bench registration --subjects embedded T8 --poses 12",
    )
    add_data(registration, "chest/ and wrist/")
    registration.add_argument("--poses", type=at_least_one, default=24, help="exposures per subject")
    registration.add_argument("--subjects", nargs="+", default=_SUBJECTS, metavar="NAME", help="subjects to measure")
    add_json(registration, "out/registration.json")


def _add_instruments(bench: argparse._SubParsersAction) -> None:
    instruments = add_verb(
        bench,
        "instruments",
        "measure detection and tip error (mm) of instruments on exposures outside the training set",
        _instruments,
        "fluoronav bench instruments --frames 100 --approaches 1000",
    )
    add_data(instruments, "chest/, knee/ and wrist/")
    instruments.add_argument(
        "--approaches", type=at_least_one, default=10000, help="simulated approaches for the alerts"
    )
    instruments.add_argument("--frames", type=at_least_one, default=400, help="exposures at each dose")
    add_json(instruments, "out/instruments.json")


def _add_enhancement(bench: argparse._SubParsersAction) -> None:
    enhancement = add_verb(
        bench,
        "enhancement",
        "measure noise, edges and ghosts of the displayed image by dose, beside other filters",
        _enhancement,
        "fluoronav bench enhancement --frames 24",
    )
    add_data(enhancement, "knee/ and wrist/")
    enhancement.add_argument("--frames", type=at_least_one, default=24, help="frames of each run, at least 10")
    add_json(enhancement, "out/enhancement.json")


def _add_display(bench: argparse._SubParsersAction) -> None:
    display = add_verb(
        bench,
        "display",
        "measure the time from overlay received to pixels drawn, ms, in Chromium with software rendering, from "
        "recorded messages; and the pipeline's time from exposure to overlay, ms, with the page beside it and without "
        "it, in turns in one run (needs playwright and chromium)",
        _display,
        "fluoronav bench display --seconds 30 --viewers 2",
        "fluoronav bench display --size 3840x2160",
        "fluoronav bench display --pipeline-seconds 120 --stages attenuation registration detection instruments "
        "guidance view",
    )
    add_launch(display)
    display.add_argument(
        "--seconds", type=positive, default=60.0, help="duration of the run fed from recorded messages, s"
    )
    display.add_argument(
        "--pipeline-seconds", type=positive, default=60.0,
        help="how long the page is open beside the pipeline, in turns of 10 s, s; it is closed for as long",
    )  # fmt: skip
    display.add_argument("--stages", nargs="+", metavar="STAGE", help="stages to run instead of the launch file's")
    display.add_argument(
        "--browser-niceness", type=int, choices=range(20), default=10, metavar="0..19",
        help="niceness of the browser; 0 is that of any program, 10 that of launch/systemd/fluoronav-screen.service",
    )  # fmt: skip
    display.add_argument(
        "--size", type=page_size, default=(1280, 720), metavar="WIDTHxHEIGHT", help="size of the page, pixels"
    )
    display.add_argument(
        "--viewers", type=at_least_one, default=1, help="pages open at once, fed from recorded messages"
    )
    add_json(display, "out/display.json")


def _add_engines(bench: argparse._SubParsersAction) -> None:
    engines = add_verb(
        bench,
        "engines",
        "measure every network on each engine of this computer, also in 8 bits: speed, and difference from the CPU",
        _engines,
        "fluoronav bench engines --frames 24",
    )
    add_data(engines, "chest/")
    engines.add_argument("--frames", type=at_least_one, default=24, help="exposures for calibration and measurement")
    add_json(engines, "out/engines-bench.json")


def _add_faults(bench: argparse._SubParsersAction) -> None:
    faults = add_verb(
        bench,
        "faults",
        "put faults of clocks, images, trackers, requests, disks and files into real processes, and print what was "
        "reported and when; exit status 1 when a row is not as expected (takes about thirteen minutes)",
        _faults,
        "fluoronav bench faults --list",
        "fluoronav bench faults --only NAME --json out/faults.json",
    )
    faults.add_argument("--only", nargs="+", default=[], metavar="NAME", help="run these faults only")
    faults.add_argument("--list", action="store_true", help="print the faults with what is expected, and run none")
    faults.add_argument("--fps", type=positive, default=15.0, help="frames per second")
    faults.add_argument("--size", type=image_size, default=1024, help="side of a frame, pixels")
    add_json(faults, "out/faults.json", "the rows")


def _add_peers(bench: argparse._SubParsersAction) -> None:
    peers = add_verb(
        bench,
        "peers",
        "measure the projector beside those of RTK and DiffDRR (extra `peers`)",
        _peers,
        "fluoronav bench peers --rounds 20",
    )
    peers.add_argument("--rounds", type=at_least_one, default=20, help="rounds per projector")
    add_json(peers, "out/peers.json")


def _add_start(bench: argparse._SubParsersAction) -> None:
    start = add_verb(
        bench,
        "start",
        "measure the time from the pipeline's start to its first overlay, s, by phase: where it has run before, after "
        "`fluoronav kernels build`, and where nothing was ever compiled (about two minutes a run)",
        _start,
        "fluoronav bench start --runs 3",
    )
    start.add_argument("--runs", type=at_least_one, default=1, help="starts of each kind")
    add_launch(start)
    start.add_argument("--stages", nargs="+", metavar="STAGE", help="stages to run instead of the launch file's")
    add_json(start, "out/start.json")


def _add_witness(bench: argparse._SubParsersAction) -> None:
    witness = add_verb(
        bench,
        "witness",
        "put poses and tools wrong on the demo's frames and measure which part the witness finds within five frames, "
        "how often it doubts right ones, and its CPU time, ms a frame",
        _witness,
        "fluoronav bench witness --places 30 --runs 40",
    )
    witness.add_argument("--places", type=at_least_one, default=30, help="places in the sequence, ten frames each")
    witness.add_argument(
        "--runs", type=at_least_one, default=10, help="runs of ten frames at each place, of each kind of error"
    )
    add_json(witness, "out/witness.json")


def _tracking(options: argparse.Namespace) -> None:
    from fluoronav.lab.bench.tracking import bench_tracking, draw, table

    run, result = bench_tracking(options.frames, options.fps, say)
    report(table(result), result, options.json)
    png = options.png or options.json.with_suffix(".png")
    draw(run, options.fps, png)
    print(f"written: {options.json}, {png}")


def _registration(options: argparse.Namespace) -> None:
    from fluoronav.lab.bench.registration import bench_registration, table

    result = bench_registration(options.data, tuple(options.subjects), options.poses, say)
    report(table(result), result, options.json)
    print(f"written: {options.json}")


def _instruments(options: argparse.Namespace) -> None:
    from fluoronav.lab.bench.instruments import bench_instruments, table

    result = bench_instruments(options.data, options.frames, options.approaches, say, options.json.parent)
    report(table(result), result, options.json)
    print(f"written: {options.json}, and sheets of correct and wrong detections beside it")


def _enhancement(options: argparse.Namespace) -> None:
    from fluoronav.lab.bench.enhancement import bench_enhancement, table

    result = bench_enhancement(options.data, max(options.frames, 10), options.json.parent)
    report(table(result), result, options.json)
    print(f"written: {options.json}, and a sheet of images beside it")


def _display(options: argparse.Namespace) -> None:
    from fluoronav.lab.bench.display import bench_display, table

    result = bench_display(
        options.launch, options.seconds, options.pipeline_seconds, options.viewers, options.browser_niceness,
        options.stages, say, options.size,
    )  # fmt: skip
    report(table(result), result, options.json)


def _engines(options: argparse.Namespace) -> None:
    from fluoronav.lab.bench.engines import bench_engines, table

    result = bench_engines(options.data, options.frames, say)
    report(table(result), result, options.json)


def _witness(options: argparse.Namespace) -> None:
    from fluoronav.lab.bench.witness import bench_witness, table

    result = bench_witness(max(options.places, 1), max(options.runs, 1))
    report(table(result), result, options.json)
    print(f"written: {options.json}")


def _faults(options: argparse.Namespace) -> int:
    from fluoronav.lab.bench.faults.bench import bench_faults, chosen
    from fluoronav.lab.bench.faults.row import table

    faults = chosen(options.only)
    if options.list:
        print("\n".join(f"{f.name:40}{f.expected}" for f in faults))
        return 0
    result = bench_faults(faults, options.size, options.fps, say)
    report(table(result["faults"]), result, options.json)
    print(f"written: {options.json}")
    return 1 if any(row["ok"] is False for row in result["faults"]) else 0


def _peers(options: argparse.Namespace) -> None:
    from fluoronav.case import load_case
    from fluoronav.lab.bench.peers import bench_peers, table

    result = bench_peers(load_case("embedded"), max(options.rounds, 1), say)
    report(table(result), result, options.json)
    print(f"written: {options.json}")


def _start(options: argparse.Namespace) -> None:
    from fluoronav.lab.bench.start import bench_start, table
    from fluoronav.site.launch import load_launch

    launch = load_launch(options.launch, **({"stages": options.stages} if options.stages else {}))
    result = bench_start(launch, max(options.runs, 1), say)
    report(table(result), result, options.json)
