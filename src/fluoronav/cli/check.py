"""`fluoronav check grabber`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from fluoronav.cli.arguments import CASE_HELP, add_family, add_verb, endpoint, file_to_write, positive
from fluoronav.cli.reporting import say
from fluoronav.paths import shipped, write_json

_WORDS = {"ok": "ok", "mend": "MEND", "look": "look", "not_checked": "not checked"}


def add_verbs(verbs: argparse._SubParsersAction) -> None:
    family = add_family(
        verbs, "check", "say what has to be mended in a device that is connected",
        "fluoronav check grabber --endpoint tcp://127.0.0.1:5550",
    )  # fmt: skip
    grabber = add_verb(
        family,
        "grabber",
        "listen to a frame grabber and say in words what its vendor has to mend: size, bits and their alignment, "
        "polarity, numbers, clock, pace, and with a case whether pictures are mirrored or turned; exit status 1 when "
        "something has to be mended",
        _grabber,
        "fluoronav check grabber --endpoint tcp://192.168.0.20:5550 --camera calibration/demo-carm.yaml",
        "fluoronav check grabber --endpoint tcp://127.0.0.1:5550 --case embedded --seconds 10 --json out/grabber.json",
    )
    grabber.add_argument(
        "--endpoint",
        type=endpoint,
        default="tcp://127.0.0.1:5550",
        help="ZeroMQ endpoint at which frame/* is published",
    )
    grabber.add_argument("--seconds", type=positive, default=5.0, help="how long to listen, s")
    grabber.add_argument(
        "--camera", type=Path, default=shipped("calibration/demo-carm.yaml"), metavar="FILE",
        help="camera file (YAML) that the frames are calibrated with",
    )  # fmt: skip
    grabber.add_argument(
        "--case", metavar="CASE",
        help=f"search this case's pose, however the picture may be mirrored or turned (up to a minute): {CASE_HELP}",
    )  # fmt: skip
    grabber.add_argument(
        "--json", nargs="?", type=file_to_write, const=Path("-"), metavar="FILE",
        help="write what was found to this JSON file; without FILE print JSON instead of words",
    )  # fmt: skip


def _grabber(options: argparse.Namespace) -> int:
    from tqdm import tqdm

    from fluoronav.calibration.grabber_check import Finding, as_json, check_frames, has_to_be_mended
    from fluoronav.calibration.grabber_stream import listen
    from fluoronav.case import load_case
    from fluoronav.geometry import Camera

    camera = Camera.load(options.camera)
    case = None if options.case is None else load_case(options.case)
    with tqdm(
        total=options.seconds, desc="listening", unit="s", bar_format="{desc} {bar} {n:.0f} s", disable=None
    ) as bar:
        heard = listen(options.endpoint, options.seconds, bar.update)
    findings = check_frames(heard, options.endpoint, camera)
    if case is None:
        findings.append(
            Finding("orientation", "not_checked", "mirrored or turned? Give --case with its patient in view")
        )
    elif not heard.pictures or heard.pictures[-1].shape != (camera.rows, camera.cols):
        findings.append(Finding("orientation", "not_checked", "there is no picture of the camera's size"))
    else:
        from fluoronav.calibration.grabber_orientation import check_orientation

        findings.append(check_orientation(heard.pictures, heard.headers[-1], case, camera, say))
    result = as_json(findings, heard)
    if options.json is not None and str(options.json) == "-":
        print(json.dumps(result, indent=2))
    else:
        for f in findings:
            print(f"{_WORDS[f.verdict]:12}{f.about}: {f.text}")
        if options.json is not None:
            write_json(result, options.json)
    return 1 if has_to_be_mended(findings) else 0
