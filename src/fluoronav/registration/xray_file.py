"""One X-ray frame from a file: TIFF, PNG or DICOM, with the camera and the prior that a DICOM header gives.

Angles and distances are those of PS3.3 C.8.7.5 (XA positioner) and C.8.7.1 (X-ray image). The primary angle turns the
detector about the patient's long axis, positive towards the patient's left (LAO), the secondary angle towards the head
(CRA), both 0 with the detector in front of the patient.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.errors import InvalidDicomError

from fluoronav.enhancement.aperture import dark_level, find_aperture
from fluoronav.geometry import Camera, CameraError

Float = NDArray[np.float64]
Float32 = NDArray[np.float32]

_MASK_SIDE = 128
_DIRECTIONS = {"L": (1, 0, 0), "R": (-1, 0, 0), "P": (0, 1, 0), "A": (0, -1, 0), "H": (0, 0, 1), "F": (0, 0, -1)}


class XrayFileError(ValueError):
    """A frame that cannot be used; the text names the file, what is wrong and what to do."""


@dataclass(frozen=True)
class XrayGeometry:
    """What a DICOM header says about how the frame was taken.

    Attributes
    ----------
    camera : Camera
        ``T_camera_world`` is about the isocentre, with the patient's axes; it holds while the patient does not move.
    mirrored : bool
        The file shows the patient as seen from the detector; its columns were reversed for the camera.
    """

    camera: Camera
    mirrored: bool

    @property
    def R_camera_ct(self) -> Float:
        """Patient axes (LPS) to camera axes, shape (3, 3)."""
        return self.T_camera_isocentre[:3, :3]

    @property
    def T_camera_isocentre(self) -> Float:
        """Patient axes about the isocentre to camera, shape (4, 4), mm."""
        assert self.camera.T_camera_world is not None
        return self.camera.T_camera_world


@dataclass(frozen=True)
class XrayFrame:
    """One frame.

    Attributes
    ----------
    attenuation : ndarray of float32, shape (rows, cols)
        Minus the logarithm of the intensity, up to gain and offset.
    seen : ndarray of bool
        Inside the aperture, at a smaller size.
    geometry : XrayGeometry or None
        From the header, where there is one.
    """

    path: Path
    attenuation: Float32
    seen: NDArray[np.bool_]
    geometry: XrayGeometry | None


def read_xray(path: Path, *, with_camera: bool, frame: int = 1) -> XrayFrame:
    """Reads a frame.

    Parameters
    ----------
    path : Path
        TIFF or PNG (8 or 16 bit), or DICOM XA, RF, CR or DX.
    with_camera : bool
        True where a camera file is given: the header's geometry is not needed, and pixels are left as they lie.
    frame : int
        Which frame of a DICOM multi-frame image, from 1.

    Raises
    ------
    XrayFileError
    """
    if not path.is_file():
        raise XrayFileError(f"{path}: no such file")
    try:
        dataset = pydicom.dcmread(path)
    except InvalidDicomError:
        return _plain(path)
    except Exception as error:
        # A damaged header makes pydicom raise whatever its parser stumbled over.
        raise XrayFileError(f"{path}: is damaged and cannot be read as DICOM: {error}") from error
    return _dicom(path, dataset, with_camera, frame)


def _plain(path: Path) -> XrayFrame:
    image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if image is None:
        raise XrayFileError(f"{path}: cannot be read as an image (TIFF, PNG or DICOM)")
    if image.ndim == 3:
        image = cv2.cvtColor(image[..., :3], cv2.COLOR_BGR2GRAY)
    if image.dtype not in (np.uint8, np.uint16):
        raise XrayFileError(f"{path}: has pixels of type {image.dtype}; 8 or 16 bit counts were expected")
    counts = image.astype(np.float32)
    return XrayFrame(path, *_of_counts(path, counts, float(np.iinfo(image.dtype).max)), None)


def _dicom(path: Path, dataset: pydicom.Dataset, with_camera: bool, frame: int) -> XrayFrame:
    modality = str(dataset.get("Modality", ""))
    if modality not in ("XA", "RF", "CR", "DX"):
        raise XrayFileError(f"{path}: has modality {modality or 'none'}; XA, RF, CR or DX was expected")
    try:
        pixels = np.asarray(dataset.pixel_array)
    except Exception as error:
        raise XrayFileError(f"{path}: its pixel data cannot be decoded: {error}") from error
    if int(dataset.get("SamplesPerPixel", 1)) != 1:
        raise XrayFileError(f"{path}: is a colour image; an X-ray has one value a pixel")
    if pixels.ndim == 3:
        if not 1 <= frame <= len(pixels):
            raise XrayFileError(f"{path}: has {len(pixels)} frames, not {frame}")
        pixels = pixels[frame - 1]
    full = float(2 ** int(dataset.get("BitsStored", 16)) - 1)
    counts = pixels.astype(np.float32)
    sign = int(dataset.get("PixelIntensityRelationshipSign", 0) or 0)
    if sign == -1 or (sign == 0 and dataset.get("PhotometricInterpretation") == "MONOCHROME1"):
        counts = full - counts  # dark where there is more X-ray
    geometry = None if with_camera else _geometry(path, dataset)
    if geometry is not None and geometry.mirrored:
        counts = np.ascontiguousarray(counts[:, ::-1])
    attenuation, seen = _of_counts(path, counts, full)
    if str(dataset.get("PixelIntensityRelationship", "LIN")) == "LOG":
        attenuation = -counts / full
    return XrayFrame(path, attenuation, seen, geometry)


def _of_counts(path: Path, counts: Float32, full: float) -> tuple[Float32, NDArray[np.bool_]]:
    if float(counts.std()) == 0:
        raise XrayFileError(f"{path}: every pixel has the same value: there is nothing to register to")
    small = np.asarray(cv2.resize(counts, (_MASK_SIDE, _MASK_SIDE), interpolation=cv2.INTER_AREA), dtype=np.float32)
    seen = find_aperture(small).seen
    dark = dark_level(small, seen)
    return -np.log(np.maximum(counts - np.float32(dark), 1) / (full - dark)), seen


def _geometry(path: Path, dataset: pydicom.Dataset) -> XrayGeometry:
    to_detector = _number(path, dataset, "DistanceSourceToDetector", "(0018,1110)")
    to_patient = _number(path, dataset, "DistanceSourceToPatient", "(0018,1111)")
    primary = np.deg2rad(_number(path, dataset, "PositionerPrimaryAngle", "(0018,1510)", positive=False))
    secondary = np.deg2rad(_number(path, dataset, "PositionerSecondaryAngle", "(0018,1511)", positive=False))
    spacing = dataset.get("ImagerPixelSpacing")
    if spacing is None or len(spacing) != 2 or not all(float(s) > 0 for s in spacing):
        raise XrayFileError(f"{path}: has no ImagerPixelSpacing (0018,1164): give a camera file with --camera")
    rows, cols = int(dataset.Rows), int(dataset.Columns)
    beam = np.array(
        [np.sin(primary) * np.cos(secondary), -np.cos(primary) * np.cos(secondary), np.sin(secondary)]
    )  # from the source to the detector, LPS
    right, down = _image_axes(path, dataset)
    y = down - (down @ beam) * beam
    if np.linalg.norm(y) < 0.1:
        raise XrayFileError(f"{path}: PatientOrientation (0020,0020) and the positioner angles contradict each other")
    y /= np.linalg.norm(y)
    x = np.cross(y, beam)  # right-handed: a camera at the source
    mirrored = bool(x @ right < 0)
    K = np.array(
        [
            [to_detector / float(spacing[1]), 0, (cols - 1) / 2],
            [0, to_detector / float(spacing[0]), (rows - 1) / 2],
            [0, 0, 1.0],
        ]
    )
    T = np.eye(4)
    T[:3, :3], T[2, 3] = np.stack([x, y, beam]), to_patient
    try:
        camera = Camera(rows, cols, K, T_camera_world=T, name=str(path))
    except CameraError as error:
        raise XrayFileError(str(error)) from error
    return XrayGeometry(camera, mirrored)


def _number(path: Path, dataset: pydicom.Dataset, name: str, tag: str, *, positive: bool = True) -> float:
    try:
        value = float(dataset.get(name, None))  # pyright: ignore[reportArgumentType]
    except (TypeError, ValueError):
        raise XrayFileError(
            f"{path}: has no {name} {tag}: give a camera file with --camera and a pose with --init"
        ) from None
    if not np.isfinite(value) or (positive and value <= 0):
        raise XrayFileError(f"{path}: {name} {tag} is {value:g}, which no C-arm has")
    return value


def _image_axes(path: Path, dataset: pydicom.Dataset) -> tuple[Float, Float]:
    """Patient directions of the image's rows (right) and columns (down); facing the patient, head up, if unsaid."""
    words = [str(w) for w in (dataset.get("PatientOrientation") or ("L", "F"))]
    axes = []
    for word in words[:2]:
        # "LA" is mainly left and somewhat anterior.
        parts = [np.array(_DIRECTIONS[c], dtype=np.float64) / (k + 1) for k, c in enumerate(word) if c in _DIRECTIONS]
        if not parts:
            raise XrayFileError(f"{path}: PatientOrientation (0020,0020) {words} names no direction of the patient")
        axes.append(np.sum(parts, axis=0) / np.linalg.norm(np.sum(parts, axis=0)))
    if len(axes) != 2:
        raise XrayFileError(f"{path}: PatientOrientation (0020,0020) {words} needs two directions")
    return axes[0], axes[1]
