"""Two slices at one place: the same slice twice is set aside, two different ones are refused."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pydicom
from numpy.typing import NDArray

from fluoronav.dicom.decoding import frame_pixels
from fluoronav.dicom.errors import DicomError
from fluoronav.dicom.reading import UNREADABLE, read_dataset
from fluoronav.dicom.slices import Slice, tag_name

_NAMED_FILES = 5  # in one message
# What tells two scans in one series apart, the likeliest first.
_TELLING = (
    "AcquisitionNumber", "TemporalPositionIdentifier", "TemporalPositionIndex", "EchoNumbers", "EchoTime",
    "TriggerTime", "NominalPercentageOfCardiacPhase", "DiffusionBValue", "ConvolutionKernel", "SliceThickness",
    "ImageType", "AcquisitionTime", "ContentTime",
)  # fmt: skip


def without_repeats(
    slices: list[Slice], normal: NDArray[np.float64], tolerance_mm: float, where: Path
) -> tuple[list[Slice], tuple[str, ...]]:
    """The slices without those that are there twice, and a note of what was set aside.

    Parameters
    ----------
    slices : list of Slice
        Sorted along the normal.
    normal : ndarray, shape (3,)
        LPS.
    tolerance_mm : float
        Distance along the normal up to which two slices are at one place.
    where : Path
        For messages.

    Raises
    ------
    DicomError
        Two different slices at one place.
    """
    kept: list[Slice] = []
    repeats: list[Slice] = []
    for s in slices:
        if kept and (s.position - kept[-1].position) @ normal < tolerance_mm:
            if not _same(kept[-1], s):
                raise DicomError(_contradiction(slices, normal, tolerance_mm, where))
            repeats.append(s)
        else:
            kept.append(s)
    if not repeats:
        return kept, ()
    names = [r.name if r.file.has_groups else r.file.path.name for r in repeats]
    listed = ", ".join(names[:_NAMED_FILES]) + (", ..." if len(names) > _NAMED_FILES else "")
    return kept, (f"{where}: {len(names)} slices are there twice, with the same pixels, and were set aside ({listed})",)


def whole(path: Path) -> pydicom.FileDataset:
    """A file with its pixel data; raises :class:`DicomError` where it cannot be read."""
    try:
        return read_dataset(path, force=True)
    except DicomError:
        raise
    except UNREADABLE as error:
        raise DicomError(
            f"{path}: pixel data cannot be decoded ({error}); the file is cut off or damaged: export it again"
        ) from error


def _same(a: Slice, b: Slice) -> bool:
    """Whether two slices have the same values, place and orientation."""
    if (a.slope, a.intercept) != (b.slope, b.intercept) or not np.allclose(a.position, b.position, atol=1e-3):
        return False
    pixels = [frame_pixels(whole(s.file.path), s.frame, s.file.path) for s in (a, b)]
    return np.array_equal(pixels[0], pixels[1])


def _contradiction(slices: list[Slice], normal: NDArray[np.float64], tolerance_mm: float, where: Path) -> str:
    """How many different slices are at one place, which two, and by what tag they differ."""
    pairs = [(a, b) for a, b in pairwise(slices) if (b.position - a.position) @ normal < tolerance_mm]
    a, b = pairs[0]
    at = np.round(a.position, 2).tolist()
    differ = next((k for k in _TELLING if _value(a, k) != _value(b, k)), None)
    by = f"; they differ in {tag_name(differ)}" if differ else ""
    return (
        f"{where}: two slices at the same position {at} have different pixels: {a.name} and {b.name}{by}. "
        f"{len(pairs)} of {len(slices)} slices follow another at one place: several scans (phases, echoes, "
        "reconstructions) in one series; export the one that is meant alone"
    )


def _value(s: Slice, keyword: str) -> str:
    """An attribute of a slice, of its own groups first."""
    if s.file.has_groups:
        for element in s.file.header.PerFrameFunctionalGroupsSequence[s.frame]:
            if element.VR == "SQ" and element.value and keyword in element.value[0]:
                return str(element.value[0].get(keyword))
    return str(s.file.header.get(keyword))
