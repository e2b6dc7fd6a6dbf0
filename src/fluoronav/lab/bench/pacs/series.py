"""A CT series to send: the embedded case on another grid, its structures on the same grid, and no name."""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian

from fluoronav.case import read_volume
from fluoronav.case.file import read_case_file
from fluoronav.dicom.objects import Segment
from fluoronav.paths import embedded_case

SLICES, SIDE = 78, 512
_AIR_HU, _INTERCEPT = -1000, -1024
_ROOT = "1.2.826.0.1.3680043.8.498"  # of UIDs that pydicom makes
# Stands in UIDs and in PatientID; another number of as many digits makes another patient's series of the same files.
_NUMBER = 1_000_000_000
_MOST_HEADER_BYTES = 4096  # of these files; pixels lie behind


@dataclass(frozen=True)
class SentSeries:
    """A series in a folder, ready to send."""

    files: tuple[Path, ...]
    study: str
    patient_id: str


@dataclass(frozen=True)
class Template:
    """A series that can be written again and again, each time as another patient's.

    Attributes
    ----------
    slices : tuple of bytes
        Part 10 files.
    labels : SimpleITK.Image
        The case's structures on the grid of the slices: what an analysis would find.
    segments : tuple of Segment
    """

    slices: tuple[bytes, ...]
    labels: sitk.Image
    segments: tuple[Segment, ...]

    def write(self, folder: Path, number: int) -> SentSeries:
        """Writes the files of the patient with a number."""
        return write_series(self.slices, folder, number)


def write_series(slices: tuple[bytes, ...], folder: Path, number: int) -> SentSeries:
    """Writes the slices of a :class:`Template` as those of the patient with a number, from 1 to 999,999,999."""
    folder.mkdir(parents=True)
    old, new = str(_NUMBER).encode(), str(_NUMBER + number).encode()
    files = []
    for k, content in enumerate(slices):
        path = folder / f"{k:04}.dcm"
        with path.open("wb") as file:
            file.write(content[:_MOST_HEADER_BYTES].replace(old, new))
            file.write(memoryview(content)[_MOST_HEADER_BYTES:])
        files.append(path)
    return SentSeries(tuple(files), f"{_ROOT}.{_NUMBER + number}.1", f"BENCH-{_NUMBER + number}")


def template(count: int = SLICES, side: int = SIDE) -> Template:
    """The embedded case as an axial series.

    Parameters
    ----------
    count, side : int
        Slices, and pixels along each side of one.
    """
    path = embedded_case()
    case = read_case_file(path)
    assert case.labels is not None
    ct, labels = (read_volume(path.parent / name).image for name in (case.ct, case.labels))
    grid = _grid(ct, count, side)
    hu = sitk.GetArrayFromImage(sitk.Resample(ct, grid, sitk.Transform(), sitk.sitkLinear, _AIR_HU, sitk.sitkInt16))
    on_grid = sitk.Resample(labels, grid, sitk.Transform(), sitk.sitkNearestNeighbor, 0, sitk.sitkUInt8)
    slices = tuple(_slice(grid, k, hu[k]) for k in range(count))
    return Template(slices, on_grid, tuple(Segment(s.name, s.label, s.color) for s in case.structures))


def _grid(ct: sitk.Image, count: int, side: int) -> sitk.Image:
    """An empty axial grid around a CT: square slices, as many as asked for."""
    size, spacing = np.array(ct.GetSize()), np.array(ct.GetSpacing())
    middle = np.array(ct.TransformContinuousIndexToPhysicalPoint(((size - 1) / 2).tolist()))
    extent = size * spacing
    pixel_mm, apart_mm = round(float(max(extent[:2])) / side, 4), round(float(extent[2]) / count, 4)
    grid = sitk.Image(side, side, count, sitk.sitkUInt8)
    steps = np.array([pixel_mm, pixel_mm, apart_mm])
    grid.SetSpacing(steps.tolist())
    grid.SetOrigin(np.round(middle - steps * (np.array(grid.GetSize()) - 1) / 2, 3).tolist())
    return grid


def _slice(grid: sitk.Image, k: int, hu: np.ndarray) -> bytes:
    """One slice as a Part 10 file."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = CTImageStorage, UID(f"{_ROOT}.{_NUMBER}.2.{k + 1}")
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    d = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    d.SOPClassUID, d.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
    d.StudyInstanceUID, d.SeriesInstanceUID = f"{_ROOT}.{_NUMBER}.1", f"{_ROOT}.{_NUMBER}.2"
    d.FrameOfReferenceUID, d.Modality, d.InstanceNumber = f"{_ROOT}.{_NUMBER}.3", "CT", k + 1
    d.PatientID, d.PatientName, d.PatientBirthDate, d.PatientSex = f"BENCH-{_NUMBER}", "Bench^Series", "19700101", "O"
    d.StudyDate, d.StudyTime, d.StudyID, d.AccessionNumber = "20260101", "120000", "1", ""
    d.ReferringPhysicianName, d.SeriesNumber, d.BodyPartExamined = "", 1, "CHEST"
    d.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    d.Rows, d.Columns = hu.shape
    d.SamplesPerPixel, d.PhotometricInterpretation, d.PixelRepresentation = 1, "MONOCHROME2", 0
    d.BitsAllocated, d.BitsStored, d.HighBit = 16, 16, 15
    dx, dy, dz = grid.GetSpacing()
    d.PixelSpacing, d.SliceThickness, d.ImageOrientationPatient = [dy, dx], dz, [1, 0, 0, 0, 1, 0]
    d.ImagePositionPatient = [round(v, 4) for v in grid.TransformIndexToPhysicalPoint((0, 0, k))]
    d.RescaleSlope, d.RescaleIntercept, d.RescaleType = 1, _INTERCEPT, "HU"
    d.WindowCenter, d.WindowWidth = 300, 1500
    d.PixelData = (hu.astype(np.int32) - _INTERCEPT).astype("<u2").tobytes()
    out = BytesIO()
    d.save_as(out, enforce_file_format=True)
    return out.getvalue()
