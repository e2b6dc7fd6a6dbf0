"""X-ray angiographic multi-frame images (XA): what was recorded of a C-arm (PS3.3 A.14)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import XRayAngiographicImageStorage

from fluoronav.dicom.errors import DicomError
from fluoronav.dicom.objects.modules import decimal, finished, identity, local_time, new_object
from fluoronav.dicom.objects.provenance import Provenance, digest_of
from fluoronav.dicom.objects.source import Source

# Percentiles of the counts in the middle half of the picture that are black and white; chosen: bone is not lost in the
# dark beside what the beam hits without a patient.
_SHOWN = (1, 90)
_MOST_BYTES = 2**32 - 2  # of a value with a length of 32 bits (PS3.5 7.1.1)


@dataclass(frozen=True)
class Acquisition:
    """How frames were taken; None where it is not known.

    Attributes
    ----------
    bits : int
        Stored, 1 to 16.
    inverse : bool
        Bright is less X-ray.
    times_ms : tuple of float
        Of each frame, since the first.
    started : datetime, optional
        Time of the first frame.
    sdd_mm, sid_mm : float
        Source to detector, source to isocentre.
    pixel_mm : tuple of 2 float
        Width and height of a pixel at the detector.
    primary_deg, secondary_deg : tuple of float
        Of each frame: towards the patient's left, towards the head (PS3.3 C.8.7.5).
    kv, ma, pulse_ms : float
    """

    bits: int
    times_ms: tuple[float, ...]
    inverse: bool = False
    started: datetime | None = None
    sdd_mm: float | None = None
    sid_mm: float | None = None
    pixel_mm: tuple[float, float] | None = None
    primary_deg: tuple[float, ...] = ()
    secondary_deg: tuple[float, ...] = ()
    kv: float | None = None
    ma: float | None = None
    pulse_ms: float | None = None


def xray_run(
    source: Source,
    provenance: Provenance,
    counts: NDArray[np.uint8] | NDArray[np.uint16],
    acquisition: Acquisition,
    *,
    description: str = "Recorded fluoroscopy",
) -> Dataset:
    """A multi-frame image of recorded frames, uncompressed, in the study of the source.

    Parameters
    ----------
    source : Source
        Any image of the patient in the study that it goes to: the C-arm's, or the CT.
    provenance : Provenance
    counts : ndarray, shape (n, rows, columns)
        As received.
    acquisition : Acquisition
    description : str

    Raises
    ------
    DicomError
        No frame, pixels of another kind or above `bits`, times that are not one for each frame and rising, more than
        one object holds.
    """
    _check(counts, acquisition, source.name)
    digest = digest_of(repr(acquisition), str(counts.shape), np.ascontiguousarray(counts))
    ids = identity("XA", source, provenance, digest)
    out = new_object(XRayAngiographicImageStorage, ids, "XA")
    started = local_time(acquisition.started or provenance.made, source)
    out.ImageType = ["ORIGINAL", "PRIMARY", "SINGLE PLANE"]
    out.AcquisitionDate, out.AcquisitionTime = f"{started:%Y%m%d}", f"{started:%H%M%S.%f}"
    out.ContentDate = out.ContentTime = ""
    out.PatientOrientation = ""
    out.LossyImageCompression = "00"
    _add_pixels(out, counts, acquisition)
    _add_cine(out, acquisition)
    _add_geometry(out, acquisition)
    _add_exposure(out, acquisition)
    return finished(out, source, provenance, description)


def _check(counts: NDArray[np.uint8] | NDArray[np.uint16], acquisition: Acquisition, name: str) -> None:
    if counts.ndim != 3 or not counts.size or counts.dtype not in (np.uint8, np.uint16):
        raise DicomError(
            f"{name}: frames are an array (n, rows, columns) of 8 or 16 bits, not {counts.dtype} {counts.shape}"
        )
    if counts.nbytes > _MOST_BYTES:
        raise DicomError(
            f"{name}: {len(counts)} frames need {counts.nbytes / 2**30:.1f} GiB; one object holds 4 GiB: write "
            "fewer frames (--first, --last)"
        )
    if not 1 <= acquisition.bits <= counts.dtype.itemsize * 8 or int(counts.max()) >= 2**acquisition.bits:
        raise DicomError(f"{name}: has values up to {int(counts.max())}, which {acquisition.bits} bits do not hold")
    times = np.array(acquisition.times_ms)
    if len(times) != len(counts) or not np.isfinite(times).all() or (np.diff(times) <= 0).any():
        raise DicomError(f"{name}: {len(counts)} frames need as many times, each later than the one before")
    for angles in (acquisition.primary_deg, acquisition.secondary_deg):
        if angles and len(angles) != len(counts):
            raise DicomError(f"{name}: {len(counts)} frames have {len(angles)} angles; one for each is needed, or none")


def _add_pixels(out: Dataset, counts: NDArray[np.uint8] | NDArray[np.uint16], acquisition: Acquisition) -> None:
    """Image pixel, multi-frame, modality and VOI LUT (PS3.3 C.7.6.3, C.7.6.6, C.11)."""
    out.SamplesPerPixel, out.PhotometricInterpretation = 1, "MONOCHROME2"
    out.Rows, out.Columns = counts.shape[1:]
    if len(counts) > 1:  # with it, a single frame needs the multi-frame module's pointer to frame times, and has none
        out.NumberOfFrames = len(counts)
    out.BitsAllocated = counts.dtype.itemsize * 8
    out.BitsStored, out.HighBit, out.PixelRepresentation = acquisition.bits, acquisition.bits - 1, 0
    out.PixelIntensityRelationship, out.PixelIntensityRelationshipSign = "LIN", -1 if acquisition.inverse else 1
    rows, columns = counts.shape[1:]
    middle = counts[
        :: max(len(counts) // 8, 1), rows // 4 : -(rows // 4) or None, columns // 4 : -(columns // 4) or None
    ]
    low, high = (int(v) for v in np.percentile(middle, _SHOWN))
    out.WindowCenter, out.WindowWidth = decimal((low + high) / 2), decimal(max(high - low, 1))
    data = np.ascontiguousarray(counts, counts.dtype.newbyteorder("<")).tobytes()
    out.add_new("PixelData", "OW" if counts.dtype.itemsize == 2 else "OB", data + b"\0" * (len(data) % 2))


def _add_cine(out: Dataset, acquisition: Acquisition) -> None:
    """Cine module (PS3.3 C.7.6.5): the time of each frame after the one before."""
    if len(acquisition.times_ms) == 1:
        return
    steps = np.diff(np.array(acquisition.times_ms))
    out.FrameTimeVector = [decimal(0)] + [decimal(round(float(s), 3)) for s in steps]
    out.FrameIncrementPointer = 0x00181065  # FrameTimeVector
    mean = float(steps.mean())
    out.CineRate = out.RecommendedDisplayFrameRate = max(round(1000 / mean), 1)


def _add_geometry(out: Dataset, acquisition: Acquisition) -> None:
    """XA positioner and the detector's pixels (PS3.3 C.8.7.5, C.8.7.1)."""
    if acquisition.sdd_mm:
        out.DistanceSourceToDetector = decimal(acquisition.sdd_mm)
    if acquisition.sid_mm:
        out.DistanceSourceToPatient = decimal(acquisition.sid_mm)
    if acquisition.sdd_mm and acquisition.sid_mm:
        out.EstimatedRadiographicMagnificationFactor = decimal(acquisition.sdd_mm / acquisition.sid_mm)
    if acquisition.pixel_mm:
        width, height = acquisition.pixel_mm
        out.ImagerPixelSpacing = [decimal(height), decimal(width)]
    moves = False
    for name, angles in (("Primary", acquisition.primary_deg), ("Secondary", acquisition.secondary_deg)):
        setattr(out, f"Positioner{name}Angle", decimal(angles[0]) if angles else "")
        if angles and np.ptp(angles) > 0:
            moves = True
    if len(acquisition.times_ms) > 1:
        out.PositionerMotion = "DYNAMIC" if moves else "STATIC"
    if moves:
        for name, angles in (("Primary", acquisition.primary_deg), ("Secondary", acquisition.secondary_deg)):
            steps = [a - angles[0] for a in angles] if angles else [0.0] * len(acquisition.times_ms)
            setattr(out, f"Positioner{name}AngleIncrement", [decimal(s) for s in steps])


def _add_exposure(out: Dataset, acquisition: Acquisition) -> None:
    """X-ray acquisition module (PS3.3 C.8.7.2); type 2 attributes are empty where nothing is known."""
    out.KVP = decimal(acquisition.kv) if acquisition.kv else ""
    out.RadiationSetting = "SC"  # of a low dose, for viewing: fluoroscopy
    if acquisition.ma:
        out.XRayTubeCurrent, out.XRayTubeCurrentInuA = max(round(acquisition.ma), 1), decimal(acquisition.ma * 1000)
    else:
        out.XRayTubeCurrent = ""
    if acquisition.pulse_ms:
        out.AveragePulseWidth = decimal(acquisition.pulse_ms)
    # Required where no exposure in mAs is given (type 2C).
    out.ExposureTime = max(round(acquisition.pulse_ms), 1) if acquisition.pulse_ms else ""
