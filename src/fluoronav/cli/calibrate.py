"""`fluoronav calibrate pivot|detector`."""

from __future__ import annotations

import argparse
from pathlib import Path

from fluoronav.cli.arguments import add_family, add_json, add_verb, endpoint, positive
from fluoronav.paths import write_json


def add_verbs(verbs: argparse._SubParsersAction) -> None:
    family = add_family(
        verbs,
        "calibrate",
        "measure values for a case file or a camera file",
        "fluoronav calibrate pivot --tool kwire --seconds 20",
    )
    pivot = add_verb(
        family,
        "pivot",
        "find the tip of a tracked tool in its marker's frame: stand the tip in a dimple and tilt the tool to all "
        "sides",
        _pivot,
        "fluoronav calibrate pivot --tool kwire --seconds 20",
        "fluoronav calibrate pivot --tool kwire --spin-seconds 10 --json out/kwire.json",
    )
    pivot.add_argument("--tool", required=True, metavar="ID", help="id under which the tracker reports the tool")
    pivot.add_argument("--seconds", type=positive, default=15.0, help="time to tilt the tool, s")
    pivot.add_argument(
        "--spin-seconds",
        type=float,
        default=0.0,
        help="then time to spin the tool about its shaft, s; this finds the axis too",
    )
    pivot.add_argument(
        "--endpoint",
        type=endpoint,
        default="tcp://127.0.0.1:5553",
        help="ZeroMQ endpoint at which the tracker publishes tool/*",
    )
    add_json(pivot, "out/pivot.json", "the result")

    detector = add_verb(
        family,
        "detector",
        "measure offset, gain and dead pixels of a flat panel, for `detector` in the camera file",
        _detector,
        "fluoronav calibrate detector --dark dark/*.tif --flat flat/*.tif --out panel.npz",
    )
    for option, what in (("--dark", "frames without X-rays"), ("--flat", "frames of the open beam")):
        detector.add_argument(
            option, type=Path, nargs="+", required=True, metavar="FILE", help=f"{what} (TIFF, PNG), ten or more"
        )
    detector.add_argument(
        "--out", type=Path, required=True, metavar="FILE", help="write the calibration to this file (.npz)"
    )


def _pivot(options: argparse.Namespace) -> None:
    from fluoronav.calibration.pivot import pivot_calibration, spin_axis
    from fluoronav.calibration.tool_stream import collect_poses

    poses = collect_poses(options.endpoint, options.tool, options.seconds, "tilt the tool about its tip")
    found = pivot_calibration(poses)
    tip = [round(x, 3) for x in found.tip_mm.tolist()]
    result = {
        "tool": options.tool, "tip_mm": tip, "sigma_mm": found.sigma_mm.tolist(), "rms_mm": found.rms_mm,
        "spread_deg": found.spread_deg, "poses": found.poses, "outliers": found.outliers,
    }  # fmt: skip
    print(
        f"tip at {tip} mm in the marker's frame, within {2 * found.sigma_mm.max():.2f} mm (95 %); residual "
        f"{found.rms_mm:.2f} mm (rms) over {found.poses} poses, {found.outliers} of them excluded as outliers"
    )
    print(f"in the case's or the tool's file:\n  tip_mm: {tip}")
    if options.spin_seconds > 0:
        spun = collect_poses(options.endpoint, options.tool, options.spin_seconds, "spin the tool about its shaft")
        result["axis"] = [round(x, 5) for x in spin_axis(spun, found.tip_mm).tolist()]
        print(f"  axis: {result['axis']}")
    write_json(result, options.json)


def _detector(options: argparse.Namespace) -> None:
    from fluoronav.calibration.detector_frames import read_frames
    from fluoronav.imaging.xray.detector import DetectorCalibration

    found = DetectorCalibration.of_frames(read_frames(options.dark, "dark"), read_frames(options.flat, "flat"))
    found.save(options.out)
    print(
        f"offset {found.offset.mean():.1f} counts, gain varies by {100 * found.gain[~found.dead].std():.2f} % "
        f"(1 sigma), {found.dead.sum()} dead pixels; written: {options.out}"
    )
