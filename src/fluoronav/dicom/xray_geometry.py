"""The camera and the prior pose in a DICOM header.

Angles and distances are those of PS3.3 C.8.7.5 (XA positioner), C.8.7.1 (X-ray image) and C.8.19.6 (enhanced XA). The
primary angle turns the detector about the patient's long axis, positive towards the patient's left (LAO), the secondary
angle towards the head (CRA), both 0 with the detector in front of the patient.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fluoronav.dicom.errors import DicomError
from fluoronav.dicom.xray_angles import PositionerAngles, read_angles
from fluoronav.dicom.xray_header import XrayHeader
from fluoronav.dicom.xray_readout import isocentre_px, read_readout
from fluoronav.dicom.xray_spacing import LIMITS as SPACING
from fluoronav.dicom.xray_spacing import DetectorSpacing, differ, read_spacing
from fluoronav.geometry import Camera, CameraError

Float = NDArray[np.float64]

_DIRECTIONS = {"L": (1, 0, 0), "R": (-1, 0, 0), "P": (0, 1, 0), "A": (0, -1, 0), "H": (0, 0, 1), "F": (0, 0, -1)}


@dataclass(frozen=True, slots=True)
class HeaderLimits:
    """Limits of a C-arm's header; all are chosen. Those without a unit are relative differences."""

    least_mm: float = 200.0  # distances from the source
    most_mm: float = 3000.0
    magnification: float = 0.15  # to that of the distances: the table height it refers to is not the isocentre
    focal: float = 0.05  # between the header's focal length and a calibrated one: headers have nominal distances


LIMITS = HeaderLimits()


@dataclass(frozen=True)
class XrayGeometry:
    """The geometry of a frame by its DICOM header.

    Attributes
    ----------
    camera : Camera
        The world of ``T_camera_world`` has its origin at the isocentre and the patient's axes. It is valid while the
        patient does not move.
    mirrored : bool
        The file shows the patient as seen from the detector; its columns were reversed for the camera.
    spacing : DetectorSpacing
    angles : PositionerAngles
    isocentre_source : str
        What says where the isocentre is projected.
    notes : tuple of str
        What is not from the usual tags.
    """

    camera: Camera
    mirrored: bool
    spacing: DetectorSpacing
    angles: PositionerAngles
    isocentre_source: str
    notes: tuple[str, ...] = ()

    @property
    def R_camera_ct(self) -> Float:
        """Patient axes (LPS) to camera axes, shape (3, 3)."""
        return self.T_camera_isocentre[:3, :3]

    @property
    def T_camera_isocentre(self) -> Float:
        """Patient axes about the isocentre to camera, shape (4, 4), mm."""
        assert self.camera.T_camera_world is not None
        return self.camera.T_camera_world


def check_camera(header: XrayHeader, camera: Camera) -> None:
    """Compares a camera file with the header of the same image.

    Raises
    ------
    DicomError
    """
    spacing, distance = read_spacing(header), header.number("DistanceSourceToDetector")
    if spacing is None:
        return
    down, right = spacing.down_mm, spacing.right_mm
    if read_readout(header).quarter_turns % 2:
        down, right = right, down  # the camera file is of pixels as they are read
    if differ(down / right, float(camera.K[0, 0] / camera.K[1, 1]), SPACING.aspect):
        raise DicomError(
            f"{header.path}: its pixels are {down:g} mm high and {right:g} mm wide; {camera.name} has focal "
            f"lengths of {camera.K[0, 0]:.1f} and {camera.K[1, 1]:.1f} pixels, which are of other pixels"
        )
    if distance and differ(distance / right, float(camera.K[0, 0]), LIMITS.focal):
        raise DicomError(
            f"{header.path}: DistanceSourceToDetector {distance:g} mm and {spacing.source} {right:g} mm are a "
            f"focal length of {distance / right:.1f} pixels, {camera.name} says {camera.K[0, 0]:.1f}: it is not of "
            "this zoom or this distance"
        )


def read_geometry(header: XrayHeader) -> XrayGeometry:
    """The camera and the prior pose.

    Raises
    ------
    DicomError
        The header is incomplete, or contradicts itself.
    """
    path = header.path
    if header.is_picture:
        raise DicomError(
            f"{path}: is a Secondary Capture, a picture of an image: it has no geometry of its exposure. Give a camera "
            "file with --camera and a pose with --init, or export the original image (XA, RF, CR, DX)"
        )
    to_detector = _length(header, "DistanceSourceToDetector", "(0018,1110)")
    to_patient = _to_patient(header, to_detector)
    angles = read_angles(header)
    spacing = read_spacing(header)
    if spacing is None:
        raise DicomError(
            f"{path}: has no ImagerPixelSpacing (0018,1164), FieldOfViewDimensions (0018,1149) that fit its rows and "
            "columns, or DetectorElementSpacing (0018,7022) with DetectorBinning (0018,701a): give a camera file with "
            "--camera"
        )
    rows, cols = header.integer("Rows", 0), header.integer("Columns", 0)
    if header.get("PatientOrientation") is None and not read_readout(header).is_plain:
        raise DicomError(
            f"{path}: was turned or mirrored after it was read (FieldOfViewRotation (0018,7032), "
            "FieldOfViewHorizontalFlip (0018,7034)) and has no PatientOrientation (0020,0020), which would say how it "
            "lies now: export it without"
        )
    R_camera_ct, mirrored = _rotation(header, np.deg2rad(angles.primary_deg), np.deg2rad(angles.secondary_deg))
    row_px, col_px, isocentre_source = isocentre_px(header, spacing)
    if mirrored:
        col_px = cols - 1 - col_px
    K = np.array(
        [
            [to_detector / spacing.right_mm, 0, col_px],
            [0, to_detector / spacing.down_mm, row_px],
            [0, 0, 1.0],
        ]
    )
    T = np.eye(4)
    T[:3, :3], T[2, 3] = R_camera_ct, to_patient
    try:
        camera = Camera(rows, cols, K, T_camera_world=T, name=str(path))
        camera.check_plausible()
    except CameraError as error:
        raise DicomError(str(error)) from error
    return XrayGeometry(camera, mirrored, spacing, angles, isocentre_source, _notes(header, spacing, angles))


def _notes(header: XrayHeader, spacing: DetectorSpacing, angles: PositionerAngles) -> tuple[str, ...]:
    """What a user should know of where the geometry is from."""
    notes = []
    if header.get("ImagerPixelSpacing") is None:
        size = f"{spacing.down_mm:.4g} x {spacing.right_mm:.4g} mm"
        notes.append(f"has no ImagerPixelSpacing (0018,1164): its pixels of {size} are from {spacing.source}")
    if "increment" in angles.source:
        at = f"{angles.primary_deg:g} and {angles.secondary_deg:g} degrees"
        notes.append(f"the C-arm moved: the angles, {at}, are {angles.source}")
    if header.frame > 1 and header.word("TableMotion") == "DYNAMIC":
        notes.append("the table moved (TableMotion (0018,1134)): the prior's place is that of frame 1")
    return tuple(notes)


def _rotation(header: XrayHeader, primary: float, secondary: float) -> tuple[Float, bool]:
    """Patient axes to camera axes, shape (3, 3), and whether the image is mirrored; the angles are in rad."""
    beam = np.array(
        [np.sin(primary) * np.cos(secondary), -np.cos(primary) * np.cos(secondary), np.sin(secondary)]
    )  # from the source to the detector, LPS
    right, down = _image_axes(header)
    y = down - (down @ beam) * beam
    if np.linalg.norm(y) < 0.1:
        raise DicomError(
            f"{header.path}: PatientOrientation (0020,0020) and the positioner angles contradict each other"
        )
    y /= np.linalg.norm(y)
    x = np.cross(y, beam)  # right-handed: a camera at the source
    return np.stack([x, y, beam]), bool(x @ right < 0)


def _length(header: XrayHeader, name: str, tag: str) -> float:
    value = header.number(name)
    if value is None:
        raise DicomError(f"{header.path}: has no {name} {tag}: give a camera file with --camera and a pose with --init")
    if not LIMITS.least_mm <= value <= LIMITS.most_mm:
        raise DicomError(
            f"{header.path}: {name} {tag} is {value:g}, which no C-arm has; {LIMITS.least_mm:g} to "
            f"{LIMITS.most_mm:g} mm was expected: give a camera file with --camera and a pose with --init"
        )
    return value


def _to_patient(header: XrayHeader, to_detector: float) -> float:
    """Distance from the source to the isocentre, mm: by its own tag, the patient's, or the magnification.

    Tags that are there must agree.
    """
    magnification = header.number("EstimatedRadiographicMagnificationFactor")
    if magnification is not None and magnification < 1:
        raise DicomError(
            f"{header.path}: EstimatedRadiographicMagnificationFactor (0018,1114) is {magnification:g}; a picture is "
            "larger than the patient"
        )
    name, tag = "DistanceSourceToPatient", "(0018,1111)"
    if header.number("DistanceSourceToIsocenter") is not None:
        name, tag = "DistanceSourceToIsocenter", "(0018,9402)"
    elif header.number(name) is None and magnification is not None:
        return to_detector / magnification
    to_patient = _length(header, name, tag)
    if to_patient >= to_detector:
        raise DicomError(
            f"{header.path}: {name} {tag} {to_patient:g} mm is not less than "
            f"DistanceSourceToDetector (0018,1110) {to_detector:g} mm"
        )
    if magnification is not None and differ(magnification, to_detector / to_patient, LIMITS.magnification):
        raise DicomError(
            f"{header.path}: EstimatedRadiographicMagnificationFactor (0018,1114) is {magnification:g}, but the "
            f"distances {to_detector:g} and {to_patient:g} mm magnify by {to_detector / to_patient:.3g}"
        )
    return to_patient


def _image_axes(header: XrayHeader) -> tuple[Float, Float]:
    """Patient directions of the image's right and down; by default facing the patient, head up."""
    words = [str(w) for w in (header.get("PatientOrientation") or ("L", "F"))]
    axes = []
    for word in words[:2]:
        # "LA" is mainly left and somewhat anterior.
        parts = [np.array(_DIRECTIONS[c], dtype=np.float64) / (k + 1) for k, c in enumerate(word) if c in _DIRECTIONS]
        if not parts:
            raise DicomError(f"{header.path}: PatientOrientation (0020,0020) {words} names no direction of the patient")
        axes.append(np.sum(parts, axis=0) / np.linalg.norm(np.sum(parts, axis=0)))
    if len(axes) != 2:
        raise DicomError(f"{header.path}: PatientOrientation (0020,0020) {words} needs two directions")
    return axes[0], axes[1]
