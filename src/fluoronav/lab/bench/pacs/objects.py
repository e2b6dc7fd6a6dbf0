"""How long a segmentation takes to make and to write: 256 x 256 x 256 voxels, 40 structures."""

from __future__ import annotations

import tempfile
import time
from datetime import datetime
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage

from fluoronav.dicom.objects import Producer, Provenance, Segment, Source, segmentation, source_of, write_object
from fluoronav.dicom.objects.segmentation import Encoding

SIDE, STRUCTURES = 256, 40
_PIXEL_MM = 1.0
_MEASURED: dict[str, Encoding] = {"seg_binary_s": "BINARY", "seg_labelmap_s": "LABELMAP"}


def measure_objects(side: int = SIDE, structures: int = STRUCTURES) -> dict[str, float]:
    """Seconds from a label map in memory to a file, for each way of encoding.

    Parameters
    ----------
    side : int
        Voxels along each axis.
    structures : int

    Returns
    -------
    dict
        ``seg_binary_s`` and ``seg_labelmap_s``, s.
    """
    source, labels = _series(side), _labels(side, structures)
    provenance = Provenance(Producer(), datetime(2026, 1, 1, 12))
    segments = [Segment(f"structure_{k}", k) for k in range(1, structures + 1)]
    # Imports and the first use of the codec are no part of either.
    segmentation(_series(8), provenance, _labels(8, 2), segments[:2], encoding="LABELMAP")
    out = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, encoding in _MEASURED.items():
            start = time.perf_counter()
            made = segmentation(source, provenance, labels, segments, encoding=encoding)
            write_object(made, Path(folder) / f"{name}.dcm")
            out[name] = round(time.perf_counter() - start, 3)
    return out


def _labels(side: int, structures: int) -> sitk.Image:
    """Ellipsoids, as far apart as organs are, on the grid of :func:`_series`."""
    rng = np.random.default_rng(5)
    voxels = np.zeros((side, side, side), np.uint8)
    axis = np.arange(side)
    for k in range(1, structures + 1):
        centre, radius = rng.uniform(0.1, 0.9, 3) * side, rng.uniform(0.04, 0.14, 3) * side
        z, y, x = (((axis - c) / r) ** 2 for c, r in zip(centre, radius, strict=True))
        voxels[z[:, None, None] + y[None, :, None] + x[None, None, :] < 1] = k
    image = sitk.GetImageFromArray(voxels)
    image.SetSpacing([_PIXEL_MM] * 3)
    return image


def _series(side: int) -> Source:
    """The headers of an axial series."""
    slices = []
    for k in range(side):
        d = Dataset()
        d.SOPClassUID, d.SOPInstanceUID = CTImageStorage, f"2.25.7{k + 1}"
        d.StudyInstanceUID, d.SeriesInstanceUID, d.FrameOfReferenceUID = "2.25.71", "2.25.72", "2.25.73"
        d.PatientID, d.PatientName, d.Modality, d.InstanceNumber = "bench", "Bench", "CT", k + 1
        d.Rows, d.Columns, d.PixelSpacing, d.SliceThickness = side, side, [_PIXEL_MM] * 2, _PIXEL_MM
        d.ImagePositionPatient, d.ImageOrientationPatient = [0, 0, k * _PIXEL_MM], [1, 0, 0, 0, 1, 0]
        slices.append(d)
    return source_of(slices, "bench series")
