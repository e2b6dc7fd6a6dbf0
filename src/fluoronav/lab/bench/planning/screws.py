"""Pedicle screws proposed on vertebra masks: how many fit, how they are graded, how long they take."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from fluoronav.planning.anatomy import Scheme, labels_of_scheme, level_of
from fluoronav.planning.screws.bone import VertebraError
from fluoronav.planning.screws.catalogue import read_catalogue
from fluoronav.planning.screws.grading import graded
from fluoronav.planning.screws.pedicle import SIGNS
from fluoronav.planning.screws.proposal import proposed
from fluoronav.planning.screws.vertebra import read_vertebra

# File, scheme, and whether it was drawn by hand.
_MASKS: tuple[tuple[str, Scheme, bool], ...] = (
    ("planning/masks/sub-verse010_seg-vert_msk.nii.gz", "verse", True),
    ("planning/masks/sub-gl003_dir-ax_seg-vert_msk.nii.gz", "verse", True),
    ("planning/l3/sub-ct_seg-vert_label-22_msk.nii.gz", "verse", True),
    ("chest/labels.nii.gz", "totalsegmentator", False),
)
_GRADINGS = 20  # of each screw, for the time of one; chosen


def measure(data: Path, say: Callable[[str], object]) -> dict[str, Any]:
    """Proposes and grades screws on all vertebrae from C7 to L6 of the masks."""
    rows, refused = [], []
    catalogue = read_catalogue()
    for name, scheme, by_hand in _MASKS:
        path = data / name
        if not path.exists():
            say(f"{path} is not there; left out")
            continue
        say(name)
        image = sitk.ReadImage(str(path))
        present = set(np.unique(sitk.GetArrayViewFromImage(image)).tolist())
        for value, structure in labels_of_scheme(scheme).items():
            level = level_of(structure.name)
            if value not in present or level is None or not (level == "C7" or level[0] in "TL"):
                continue
            try:
                begun = time.process_time()
                vertebra = read_vertebra(image, value, level)
                shared_s = (time.process_time() - begun) / 2
            except VertebraError as error:
                refused.append({"mask": path.name, "by_hand": by_hand, "level": level, "reason": str(error)})
                continue
            rows += [
                {"mask": path.name, "by_hand": by_hand, **_one(vertebra, side, catalogue, shared_s)} for side in SIGNS
            ]
    if not rows:
        raise FileNotFoundError(f"{data}: has none of the masks; name the folder of real data with --data")
    return {
        "masks_by_hand": len({r["mask"] for r in rows if r["by_hand"]}),
        "pedicles": rows,
        "levels_refused": refused,
        **{
            key: _summary([r for r in rows if r["by_hand"] == hand])
            for key, hand in (("hand", True), ("network", False))
        },
    }


def _one(vertebra, side, catalogue, shared_s: float) -> dict[str, Any]:
    begun = time.process_time()
    screw = proposed(vertebra, side, catalogue)
    cpu_s = shared_s + time.process_time() - begun
    row = {
        "level": vertebra.level, "side": side, "fits": screw.fits, "width_mm": screw.width_mm, "cpu_s": cpu_s,
        "reason": screw.reason,
    }  # fmt: skip
    if not screw.fits:
        return row
    assert screw.entry_ct and screw.tip_ct and screw.diameter_mm
    found = graded(screw.entry_ct, screw.tip_ct, screw.diameter_mm, side, vertebra)
    begun = time.process_time()
    for _ in range(_GRADINGS):
        graded(screw.entry_ct, screw.tip_ct, screw.diameter_mm, side, vertebra)
    grading_ms = (time.process_time() - begun) / _GRADINGS * 1000
    return row | {
        "diameter_mm": screw.diameter_mm, "length_mm": screw.length_mm, "grade": found.grade,
        "clearance_mm": found.clearance_mm, "breach_mm": found.breach_mm, "grading_ms": grading_ms,
    }  # fmt: skip


def _summary(rows: list[dict[str, Any]]) -> dict[str, Any] | None:
    if not rows:
        return None
    fit = [r for r in rows if r["fits"]]
    grades = Counter(r["grade"] for r in fit)
    return {
        "pedicles": len(rows),
        "fit": len(fit),
        "grades": dict(sorted(grades.items())),
        "a_or_b": (grades["A"] + grades["B"]) / len(fit) if fit else None,
        "widest_refused_mm": max((r["width_mm"] for r in rows if not r["fits"]), default=None),
        "cpu_s": {"median": float(np.median([r["cpu_s"] for r in rows])), "max": max(r["cpu_s"] for r in rows)},
        "grading_ms": float(np.median([r["grading_ms"] for r in fit])) if fit else None,
    }


def table(result: dict[str, Any]) -> str:
    """What was measured, for people."""
    lines = [f"screws: {result['masks_by_hand']} masks drawn by hand"]
    for key, name in (("hand", "drawn by hand"), ("network", "made by a network")):
        s = result[key]
        if s is None:
            continue
        grades = ", ".join(f"{n} {grade}" for grade, n in s["grades"].items())
        share = "none" if s["a_or_b"] is None else f"{s['a_or_b']:.0%} A or B"
        widest = "" if s["widest_refused_mm"] is None else f", the widest of them {s['widest_refused_mm']:.1f} mm wide"
        lines += [
            f"{name}: {s['pedicles']} pedicles, {s['fit']} take a screw: {grades} ({share}); "
            f"{s['pedicles'] - s['fit']} refused{widest}",
            f"  {s['cpu_s']['median']:.2f} s of CPU each, at most {s['cpu_s']['max']:.2f}; a grading "
            f"{s['grading_ms'] or 0:.1f} ms",
        ]
    lines += [f"  {r['reason']}" for r in result["levels_refused"]]
    return "\n".join(lines)
