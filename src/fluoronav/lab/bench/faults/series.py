"""DICOM series as exported: empty tags, multi-frame objects, stray slices, unreadable slices.

The case id covers every voxel and its position. A series was read right if its id is that of the same CT as NRRD, which
another reader reads.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import SimpleITK as sitk

from fluoronav.lab.bench.faults.command import Ended, all_of, refusal, refused_with
from fluoronav.lab.bench.faults.place import Place
from fluoronav.lab.bench.faults.row import BenchError, Fault, Outcome
from fluoronav.lab.bench.faults.scans import build, case_id, crop, enhanced, exact_ct, save, slices, write_case

_TAGS = ("RescaleSlope", "PixelSpacing", "ImagePositionPatient", "ImageOrientationPatient")
_BROKEN = 6


def _empty_tags(place: Place) -> Outcome:
    """An empty tag in one slice of twenty, as after a failed anonymisation."""
    parts = {}
    for tag in _TAGS:
        folder, series = place.folder(), slices(crop("ct"))
        setattr(series[7], tag, None)
        save(series, folder / "ct")
        parts[tag] = refused_with(build(folder, write_case(folder, "ct")), tag, "empty", "0007.dcm")
    return all_of(parts)


def _enhanced(place: Place) -> Outcome:
    folder, ct = place.folder(), exact_ct()
    right = _right(folder, ct)
    save([enhanced(slices(ct))], folder / "ct")
    return _same(build(folder, write_case(folder, "ct")), right)


def _enhanced_beside_strays(place: Place) -> Outcome:
    """Beside two slices of another series: not chosen, and chosen by `ct_series`."""
    folder, ct = place.folder(), exact_ct()
    right = _right(folder, ct)
    whole = enhanced(slices(ct))
    save([whole], folder / "ct")
    save(slices(ct)[:2], folder / "ct", prefix="stray")
    unsaid = build(folder, write_case(folder, "ct"))
    first = _same(unsaid, right) if unsaid.code == 0 else refused_with(unsaid, "2 series", "ct_series")
    if "x 2 voxels" in unsaid.text:
        first.problems.append("a CT of two slices")
    chosen = build(folder, write_case(folder, "ct", ct_series=str(whole.SeriesInstanceUID)))
    return all_of({"not chosen": first, "chosen": _same(chosen, right)})


def _unreadable(place: Place) -> Outcome:
    """Slices at one end, where they leave no gap: three are empty, three are cut off in their header."""
    folder = place.folder()
    save(slices(crop("ct")), folder / "ct")
    for k, path in enumerate(sorted((folder / "ct").iterdir())[-_BROKEN:]):
        path.write_bytes(b"" if k % 2 else path.read_bytes()[:400])
    ended = build(folder, write_case(folder, "ct"))
    if ended.code != 0:
        return refusal(ended, "not read", "unreadable", "cut off", "empty")
    said = next((line for line in ended.text.splitlines() if "not read" in line), "")
    outcome = Outcome(seen=said or ended.last)
    if f"{_BROKEN} of 20 files were not read" in said:
        outcome.said_after_ms = ended.seconds * 1000
    else:
        outcome.problems.append(f"a CT is made, and it is not said that {_BROKEN} files of 20 were not read")
    return outcome


def _another_plane(place: Place) -> Outcome:
    """A coronal slice with the series' UID: in the middle, and as the first, which may be the reference."""
    parts = {}
    for k in (5, 0):
        folder, series = place.folder(), slices(crop("ct"))
        series[k].ImageOrientationPatient = [1, 0, 0, 0, 0, -1]
        save(series, folder / "ct")
        ended = build(folder, write_case(folder, "ct"))
        parts[f"slice {k}"] = refused_with(ended, f"{k:04d}.dcm", "plane")
    return all_of(parts)


def _non_square_pixels(place: Place) -> Outcome:
    """PixelSpacing is the distance of rows, then of columns (PS3.3 10.7.1.3): y, then x."""
    folder, ct = place.folder(), exact_ct((0.5, 1.0, 2.5))
    right = _right(folder, ct)
    save(slices(ct), folder / "ct")
    return _same(build(folder, write_case(folder, "ct")), right)


@dataclass(frozen=True)
class _Right:
    """Output of `case build` for the CT as NRRD: the id, and the line with size and spacing."""

    id: str
    size: str


def _right(folder: Path, ct: sitk.Image) -> _Right:
    """Builds a case with this CT as a NRRD file."""
    sitk.WriteImage(ct, str(folder / "right.nrrd"))
    ended = build(folder, write_case(folder, "right.nrrd"))
    id = case_id(ended)
    if id is None:
        raise BenchError(f"the same CT as NRRD is no case: {ended.last}")
    size, spacing = (" x ".join(f"{v:.3g}" for v in values) for values in (ct.GetSize(), ct.GetSpacing()))
    return _Right(id, f"CT {size} voxels of {spacing} mm")


def _same(ended: Ended, right: _Right) -> Outcome:
    """Judges whether a case was built with the same voxels at the same position."""
    id = case_id(ended)
    if id is None:
        return Outcome([f"no case: {ended.last}"])
    size = next((line for line in ended.text.splitlines() if line.startswith("CT ")), "")
    if size != right.size:
        return Outcome([f"{size}; it is {right.size}"])
    if id != right.id:
        return Outcome([f"its voxels or their place are not those of the same CT as NRRD ({size})"])
    return Outcome(seen=f"{size}, in place and values as the same CT in NRRD")


FAULTS = (
    Fault("empty-dicom-tags", "refused with file and tag", _empty_tags),
    Fault("enhanced-ct", "read as the single slices are: size, place and HU", _enhanced),
    Fault("enhanced-ct-beside-strays", "both series are named; the chosen one is read right", _enhanced_beside_strays),
    Fault("unreadable-slices", "their number is said, or refused", _unreadable),
    Fault("slice-of-another-plane", "refused with the file", _another_plane),
    Fault("non-square-pixels", "rows and columns are not exchanged", _non_square_pixels),
)
