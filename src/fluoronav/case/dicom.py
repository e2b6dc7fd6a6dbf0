"""A CT series from a folder of DICOM files (PS3.3 C.7.6.2, image plane module; C.11.1, rescale).

SimpleITK's own series reader sorts and stacks what it is given; what an OR needs is a refusal with a reason when the
slices do not make one orthogonal, complete volume. So the headers are read and judged here.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import numpy as np
import pydicom
import SimpleITK as sitk
from pydicom.errors import InvalidDicomError

from fluoronav.case.schema import CaseError

_GEOMETRY_TOLERANCE_MM = 0.05


def read_dicom_series(folder: Path, series: str | None = None) -> sitk.Image:
    """Reads one CT series: sorted by position, rescale applied, geometry verified.

    Parameters
    ----------
    folder : Path
        Searched without its sub-folders.
    series : str, optional
        SeriesInstanceUID to take.

    Returns
    -------
    SimpleITK.Image
        float32 HU, LPS.

    Raises
    ------
    CaseError
        No image, several series, gantry tilt, missing or doubled slices, slices of different size or orientation.
    """
    by_series: dict[str, list[pydicom.Dataset]] = defaultdict(list)
    for path in sorted(p for p in folder.iterdir() if p.is_file()):
        try:
            dataset = pydicom.dcmread(path)
        except (InvalidDicomError, OSError):
            continue
        if "ImageOrientationPatient" in dataset and "PixelData" in dataset:
            by_series[str(dataset.get("SeriesInstanceUID", ""))].append(dataset)
    if not by_series:
        raise CaseError(f"{folder}: holds no DICOM slices with a position in the patient")
    if series is not None and series not in by_series:
        raise CaseError(f"{folder}: has no series {series}; it has {', '.join(by_series)}")
    if series is None and len(by_series) > 1:
        listed = "; ".join(
            f"{uid} ({len(s)} slices, {s[0].get('SeriesDescription', 'no description')})"
            for uid, s in by_series.items()
        )
        raise CaseError(f"{folder}: holds {len(by_series)} series: {listed}. Name one as `ct_series`")
    slices = by_series[series] if series else next(iter(by_series.values()))
    return _stack(slices, folder)


def _stack(slices: list[pydicom.Dataset], folder: Path) -> sitk.Image:
    first = slices[0]
    if len(slices) < 2:
        raise CaseError(f"{folder}: the series has one slice; a volume needs at least 2")
    orientation = np.array(first.ImageOrientationPatient, dtype=float)
    row, column = orientation[:3], orientation[3:]
    normal = np.cross(row, column)
    if abs(row @ column) > 1e-3 or abs(np.linalg.norm(normal) - 1) > 1e-3:
        raise CaseError(
            f"{folder}: ImageOrientationPatient {orientation.tolist()} is not two perpendicular unit vectors"
        )
    for s in slices:
        if np.abs(np.array(s.ImageOrientationPatient, dtype=float) - orientation).max() > 1e-3:
            raise CaseError(f"{folder}: slices lie in different planes (a localiser among them?): {s.filename}")
        if (s.Rows, s.Columns) != (first.Rows, first.Columns) or list(s.PixelSpacing) != list(first.PixelSpacing):
            raise CaseError(f"{folder}: {s.filename}: Rows, Columns or PixelSpacing differ from the first slice's")

    slices = sorted(slices, key=lambda s: float(np.array(s.ImagePositionPatient, dtype=float) @ normal))
    positions = np.array([s.ImagePositionPatient for s in slices], dtype=float)
    steps = np.diff(positions, axis=0)
    along = steps @ normal
    step = float(np.median(along))
    if along.min() < _GEOMETRY_TOLERANCE_MM:
        at = positions[int(along.argmin())]
        raise CaseError(f"{folder}: two slices at the same position {np.round(at, 2).tolist()}; remove the repeats")
    sideways = float(np.median(np.linalg.norm(steps - np.outer(along, normal), axis=1)))
    if sideways > max(_GEOMETRY_TOLERANCE_MM, 0.01 * step):
        tilt = np.degrees(np.arctan2(sideways, step))
        raise CaseError(
            f"{folder}: the gantry was tilted by {tilt:.1f} degrees, so the slices do not stack at right angles; "
            "resample the series to an orthogonal grid first"
        )
    gaps = np.flatnonzero(np.abs(along - step) > max(_GEOMETRY_TOLERANCE_MM, 0.02 * step))
    if len(gaps):
        missing = int(np.rint(along[gaps] / step - 1).sum())
        raise CaseError(
            f"{folder}: slices are missing or unevenly spaced: {along[gaps[0]]:.2f} mm after "
            f"{np.round(positions[gaps[0]], 2).tolist()} where the others are {step:.2f} mm apart"
            + (f" ({missing} missing in all)" if missing > 0 else "")
        )
    try:
        voxels = np.stack(
            [
                s.pixel_array.astype(np.float32) * float(s.get("RescaleSlope", 1)) + float(s.get("RescaleIntercept", 0))
                for s in slices
            ]
        )
    except (RuntimeError, NotImplementedError, ValueError, AttributeError) as error:
        raise CaseError(
            f"{folder}: pixel data cannot be decoded ({error}); convert it to uncompressed DICOM"
        ) from error
    image = sitk.GetImageFromArray(voxels)
    # PixelSpacing is (row distance, column distance) = (y, x).
    image.SetSpacing([float(first.PixelSpacing[1]), float(first.PixelSpacing[0]), step])
    image.SetOrigin(positions[0].tolist())
    image.SetDirection(np.column_stack([row, column, normal]).ravel().tolist())
    return image
