"""Surfaces of the chest's labels and of masks drawn by hand: closed, true to their volume, kept by cuts; CPU times."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from fluoronav.planning.meshes.of_mask import mask_of, surface_of_mask
from fluoronav.planning.meshes.solid import MeshError, solid, surface_of
from fluoronav.planning.plan.schema import Cut
from fluoronav.planning.simulation.cuts import cut

_SOURCES = {
    "chest (TotalSegmentator)": "chest/labels.nii.gz",
    "VerSe 010 (by hand)": "planning/masks/sub-verse010_seg-vert_msk.nii.gz",
}
_FEWEST_VOXELS = 200  # chosen: smaller labels are splinters at the edge of a scan
_KERF_MM = 1.0


def measure(data: Path, say: Callable[[str], object]) -> dict[str, Any]:
    """Surfaces of all labels, and two oblique cuts through each.

    Parameters
    ----------
    data : Path
        The folder of real data.
    say : callable
        Takes a text for each step.
    """
    return {name: _measured(data / path, say) for name, path in _SOURCES.items() if (data / path).exists()}


def _measured(path: Path, say: Callable[[str], object]) -> dict[str, Any]:
    labels = sitk.ReadImage(str(path))
    if "float" in labels.GetPixelIDTypeAsString():
        labels = sitk.Cast(labels, sitk.sitkUInt16)
    values, counts = np.unique(sitk.GetArrayViewFromImage(labels), return_counts=True)
    rows = []
    for value, voxels in zip(values.tolist(), counts.tolist(), strict=True):
        if value == 0 or voxels < _FEWEST_VOXELS:
            continue
        say(f"  {path.name}: label {int(value)}")
        rows.append(_one(labels, int(value)))
    made = [r for r in rows if not r["failed"]]
    return {
        "labels": len(rows),
        "failed": [r for r in rows if r["failed"]],
        "watertight": sum(r["watertight"] for r in made),
        "volume_error_max": max((abs(r["volume_error"]) for r in made), default=None),
        "conservation_max": max((abs(r["conservation"]) for r in made), default=None),
        "pieces_watertight": all(r["pieces_watertight"] for r in made),
        "surface_s": _quantiles([r["surface_s"] for r in made]),
        "cuts_s": _quantiles([r["cuts_s"] for r in made]),
    }


def _one(labels: sitk.Image, value: int) -> dict[str, Any]:
    started = time.process_time()
    try:
        made = surface_of_mask(mask_of(labels, value, str(value)), str(value))
        after = time.process_time()
        whole = solid(made.mesh, str(value))
        middle = tuple(made.mesh.points.mean(0).tolist())
        planes = [
            Cut(id=n, origin="drawn", structure="bone", point_ct=middle, normal_ct=normal, kerf_mm=_KERF_MM)
            for n, normal in (("a", (0.2, 0.1, 1.0)), ("b", (0.9, 0.4, -0.2)))
        ]
        bone = cut("bone", whole, planes)
        done = time.process_time()
    except MeshError as error:
        return {"label": value, "failed": str(error)}
    return {
        "label": value, "failed": "", "watertight": made.mesh.is_watertight, "volume_error": made.volume_error,
        "conservation": bone.conservation,
        "pieces_watertight": all(surface_of(p.body).is_watertight for p in bone.pieces),
        "surface_s": after - started, "cuts_s": done - after,
    }  # fmt: skip


def _quantiles(values: list[float]) -> dict[str, float]:
    return {"p50": float(np.median(values)), "max": max(values)} if values else {}


def table(result: dict[str, Any]) -> str:
    """What was measured, for people."""
    head = ("labels", 6), ("closed", 6), ("volume", 9), ("cuts keep", 9), ("surface s", 12), ("cuts s", 8)
    lines = [" ".join([f"{'meshes':26s}", *(f"{text:>{width}s}" for text, width in head)])]
    for name, r in result.items():
        s, c = r["surface_s"], r["cuts_s"]
        lines.append(
            f"{name:26s} {r['labels']:6d} {r['watertight']:6d} {100 * r['volume_error_max']:7.3f} % "
            f"{r['conservation_max']:9.0e} {s['p50']:5.2f} {s['max']:6.2f} {c['p50']:8.3f}"
        )
        lines += [f"  label {f['label']}: {f['failed']}" for f in r["failed"]]
    return "\n".join(lines)
