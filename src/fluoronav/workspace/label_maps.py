"""Label maps of revisions, unpacked once into files of uint16 on the CT's grid."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from fluoronav.case import CaseError, read_volume
from fluoronav.case.file import read_case_file
from fluoronav.durable import moved, written
from fluoronav.geometry.grid import LIMITS as GRID
from fluoronav.planning.anatomy import vocabulary
from fluoronav.planning.revisions import Revision, Revisions
from fluoronav.planning.segmentation.engine import SegmentedStructure
from fluoronav.workspace.cases import CACHE, one_at_a_time
from fluoronav.workspace.errors import Refused
from fluoronav.workspace.scan import Scan

MOST_LABEL = 65_535
_SLICES = 16  # read at a time; chosen: 8 MB of a CT of 512 x 512


@dataclass(frozen=True)
class Unpacked:
    """An unpacked label map.

    Attributes
    ----------
    path : Path
        uint16, little-endian, z y x.
    counts : dict
        Number of voxels of each label that is there, without 0.
    """

    path: Path
    counts: dict[int, int]


def known_labels(folder: Path, revision: Revision) -> Unpacked | None:
    """The unpacked label map of a revision; None where it has to be unpacked first."""
    path = _unpacked_path(folder, revision)
    try:
        counts = json.loads(path.with_suffix(".json").read_bytes())
        path.stat()
        return Unpacked(path, {int(k): int(n) for k, n in counts.items()})
    except (OSError, ValueError, AttributeError):
        return None


def unpacked_labels(folder: Path, number: int, scan: Scan) -> Unpacked:
    """Unpacks the label map of a revision. Takes the memory of the whole volume: for a process of its own.

    Raises
    ------
    Refused
        It is not on the CT's grid.
    """
    revisions = Revisions(folder)
    revision = revisions.read(number)
    with one_at_a_time(folder):
        if (known := known_labels(folder, revision)) is not None:
            return known
        return _unpacked(folder, number, scan)


def _unpacked(folder: Path, number: int, scan: Scan) -> Unpacked:
    revisions = Revisions(folder)
    image = read_volume(revisions.labels_path(number)).image
    check_on_grid(image, scan, f"the label map of revision {number}")
    voxels = sitk.GetArrayViewFromImage(image)
    return _kept(folder, revisions.read(number), voxels, voxel_counts(voxels))


def keep_unpacked(folder: Path, revision: Revision, labels: NDArray, counts: dict[int, int]) -> Unpacked:
    """Writes a label map (z, y, x) as the unpacked one of a revision."""
    with one_at_a_time(folder):
        return _kept(folder, revision, labels, counts)


def _kept(folder: Path, revision: Revision, labels: NDArray, counts: dict[int, int]) -> Unpacked:
    path = _unpacked_path(folder, revision)
    part = path.with_suffix(".part")
    with part.open("wb") as file:
        for k in range(0, labels.shape[0], _SLICES):
            file.write(np.ascontiguousarray(labels[k : k + _SLICES], "<u2").data)
    moved(part, path)
    written(path.with_suffix(".json"), json.dumps(counts).encode())
    return Unpacked(path, counts)


def _unpacked_path(folder: Path, revision: Revision) -> Path:
    """Revisions with the same voxels share one."""
    return folder / CACHE / f"labels-{revision.labels_hash[:24]}.raw"


def mapped(path: Path, scan: Scan, *, own: bool = False) -> NDArray[np.uint16]:
    """An unpacked label map (z, y, x); with `own`, changes stay in this process and only changed pages take memory."""
    return np.memmap(path, "<u2", "c" if own else "r", shape=scan.shape)


def check_on_grid(image: sitk.Image, scan: Scan, what: str) -> None:
    """Refuses a label map that does not lie on the CT's grid: it is another patient's, or another scan's."""
    if image.GetSize() != scan.size:
        raise Refused(f"{what} has {image.GetSize()} voxels, the CT {scan.size}: is it of this scan?")
    last = [n - 1 for n in scan.size]
    corners = [[last[a] * b[a] for a in range(3)] for b in np.ndindex(2, 2, 2)]
    there = np.array([image.TransformContinuousIndexToPhysicalPoint([float(v) for v in c]) for c in corners])
    here = np.array(corners) @ scan.step_mm().T + np.array(scan.origin_ct)
    off = float(np.linalg.norm(there - here, axis=1).max())
    if not off <= GRID.same_place_mm:
        raise Refused(
            f"{what} lies up to {off:.1f} mm away from the CT: is it of this scan, and was it exported in LPS?"
        )


def first_revision(folder: Path, scan: Scan) -> Revision | None:
    """The label map that ``case.yaml`` names as revision 1, where the case has no revision; None where it names none.

    Raises
    ------
    CaseError, Refused
    """
    with one_at_a_time(folder):
        return _first(folder, scan)


def _first(folder: Path, scan: Scan) -> Revision | None:
    file, revisions = read_case_file(folder / "case.yaml"), Revisions(folder)
    if file.labels is None or revisions.numbers():
        return None
    labels = on_grid(read_volume(folder / file.labels).image, scan)
    names = {s.label: s.name for s in file.structures}
    structures = described(voxel_counts(sitk.GetArrayViewFromImage(labels)), names, scan, "import")
    return revisions.add(
        labels, structures, author="import", ct_hash=scan.ct_hash, parent=0, note="the label map that case.yaml names"
    )


def on_grid(image: sitk.Image, scan: Scan) -> sitk.Image:
    """A label map as uint8 or uint16 on the CT's grid; resampled by nearest neighbour where it is on another."""
    voxels = sitk.GetArrayViewFromImage(image)
    if voxels.min() < 0 or voxels.max() > MOST_LABEL or (voxels.dtype.kind == "f" and (voxels % 1 != 0).any()):
        raise CaseError(f"it is no label map: its values must be whole numbers from 0 to {MOST_LABEL}")
    kind = sitk.sitkUInt8 if voxels.max() < 256 else sitk.sitkUInt16
    try:
        check_on_grid(image, scan, "it")
        return sitk.Cast(image, kind)
    except Refused:
        transform = sitk.Transform()
        grid = sitk.Image(list(scan.size), kind)
        grid.SetSpacing(scan.spacing_mm)
        grid.SetOrigin(scan.origin_ct)
        grid.SetDirection(scan.direction)
        return sitk.Resample(sitk.Cast(image, kind), grid, transform, sitk.sitkNearestNeighbor, 0)


def voxel_counts(labels: NDArray) -> dict[int, int]:
    """Number of voxels of each label that is there, without 0; (z, y, x), read some slices at a time."""
    out: dict[int, int] = {}
    for k in range(0, labels.shape[0], _SLICES):
        counts = np.bincount(labels[k : k + _SLICES].reshape(-1))
        for label in np.flatnonzero(counts).tolist():
            out[label] = out.get(label, 0) + int(counts[label])
    out.pop(0, None)
    return out


def described(
    counts: Mapping[int, int], names: Mapping[int, str], scan: Scan, engine: str
) -> tuple[SegmentedStructure, ...]:
    """Structures of a label map that an engine made; names that nobody gave are the vocabulary's."""
    out = []
    for label, voxels in sorted(counts.items()):
        name = names.get(label) or name_of(label)
        out.append(SegmentedStructure(name, label, engine, 1.0, voxels, round(voxels * scan.voxel_cm3, 4)))
    return tuple(out)


def name_of(label: int) -> str:
    """The vocabulary's name of a label, or one made of its number."""
    known = vocabulary().get(label)
    return known.name if known else f"label_{label}"
