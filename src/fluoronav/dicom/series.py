"""A CT series from a folder of DICOM files: single slices (PS3.3 C.7.6.2, image plane module; C.11.1, rescale) and
multi-frame objects whose functional groups place each frame (PS3.3 C.7.6.16; Enhanced CT, X-Ray 3D).

SimpleITK's series reader sorts and stacks whatever it gets. Here the headers are checked before any pixels are read:
slices that do not form one complete, orthogonal volume are refused with a reason.
"""

from __future__ import annotations

import struct
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
import SimpleITK as sitk
from numpy.typing import NDArray
from pydicom.datadict import tag_for_keyword
from pydicom.errors import InvalidDicomError
from pydicom.pixels.utils import pixel_array
from pydicom.uid import UID

from fluoronav.dicom.errors import DicomError
from fluoronav.geometry.grid import LIMITS as GRID
from fluoronav.geometry.grid import Grid, GridError, check_grid, check_size


@dataclass(frozen=True, slots=True)
class SeriesLimits:
    """Limits of a CT series; all are chosen."""

    position_mm: float = 0.05  # tolerance of a slice's position, or the fraction below of the step if that is more
    sideways_steps: float = 0.01  # of a slice across the normal
    gap_steps: float = 0.02  # of a step against the median step
    cosine: float = 1e-3  # tolerance of direction cosines
    spacing: float = 1e-4  # relative tolerance of the pixel spacing between slices
    most_file_bytes: int = GRID.most_bytes + 256 * 2**20  # a file holds little besides its pixels
    most_element_bytes: int = 1 << 20  # longer elements of a header are not loaded; no tag that is read is so long
    named_files: int = 5  # in one message


LIMITS = SeriesLimits()
# This transfer syntax is inflated as a whole when a file is opened, so that its size cannot be bounded.
_DEFLATED = b"1.2.840.10008.1.2.1.99"
# Volumes reconstructed by a C-arm or a dental scanner; their modality is that of the C-arm.
_XRAY_3D = {"1.2.840.10008.5.1.4.1.1.13.1.1", "1.2.840.10008.5.1.4.1.1.13.1.2"}
_CT_CLASSES = {
    "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.2.1", "1.2.840.10008.5.1.4.1.1.2.2",
    "1.2.840.10008.5.1.4.1.1.7", "1.2.840.10008.5.1.4.1.1.7.2", "1.2.840.10008.5.1.4.1.1.7.3",
}  # fmt: skip
_MODALITIES = {"MR": "magnetic resonance", "PT": "positron emission", "NM": "nuclear medicine", "US": "ultrasound"}
# What pydicom raises on a header that is no DICOM, or is truncated.
_UNREADABLE = (
    InvalidDicomError, OSError, EOFError, ValueError, KeyError, AttributeError, TypeError, NotImplementedError,
    struct.error,
)  # fmt: skip


@dataclass(frozen=True)
class _File:
    """The header and the path of a readable file with pixels."""

    header: pydicom.Dataset
    path: Path

    @property
    def frames(self) -> int:
        return max(int(self.header.get("NumberOfFrames") or 1), 1)

    @property
    def has_groups(self) -> bool:
        return "PerFrameFunctionalGroupsSequence" in self.header

    @property
    def is_placed(self) -> bool:
        """Whether it has a tag of a position in the patient, if only an empty one."""
        return self.has_groups or "ImageOrientationPatient" in self.header or "ImagePositionPatient" in self.header


@dataclass(frozen=True)
class _Slice:
    """One slice: a file, or one frame of it."""

    file: _File
    frame: int
    position: NDArray[np.float64]
    orientation: NDArray[np.float64]
    spacing: NDArray[np.float64]
    slope: float
    intercept: float

    @property
    def name(self) -> str:
        return f"{self.file.path}" + (f", frame {self.frame + 1}" if self.file.has_groups else "")


def read_dicom_series(folder: Path, series: str | None = None) -> tuple[sitk.Image, tuple[str, ...]]:
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
    tuple of str
        What was not read of the folder.

    Raises
    ------
    DicomError
        No image, several series, another modality, an empty or absent tag, gantry tilt, missing or doubled slices,
        slices of different size or orientation.
    """
    by_series: dict[str, list[_File]] = defaultdict(list)
    left_out: dict[str, list[str]] = defaultdict(list)
    paths = sorted(p for p in folder.iterdir() if not p.is_dir())
    for path in paths:
        file, reason = _opened(path)
        if file is None:
            left_out[reason].append(path.name)
        else:
            by_series[str(file.header.get("SeriesInstanceUID") or "")].append(file)
    for uid, files in list(by_series.items()):
        if not any(f.is_placed for f in files):
            left_out["without a place in the patient"] += [f.path.name for f in by_series.pop(uid)]
    warnings = _left_out_text(left_out, len(paths), folder)
    if not by_series:
        raise DicomError(f"{folder}: holds no DICOM slices with a position in the patient" + _because(warnings))
    if series is not None and series not in by_series:
        raise DicomError(f"{folder}: has no series {series}; it has {', '.join(by_series)}")
    if series is None and len(by_series) > 1:
        listed = "; ".join(_described(uid, files) for uid, files in by_series.items())
        raise DicomError(f"{folder}: holds {len(by_series)} series: {listed}. Name one as `ct_series`")
    uid = next(iter(by_series)) if series is None else series
    if len(by_series) > 1:
        others = "; ".join(_described(o, files) for o, files in by_series.items() if o != uid)
        warnings = (*warnings, f"{folder}: beside `ct_series` it holds other series, which were not read: {others}")
    try:
        return _stack(by_series[uid], folder), warnings
    except (DicomError, GridError) as error:
        raise DicomError(f"{error}{_because(warnings)}") from error


def read_dicom_file(path: Path) -> tuple[sitk.Image, tuple[str, ...]]:
    """Reads one multi-frame file as :func:`read_dicom_series` reads a folder."""
    file, reason = _opened(path)
    if file is None:
        raise DicomError(f"{path}: cannot be read as a volume: {reason}")
    if not file.has_groups:
        raise DicomError(f"{path}: is one slice of a series; name the folder that holds all of it")
    return _stack([file], path), ()


def _opened(path: Path) -> tuple[_File | None, str]:
    """The header of a file with pixels; or the reason why it has none."""
    if not path.is_file():
        return None, "pipe, socket or device"
    length = path.stat().st_size
    if length == 0:
        return None, "empty"
    if length > LIMITS.most_file_bytes:
        return None, f"larger than {LIMITS.most_file_bytes / 2**30:.2f} GiB"
    try:
        with path.open("rb") as file:
            start = file.read(4096)
        # Without the preamble an element of group 2 or 8 comes first.
        if start[128:132] != b"DICM" and start[:2] not in (b"\x02\x00", b"\x08\x00"):
            return None, "no DICOM"
        if _DEFLATED in start:
            return None, "deflated as a whole (write it as explicit VR little endian)"
        header = pydicom.dcmread(path, stop_before_pixels=True, force=True, defer_size=LIMITS.most_element_bytes)
        if "Rows" not in header or "Columns" not in header:
            return None, "without an image, or cut off in the header"
        return _File(header, path), ""
    except _UNREADABLE:
        return None, "unreadable"


def _left_out_text(left_out: dict[str, list[str]], total: int, folder: Path) -> tuple[str, ...]:
    count = sum(map(len, left_out.values()))
    if not count:
        return ()
    parts = []
    for reason, names in left_out.items():
        listed = ", ".join(names[: LIMITS.named_files]) + (", ..." if len(names) > LIMITS.named_files else "")
        parts.append(f"{len(names)} {reason} ({listed})")
    return (
        f"{folder}: {count} of {total} files were not read: {'; '.join(parts)}. "
        "If they are slices, the CT is shorter than the scan",
    )


def _because(warnings: Sequence[str]) -> str:
    return "".join(f". {w}" for w in warnings)


def _described(uid: str, files: list[_File]) -> str:
    header = files[0].header
    count = sum(f.frames for f in files)
    return f"{uid} ({header.get('Modality')}, {count} slices, {header.get('SeriesDescription', 'no description')})"


def _stack(files: list[_File], folder: Path) -> sitk.Image:
    for file in files:
        _check_kind(file)
    for keyword, what in (("FrameOfReferenceUID", "frames of reference"), ("PatientID", "patients")):
        values = {str(f.header.get(keyword)) for f in files if f.header.get(keyword)}
        if len(values) > 1:
            raise DicomError(f"{folder}: the slices of this series are of {len(values)} {what} ({keyword} differs)")
    slices = [s for file in files for s in _slices_of(file)]
    if len(slices) < 2:
        raise DicomError(f"{folder}: the series has one slice; a volume needs at least 2")
    orientation = _common_orientation(slices, folder)
    row, column = orientation[:3], orientation[3:]
    normal = np.cross(row, column)
    first = slices[0]
    shape = Counter((s.file.header.Rows, s.file.header.Columns) for s in slices).most_common(1)[0][0]
    for s in slices:
        if (s.file.header.Rows, s.file.header.Columns) != shape:
            raise DicomError(f"{s.name}: Rows or Columns differ from the other slices'")
        if not np.allclose(s.spacing, first.spacing, rtol=LIMITS.spacing):
            raise DicomError(f"{s.name}: PixelSpacing {s.spacing.tolist()} differs from {first.name}'s")
    check_size((shape[1], shape[0], len(slices)), 4, folder)

    slices = sorted(slices, key=lambda s: float(s.position @ normal))
    positions = np.array([s.position for s in slices])
    step = _step(positions, normal, folder)
    # PixelSpacing is (row distance, column distance) = (y, x).
    scale = np.array([first.spacing[1], first.spacing[0], step])
    grid = Grid(
        (int(shape[1]), int(shape[0]), len(slices)), np.column_stack([row, column, normal]) * scale, positions[0]
    )
    check_grid(grid, folder)
    image = sitk.GetImageFromArray(_hounsfield(slices, shape))
    image.SetSpacing(scale.tolist())
    image.SetOrigin(positions[0].tolist())
    image.SetDirection(np.column_stack([row, column, normal]).ravel().tolist())
    return image


def _check_kind(file: _File) -> None:
    """Refuses an object that is no CT; the text names what it is."""
    header, path = file.header, file.path
    meta = getattr(header, "file_meta", None)
    uid = str(header.get("SOPClassUID") or (meta.get("MediaStorageSOPClassUID") if meta else "") or "")
    modality = str(header.get("Modality") or "")
    if uid not in _XRAY_3D:
        if modality != "CT":
            known = f" ({_MODALITIES[modality]})" if modality in _MODALITIES else ""
            is_what = f"is {modality}{known}" if modality else "is empty or absent"
            raise DicomError(f"{path}: Modality (0008,0060) {is_what}, not CT; a case needs a CT in HU")
        if uid and uid not in _CT_CLASSES:
            raise DicomError(f"{path}: is {UID(uid).name} although Modality (0008,0060) says CT")
    if int(header.get("SamplesPerPixel") or 1) != 1:
        raise DicomError(f"{path}: SamplesPerPixel (0028,0002) is {header.SamplesPerPixel}: a picture, not a CT")
    if file.frames > 1 and not file.has_groups:
        raise DicomError(
            f"{path}: has {file.frames} frames but no functional groups that place them in the patient "
            "(PerFrameFunctionalGroupsSequence (5200,9230)); export it as single slices or as enhanced CT"
        )
    if "ModalityLUTSequence" in header:
        raise DicomError(f"{path}: ModalityLUTSequence (0028,3000) is not read; export it with a rescale")


def _slices_of(file: _File) -> list[_Slice]:
    header, path = file.header, file.path
    if not file.has_groups:
        return [_slice(file, 0, [header] * 4, path)]
    per_frame = header.PerFrameFunctionalGroupsSequence or ()
    if len(per_frame) != file.frames:
        raise DicomError(
            f"{path}: NumberOfFrames (0028,0008) is {file.frames}, but {len(per_frame)} frames are described in "
            "PerFrameFunctionalGroupsSequence (5200,9230)"
        )
    shared = (header.get("SharedFunctionalGroupsSequence") or [pydicom.Dataset()])[0]
    out = []
    for k, own in enumerate(per_frame):
        parts = []
        for macro in (
            "PlanePositionSequence", "PlaneOrientationSequence", "PixelMeasuresSequence",
            "PixelValueTransformationSequence",
        ):  # fmt: skip
            items = own.get(macro) or shared.get(macro)
            if not items:
                raise DicomError(f"{path}, frame {k + 1}: {_tag(macro)} is absent or empty")
            parts.append(items[0])
        out.append(_slice(file, k, parts, f"{path}, frame {k + 1}"))
    return out


def _slice(file: _File, frame: int, parts: Sequence[pydicom.Dataset], where: Path | str) -> _Slice:
    """One slice, from the datasets with its position, orientation, spacing and rescale (often one and the same)."""
    position, orientation, measures, values = parts
    unit = str(values.get("RescaleType") or "HU")
    # Most CBCT write US (unspecified); the values tell later whether they are HU.
    if unit not in ("HU", "HU_MOD", "US"):
        raise DicomError(f"{where}: {_tag('RescaleType')} is {unit}, not HU")
    slope, intercept = (_numbers(values, k, 1, where)[0] for k in ("RescaleSlope", "RescaleIntercept"))
    if not slope > 0:
        raise DicomError(f"{where}: {_tag('RescaleSlope')} is {slope:g}; it must be above 0")
    cosines = _numbers(orientation, "ImageOrientationPatient", 6, where)
    row, column = cosines[:3], cosines[3:]
    if abs(row @ column) > LIMITS.cosine or abs(np.linalg.norm(np.cross(row, column)) - 1) > LIMITS.cosine:
        tag = _tag("ImageOrientationPatient")
        raise DicomError(f"{where}: {tag} {cosines.tolist()} is not two perpendicular unit vectors")
    spacing = _numbers(measures, "PixelSpacing", 2, where)
    if not (spacing > 0).all():
        raise DicomError(f"{where}: {_tag('PixelSpacing')} {spacing.tolist()} must be above 0")
    at = _numbers(position, "ImagePositionPatient", 3, where)
    return _Slice(file, frame, at, cosines, spacing, float(slope), float(intercept))


def _numbers(dataset: pydicom.Dataset, keyword: str, count: int, where: Path | str) -> NDArray[np.float64]:
    """The numbers of a tag; raises :class:`DicomError` that names file and tag."""
    if keyword not in dataset:
        raise DicomError(f"{where}: {_tag(keyword)} is absent")
    try:
        value = dataset[keyword].value
        if value is None or value == "" or (count > 1 and len(value) == 0):
            raise DicomError(f"{where}: {_tag(keyword)} is empty")
        numbers = np.array(value, dtype=np.float64).reshape(-1)
    except DicomError:
        raise
    except (TypeError, OverflowError, ValueError) as error:
        raise DicomError(f"{where}: {_tag(keyword)} is not a number") from error
    if len(numbers) != count or not np.isfinite(numbers).all():
        raise DicomError(f"{where}: {_tag(keyword)} is {numbers.tolist()}, not {count} finite number(s)")
    return numbers


def _tag(keyword: str) -> str:
    tag = tag_for_keyword(keyword) or 0
    return f"{keyword} ({tag >> 16:04x},{tag & 0xFFFF:04x})"


def _common_orientation(slices: list[_Slice], folder: Path) -> NDArray[np.float64]:
    """The orientation of most slices; raises :class:`DicomError` that names a slice in another plane."""
    counted = Counter(tuple(np.round(s.orientation, 2)) for s in slices)
    common = counted.most_common(1)[0][0]
    orientation = next(s.orientation for s in slices if tuple(np.round(s.orientation, 2)) == common)
    odd = [s for s in slices if np.abs(s.orientation - orientation).max() > LIMITS.cosine]
    if odd:
        raise DicomError(
            f"{folder}: slices lie in different planes (a localiser among them?): {len(odd)} of {len(slices)} not in "
            f"that of the others: {odd[0].name}"
        )
    return orientation


def _step(positions: NDArray[np.float64], normal: NDArray[np.float64], folder: Path) -> float:
    """The distance between slices, mm; raises :class:`DicomError` where it is not uniform."""
    steps = np.diff(positions, axis=0)
    along = steps @ normal
    step = float(np.median(along))
    if along.min() < LIMITS.position_mm:
        at = positions[int(along.argmin())]
        raise DicomError(f"{folder}: two slices at the same position {np.round(at, 2).tolist()}; remove the repeats")
    sideways = float(np.median(np.linalg.norm(steps - np.outer(along, normal), axis=1)))
    if sideways > max(LIMITS.position_mm, LIMITS.sideways_steps * step):
        tilt = np.degrees(np.arctan2(sideways, step))
        raise DicomError(
            f"{folder}: the gantry was tilted by {tilt:.1f} degrees, so the slices do not stack at right angles; "
            "resample the series to an orthogonal grid first"
        )
    gaps = np.flatnonzero(np.abs(along - step) > max(LIMITS.position_mm, LIMITS.gap_steps * step))
    if len(gaps):
        missing = int(np.rint(along[gaps] / step - 1).sum())
        raise DicomError(
            f"{folder}: slices are missing or unevenly spaced: {along[gaps[0]]:.2f} mm after "
            f"{np.round(positions[gaps[0]], 2).tolist()} where the others are {step:.2f} mm apart"
            + (f" ({missing} missing in all)" if missing > 0 else "")
        )
    # A single slice that is displaced sideways does not change the median.
    astray = np.linalg.norm(positions - positions[0] - np.outer((positions - positions[0]) @ normal, normal), axis=1)
    if astray.max() > max(LIMITS.position_mm, LIMITS.sideways_steps * step) * 2:
        at = positions[int(astray.argmax())]
        where = np.round(at, 2).tolist()
        raise DicomError(f"{folder}: the slice at {where} lies {astray.max():.2f} mm beside the others")
    return step


def _hounsfield(slices: list[_Slice], shape: tuple[int, int]) -> NDArray[np.float32]:
    """The slices' pixels in HU, shape (n, rows, columns); a file is read once, and one at a time."""
    voxels = np.empty((len(slices), *shape), np.float32)
    of_file: dict[Path, list[int]] = defaultdict(list)
    for k, s in enumerate(slices):
        of_file[s.file.path].append(k)
    for path, indices in of_file.items():
        try:
            dataset = pydicom.dcmread(path, force=True)
            for k in indices:
                s = slices[k]
                np.multiply(pixel_array(dataset, index=s.frame), np.float32(s.slope), out=voxels[k], casting="unsafe")
                voxels[k] += np.float32(s.intercept)
        except (*_UNREADABLE, RuntimeError) as error:
            reason = f"pixel data cannot be decoded ({error}); convert it to uncompressed DICOM"
            raise DicomError(f"{path}: {reason}") from error
    return voxels
