"""The real wrist: radiographs of a radius whose pose is known."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fluoronav.case import read_volume
from fluoronav.geometry import inverse, moved_about
from fluoronav.imaging.registration.register import RegistrationRequest, register_files
from fluoronav.lab.bench.subjects import errors_mm

Float = NDArray[np.float64]

_STARTS = (10, 10)  # degrees and mm off the truth, at most; chosen: as a person places a start
_PRIORS = (25, 40)  # degrees and mm off the truth; chosen: as a prior may be


def bench_wrist(folder: Path, count: int, seed: int, say: Callable[[str], None]) -> dict[str, Any]:
    """Registers the real radius from random starts and, by a search, from priors that are far off."""
    reference = json.loads((folder / "reference.json").read_text())
    centre = np.mean(read_volume(folder / "radius.nrrd").corners_ct(), axis=0)
    points = centre + np.random.default_rng(0).uniform(-0.35, 0.35, (40, 3)) * 2 * centre
    out: dict[str, Any] = {"points": [], "auto": []}
    rng = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory() as temporary:
        init = Path(temporary) / "init.json"
        for time_point, cameras, auto, turn, shift, n in (
            *((t, c, False, *_STARTS, count // 2) for t in reference for c in ((1, 2), (1,), (2,))),
            *((t, (1, 2), True, *_PRIORS, max(count // 8, 1)) for t in reference),
        ):
            say(f"wrist {time_point}, view {' and '.join(map(str, cameras))}{', auto' if auto else ''}")
            truth = np.array(reference[time_point][f"T_camera_ct_cam0{cameras[0]}"])
            for _ in range(n):
                w, v = rng.standard_normal(3), rng.standard_normal(3)
                size = 1.0 if auto else rng.uniform(0.3, 1)
                twist = size * np.concatenate([np.deg2rad(turn) * w / np.linalg.norm(w), shift * v / np.linalg.norm(v)])
                T_start = inverse(moved_about(centre, twist) @ inverse(truth))
                init.write_text(json.dumps({"T_camera_ct": T_start.tolist()}))
                row = _registered(folder, time_point, cameras, init, auto, truth, points)
                out["auto" if auto else "points"].append(row)
    return out


def _registered(
    folder: Path, time_point: str, cameras: tuple[int, ...], init: Path, auto: bool, truth: Float, points: Float
) -> dict[str, Any]:
    result = register_files(
        RegistrationRequest(
            folder / "radius.nrrd",
            [folder / f"frame{time_point}_cam{c}.tif" for c in cameras],
            [folder / f"cam{c}.yaml" for c in cameras],
            init,
            auto=auto,
        )
    )
    view = result["views"][0]
    space, across, along = errors_mm(np.array(view["T_camera_ct"]), truth, points)
    return {
        "time_point": time_point, "cameras": list(cameras), "accepted": result["accepted"],
        "mtre_mm": space, "across_mm": across, "along_mm": along, "ms": result["ms"],
        "held_depth": bool(along < 1.96 * view["sigma"][5]),
    }  # fmt: skip
