"""The atlas engine on patients other than the atlas: overlap and distance of surfaces, times, memory."""

from __future__ import annotations

import multiprocessing
import resource
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy import ndimage, stats

from fluoronav.case.volume import Volume, bounds, read_volume
from fluoronav.planning.anatomy import by_name, labels_of_scheme
from fluoronav.planning.segmentation.atlas.engine import AtlasEngine, AtlasOptions

Say = Callable[[str], object]
_LONG = (512, 512, 1000)  # voxels of the long scan


@dataclass(frozen=True)
class Subject:
    """A patient with a reference.

    Attributes
    ----------
    name, ct, labels : str
        Files below the data folder.
    scheme : str
        Of the reference's values.
    reference : str
        Who made it.
    """

    name: str
    ct: str
    labels: str
    scheme: str
    reference: str


SUBJECTS = (
    Subject(
        "patient_b", "planning/patient_b/ct.nii.gz", "planning/patient_b/labels.nii.gz", "totalsegmentator",
        "TotalSegmentator, not by hand",
    ),
    Subject(
        "patient_d", "planning/patient_d_dicom", "planning/patient_d_dicom_labels.nii.gz", "totalsegmentator",
        "TotalSegmentator on 20 slices, not by hand; parts of T12 are called T11",
    ),
    Subject(
        "l3", "planning/l3/sub-ct_label-22_ct.nii.gz", "planning/l3/sub-ct_seg-vert_label-22_msk.nii.gz", "verse",
        "sample of TPTBox; its source does not say whether by hand",
    ),
)  # fmt: skip


def subjects_in(data: Path, say: Say) -> Iterator[Subject]:
    """The subjects whose CT is in the folder of real data; says which one is worked on, and which are left out."""
    for subject in SUBJECTS:
        if (data / subject.ct).exists():
            say(f"  {subject.name} ...")
            yield subject
        else:
            say(f"  {subject.name}: {data / subject.ct} is not there; left out")


def measure(data: Path, say: Say) -> dict[str, Any]:
    """Segments each subject in a process of its own, and a scan of 1000 slices for its memory.

    Parameters
    ----------
    data : Path
        The folder of real data.
    say : callable
    """
    out: dict[str, Any] = {"subjects": {}}
    for subject in subjects_in(data, say):
        out["subjects"][subject.name] = _alone(_subject, subject, data)
    if (data / "chest/ct.nii.gz").exists():
        say(f"  a scan of {_LONG[2]} slices ...")
        out["long_scan"] = _alone(_long_scan, data)
    return out


def _alone(function: Callable[..., Any], *arguments: Any) -> Any:
    """Runs a function in a new process, whose peak of memory is its own."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(function, *arguments).result()


def _subject(subject: Subject, data: Path) -> dict[str, Any]:
    ct = read_volume(data / subject.ct)
    begun, cpu = time.perf_counter(), time.process_time()
    found = AtlasEngine(AtlasOptions()).segment(ct, lambda text, done: None)
    seconds, cpu_seconds = time.perf_counter() - begun, time.process_time() - cpu
    reference = read_volume(data / subject.labels).image
    truth = sitk.GetArrayFromImage(sitk.Resample(reference, ct.image, sitk.Transform(), sitk.sitkNearestNeighbor, 0))
    voxels, spacing = sitk.GetArrayFromImage(found.labels), np.array(ct.image.GetSpacing())[::-1]
    values = {s.name: value for value, s in labels_of_scheme(subject.scheme).items()}  # type: ignore[arg-type]
    structures = []
    for s in found.structures:
        value = values.get(s.name)
        if value is None or not (truth == value).any():
            continue
        agreement = agreement_of(voxels == s.label, truth == value, spacing)
        structures.append(
            {"name": s.name, "confidence": s.confidence, "is_cut": _is_cut(s.name, found.warnings), **agreement}
        )
    return {
        "reference": subject.reference,
        "seconds": round(seconds, 1),
        "cpu_seconds": round(cpu_seconds, 1),
        "peak_mib": _peak_mib(),
        "questions": [q.text for q in found.questions],
        "structures": structures,
    }


def agreement_of(
    mask: NDArray[np.bool_], truth: NDArray[np.bool_], spacing_mm: NDArray[np.float64]
) -> dict[str, float]:
    """Dice overlap, and mean and 95 % of the distances between two surfaces (both ways), mm.

    Parameters
    ----------
    mask, truth : ndarray, shape (z, y, x)
        Neither is empty.
    spacing_mm : ndarray, shape (3,)
        z, y, x.
    """
    dice = 2 * np.count_nonzero(mask & truth) / (np.count_nonzero(mask) + np.count_nonzero(truth))
    low, high = bounds(mask | truth) or (np.zeros(3, int), np.zeros(3, int))
    box = tuple(slice(a, b + 1) for a, b in zip(low[::-1], high[::-1], strict=True))
    both = [np.pad(m[box], 1) for m in (mask, truth)]
    edges = [m & ~np.asarray(ndimage.binary_erosion(m), bool) for m in both]
    distances = [np.asarray(ndimage.distance_transform_edt(~e, sampling=spacing_mm)) for e in edges]
    apart = np.concatenate([distances[1][edges[0]], distances[0][edges[1]]])
    return {
        "dice": round(float(dice), 3),
        "mean_mm": round(float(apart.mean()), 2),
        "p95_mm": round(float(np.percentile(apart, 95)), 2),
    }


def _is_cut(name: str, warnings: tuple[str, ...]) -> bool:
    level = name.removeprefix("vertebrae_")
    return any("cut by the end of the scan" in w and level in w.split(":")[0].split(", ") for w in warnings)


def _long_scan(data: Path) -> dict[str, Any]:
    chest = read_volume(data / "chest/ct.nii.gz").image
    height = chest.GetSize()[2] * chest.GetSpacing()[2]
    grid = sitk.Image(*_LONG, sitk.sitkInt16)
    grid.SetOrigin(chest.GetOrigin())
    grid.SetDirection(chest.GetDirection())
    grid.SetSpacing((*chest.GetSpacing()[:2], (height - chest.GetSpacing()[2]) / (_LONG[2] - 1)))
    long = sitk.Resample(chest, grid, sitk.Transform(), sitk.sitkLinear, -1024.0, sitk.sitkInt16)
    before, begun, cpu = _peak_mib(), time.perf_counter(), time.process_time()
    found = AtlasEngine(AtlasOptions()).segment(Volume(long, Path("long.nii.gz")), lambda text, done: None)
    return {
        "voxels": list(_LONG),
        "ct_mib": round(2 * float(np.prod(_LONG)) / 2**20),
        "peak_before_mib": before,
        "peak_mib": _peak_mib(),
        "seconds": round(time.perf_counter() - begun, 1),
        "cpu_seconds": round(time.process_time() - cpu, 1),
        "structures": len(found.structures),
    }


def _peak_mib() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / 2**20 if sys.platform == "darwin" else peak / 2**10)


def table(result: dict[str, Any]) -> str:
    """What was measured, for people."""
    lines = ["Atlas on patients other than the atlas: Dice, mean and 95 % distance of surfaces (mm)"]
    for name, subject in result["subjects"].items():
        lines.append(
            f"{name} (reference: {subject['reference']}): {subject['seconds']} s, {subject['cpu_seconds']} s of CPU, "
            f"peak {subject['peak_mib']} MiB; {len(subject['questions'])} question(s)"
        )
        lines.append(f"  {'structure':32} {'Dice':>6} {'mean':>6} {'95 %':>6} {'confidence':>11}")
        for s in subject["structures"]:
            cut = "  cut by the scan's end" if s["is_cut"] else ""
            lines.append(
                f"  {s['name']:32} {s['dice']:6.3f} {s['mean_mm']:6.2f} {s['p95_mm']:6.2f} {s['confidence']:11.2f}{cut}"
            )
        dice = [s["dice"] for s in subject["structures"] if s["name"] in _vertebrae()]
        if dice:
            lines.append(f"  vertebrae: mean {np.mean(dice):.3f}, lowest {min(dice):.3f}")
    for kind, pairs in (("vertebrae", True), ("other structures", False)):
        if found := confidence_against_dice(result["subjects"], vertebrae=pairs):
            lines.append(
                f"confidence of {kind} ({found['structures']}): rank correlation with Dice "
                f"{found['rank_correlation']}; Dice less confidence {found['least']:+.2f} to {found['most']:+.2f}"
            )
    if long := result.get("long_scan"):
        lines.append(
            f"scan of {' x '.join(map(str, long['voxels']))} voxels ({long['ct_mib']} MiB): peak "
            f"{long['peak_mib']} MiB, {long['cpu_seconds']} s of CPU"
        )
    return "\n".join(lines)


def confidence_against_dice(subjects: dict[str, Any], *, vertebrae: bool) -> dict[str, float] | None:
    """How the confidence of vertebrae, or of everything else, goes with the overlap; None for less than three.

    Parameters
    ----------
    subjects : dict
        What was measured of each.
    vertebrae : bool

    Returns
    -------
    dict
        Number of structures, Spearman's rank correlation, and the least and largest of Dice less confidence.
    """
    pairs = [
        (s["confidence"], s["dice"])
        for subject in subjects.values()
        for s in subject["structures"]
        if (s["name"] in _vertebrae()) == vertebrae
    ]
    if len(pairs) < 3:
        return None
    confidence, dice = np.array(pairs).T
    more = dice - confidence
    return {
        "structures": len(pairs),
        "rank_correlation": round(float(np.corrcoef(stats.rankdata(confidence), stats.rankdata(dice))[0, 1]), 2),
        "least": round(float(more.min()), 2),
        "most": round(float(more.max()), 2),
    }


def _vertebrae() -> set[str]:
    return {name for name, s in by_name().items() if s.kind == "vertebra"}
