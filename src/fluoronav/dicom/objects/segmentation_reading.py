"""Segmentations (SEG) of ours and of others as label maps (PS3.3 A.51, A.85)."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import highdicom as hd
import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from fluoronav.dicom.errors import DicomError
from fluoronav.dicom.objects.anatomy import name_of
from fluoronav.dicom.reading import read_dataset

_CLASSES = {
    "1.2.840.10008.5.1.4.1.1.66.4": "Segmentation Storage",
    "1.2.840.10008.5.1.4.1.1.66.7": "Label Map Segmentation Storage",
}
_MOST_VOXELS = 1 << 30  # chosen: a CT of 1000 slices of 512 x 512 has a quarter of this


@dataclass(frozen=True)
class ReadSegment:
    """One segment.

    Attributes
    ----------
    number : int
        Its value in the label map.
    label : str
        Its name in the object (0062,0005).
    name : str or None
        The structure by its codes, as fluoronav names it; None where the codes are of something else.
    by_person : bool
        SegmentAlgorithmType is MANUAL.
    algorithm : str
    """

    number: int
    label: str
    name: str | None
    by_person: bool
    algorithm: str


@dataclass(frozen=True)
class ReadSegmentation:
    """A segmentation object.

    Attributes
    ----------
    labels : SimpleITK.Image
        uint16; values are the segments' numbers.
    segments : tuple of ReadSegment
    frame_of_reference_uid : str
    series_uids : tuple of str
        Of the series that it was made on, where it says them.
    warnings : tuple of str
    """

    labels: sitk.Image = field(repr=False)
    segments: tuple[ReadSegment, ...]
    frame_of_reference_uid: str
    series_uids: tuple[str, ...]
    warnings: tuple[str, ...]


def is_segmentation(path: Path) -> bool:
    """Whether a file is a DICOM segmentation."""
    try:
        with path.open("rb") as file:
            if file.read(132)[128:] != b"DICM":
                return False
        return str(read_dataset(path, with_pixels=False).get("SOPClassUID", "")) in _CLASSES
    except Exception:  # a damaged header is no segmentation; whoever reads the file as something says why
        return False


def read_segmentation(path: Path) -> ReadSegmentation:
    """Reads a segmentation object.

    Raises
    ------
    DicomError
        It is something else, damaged, has no segments, or its planes make no regular volume.
    """
    try:
        dataset = read_dataset(path)
    except Exception as error:
        raise DicomError(f"{path}: cannot be read as DICOM: {error}") from error
    if str(dataset.get("SOPClassUID", "")) not in _CLASSES:
        raise DicomError(f"{path}: is no segmentation, but {dataset.get('Modality') or 'something else'}")
    frames = int(dataset.get("NumberOfFrames") or 1)
    if frames * int(dataset.get("Rows") or 0) * int(dataset.get("Columns") or 0) > _MOST_VOXELS * 64:
        raise DicomError(f"{path}: has {frames} frames of {dataset.Rows} x {dataset.Columns}: too large to read")
    try:
        seg = hd.seg.Segmentation.from_dataset(dataset, copy=False)
        segments = tuple(_segment(item) for item in seg.SegmentSequence if int(item.SegmentNumber) > 0)
        if not segments:
            raise DicomError(f"{path}: has no segments")
        labels, warnings = _labels(seg, segments)
    except DicomError:
        raise
    except Exception as error:
        raise DicomError(f"{path}: cannot be read as a segmentation: {error}") from error
    series = tuple(str(s.SeriesInstanceUID) for s in dataset.get("ReferencedSeriesSequence") or ())
    frame = str(dataset.get("FrameOfReferenceUID") or "")
    return ReadSegmentation(labels, segments, frame, series, tuple(f"{path}: {w}" for w in warnings))


def _segment(item: Dataset) -> ReadSegment:
    kind = (item.get("SegmentedPropertyTypeCodeSequence") or [Dataset()])[0]
    side = (kind.get("SegmentedPropertyTypeModifierCodeSequence") or [Dataset()])[0]
    value = str(kind.get("CodeValue") or "")
    found = name_of(value, str(side.get("CodeValue") or "")) if value else None
    label = str(item.get("SegmentLabel") or f"segment_{item.SegmentNumber}")
    by_person = str(item.get("SegmentAlgorithmType") or "") == "MANUAL"
    return ReadSegment(int(item.SegmentNumber), label, found, by_person, str(item.get("SegmentAlgorithmName") or ""))


def _labels(seg: hd.seg.Segmentation, segments: tuple[ReadSegment, ...]) -> tuple[sitk.Image, list[str]]:
    """The label map; where segments share voxels, the smaller one has them."""
    warnings: list[str] = []
    try:
        volume = seg.get_volume(combine_segments=True, dtype=np.uint16)
        return _image(np.asarray(volume.array), np.asarray(volume.affine)), warnings
    except (RuntimeError, ValueError) as error:
        if len(segments) == 1 and "overlap" in str(error).lower():
            raise
    out: NDArray[np.uint16] | None = None
    affine = np.eye(4)
    masks = []
    for segment in segments:
        volume = seg.get_volume(segment_numbers=[segment.number])
        # A fractional segmentation says probabilities or shares.
        mask = np.asarray(volume.array).reshape(volume.array.shape[:3]) >= 0.5
        affine = np.asarray(volume.affine)
        masks.append((int(mask.sum()), segment.number, np.packbits(mask)))
        out = np.zeros(mask.shape, np.uint16) if out is None else out
    assert out is not None
    shared = 0
    for count, number, packed in sorted(masks, key=lambda m: -m[0]):
        mask = np.unpackbits(packed, count=out.size).astype(bool).reshape(out.shape)
        shared += int(np.count_nonzero(out[mask])) if count else 0
        out[mask] = number
    if shared:
        warnings.append(f"{shared} voxels are of more than one segment; the smaller segment keeps them")
    return _image(out, affine), warnings


def _image(voxels: NDArray, affine: NDArray[np.float64]) -> sitk.Image:
    """A label map of voxels (slice, row, column) and the matrix from these indices to LPS mm."""
    axes, origin = affine[:3, [2, 1, 0]].copy(), affine[:3, 3].copy()
    if np.linalg.det(axes) < 0:
        origin += axes[:, 2] * (voxels.shape[0] - 1)
        axes[:, 2] *= -1
        voxels = voxels[::-1]
    spacing = np.linalg.norm(axes, axis=0)
    out = sitk.GetImageFromArray(np.ascontiguousarray(voxels))
    out.SetOrigin(origin.tolist())
    out.SetSpacing(spacing.tolist())
    out.SetDirection((axes / spacing).ravel().tolist())
    return out
