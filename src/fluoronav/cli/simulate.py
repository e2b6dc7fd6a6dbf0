"""`fluoronav simulate`."""

from __future__ import annotations

import argparse
from pathlib import Path

from fluoronav.cli.arguments import CASE_HELP, add_endpoints, add_field, add_verb, count, file_to_write, positive
from fluoronav.cli.reporting import say
from fluoronav.paths import shipped


def add_verbs(verbs: argparse._SubParsersAction) -> None:
    simulate = add_verb(
        verbs,
        "simulate",
        "simulate a C-arm and a tracker: render the frames of a case, then publish them",
        _simulate,
        "fluoronav simulate embedded --fps 30",
        "fluoronav simulate cases/mine/case.yaml --camera calibration/demo-carm.yaml --frames 300 --truth truth.jsonl",
    )
    simulate.add_argument("case", help=CASE_HELP)
    simulate.add_argument(
        "--camera",
        type=Path,
        default=shipped("calibration/demo-carm.yaml"),
        metavar="FILE",
        help="camera file (YAML)",
    )
    frames = simulate.add_argument_group("frames")
    frames.add_argument("--fps", type=positive, default=30.0, help="frames per second")
    frames.add_argument("--frames", type=count, default=0, help="number of frames; 0 sends them until stopped")
    frames.add_argument("--bits", type=int, default=16, choices=range(8, 17), metavar="8..16", help="bits stored")
    frames.add_argument(
        "--photons", type=positive, default=80.0, help="dose: mean number of detected photons per pixel"
    )
    frames.add_argument("--source", default="carm0", help="name under which the frames are published")
    add_field(simulate)
    endpoints = add_endpoints(simulate)
    endpoints.add_argument(
        "--truth",
        type=file_to_write,
        metavar="FILE",
        help="write the true poses to this file, one JSON object per line",
    )
    simulate.add_argument("--quiet", action="store_true", help="print nothing")


def _simulate(options: argparse.Namespace) -> None:
    from fluoronav.case import load_case
    from fluoronav.geometry import Camera
    from fluoronav.imaging.registration.model import is_part_of_patient
    from fluoronav.lab.simulation.flat_panel import FlatPanel
    from fluoronav.lab.simulation.grabber import Grabber
    from fluoronav.lab.simulation.sequence import load_or_render

    case = load_case(options.case)
    if not options.quiet and is_part_of_patient(case):
        say(
            f"WARNING: {case.ct.path}: its sides cut through the body, and the simulated patient ends there, too: the "
            "registration, which expects a whole patient, may not find it; give `surroundings` in the case file"
        )
    field = {"aperture_fraction": options.aperture, "collimator_fraction": options.blades}
    panel = FlatPanel(bits=options.bits, photons=options.photons, **field)
    sequence = load_or_render(case, Camera.load(options.camera), panel=panel)
    grabber = Grabber(case, sequence, options.frames_endpoint, options.tools_endpoint, options.source)
    if not options.quiet:
        print(f"publishing frame/{options.source} at {options.frames_endpoint}; waiting for a subscriber", flush=True)
    sent = 0
    if grabber.wait_for_subscriber():
        sent = grabber.stream(options.fps, options.frames)
    grabber.close(options.truth)
    if not options.quiet:
        print(f"{sent} frames sent")
