"""The camera and the prior pose in a DICOM header.

Angles and distances are those of PS3.3 C.8.7.5 (XA positioner) and C.8.7.1 (X-ray image). The primary angle turns the
detector about the patient's long axis, positive towards the patient's left (LAO), the secondary angle towards the head
(CRA), both 0 with the detector in front of the patient.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fluoronav.dicom.errors import DicomError
from fluoronav.dicom.xray_header import XrayHeader
from fluoronav.geometry import Camera, CameraError

Float = NDArray[np.float64]

_DIRECTIONS = {"L": (1, 0, 0), "R": (-1, 0, 0), "P": (0, 1, 0), "A": (0, -1, 0), "H": (0, 0, 1), "F": (0, 0, -1)}


@dataclass(frozen=True, slots=True)
class HeaderLimits:
    """Limits of a C-arm's header; all are chosen. Those without a unit are relative differences."""

    least_mm: float = 200.0  # distances from the source
    most_mm: float = 3000.0
    least_pixel_mm: float = 0.02  # detectors have pixels of 0.05 to 0.5 mm
    most_pixel_mm: float = 2.0
    most_deg: float = 180.0  # of the positioner's angles
    magnification: float = 0.15  # to that of the distances: the table height it refers to is not the isocentre
    aspect: float = 0.01  # between two statements of a pixel's aspect ratio: rounding
    focal: float = 0.05  # between the header's focal length and a calibrated one: headers have nominal distances
    field: float = 1.2  # ratio of the image's size to the detector's field of view


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


def check_orientation(header: XrayHeader) -> None:
    """Refuses pixels that were rotated or mirrored after readout, since a camera file is of pixels as read out.

    Raises
    ------
    DicomError
    """
    turned, flipped = header.number("FieldOfViewRotation"), header.word("FieldOfViewHorizontalFlip")
    if turned or flipped == "YES":
        raise DicomError(
            f"{header.path}: was turned by {turned or 0:g} degrees (FieldOfViewRotation (0018,7032)) and "
            f"{'mirrored' if flipped == 'YES' else 'not mirrored'} (FieldOfViewHorizontalFlip (0018,7034)) after it "
            "was read; a camera file is of pixels as they are read: export it without"
        )


def check_camera(header: XrayHeader, camera: Camera) -> None:
    """Compares a camera file with the header of the same image.

    Raises
    ------
    DicomError
    """
    spacing, distance = _spacing(header), header.number("DistanceSourceToDetector")
    anisotropy = float(camera.K[0, 0] / camera.K[1, 1])
    if spacing is not None:
        down, right = spacing
        if _differ(down / right, anisotropy, LIMITS.aspect):
            raise DicomError(
                f"{header.path}: its pixels are {down:g} mm high and {right:g} mm wide; {camera.name} has focal "
                f"lengths of {camera.K[0, 0]:.1f} and {camera.K[1, 1]:.1f} pixels, which are of other pixels"
            )
        if distance and _differ(distance / right, float(camera.K[0, 0]), LIMITS.focal):
            raise DicomError(
                f"{header.path}: DistanceSourceToDetector {distance:g} mm and ImagerPixelSpacing {right:g} mm are a "
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
    to_detector = _length(header, "DistanceSourceToDetector", "(0018,1110)")
    to_patient = _to_patient(header, to_detector)
    primary = np.deg2rad(_angle(header, "PositionerPrimaryAngle", "(0018,1510)"))
    secondary = np.deg2rad(_angle(header, "PositionerSecondaryAngle", "(0018,1511)"))
    if header.word("PositionerMotion") == "DYNAMIC" and header.frame > 1:
        raise DicomError(
            f"{path}: the C-arm moved (PositionerMotion (0018,1500) DYNAMIC) and the angles are of frame 1, not "
            f"{header.frame}: give a camera file with --camera and a pose with --init"
        )
    spacing = _spacing(header)
    if spacing is None:
        raise DicomError(f"{path}: has no ImagerPixelSpacing (0018,1164): give a camera file with --camera")
    down_mm, right_mm = spacing
    rows, cols = header.integer("Rows", 0), header.integer("Columns", 0)
    _check_field(header, rows * down_mm, cols * right_mm)
    if header.get("PatientOrientation") is None and (
        header.number("FieldOfViewRotation") or header.word("FieldOfViewHorizontalFlip") == "YES"
    ):
        raise DicomError(
            f"{path}: was turned or mirrored after it was read (FieldOfViewRotation (0018,7032), "
            "FieldOfViewHorizontalFlip (0018,7034)) and has no PatientOrientation (0020,0020), which would say how it "
            "lies now: export it without"
        )
    if abs(primary) > np.deg2rad(LIMITS.most_deg) or abs(secondary) > np.deg2rad(LIMITS.most_deg):
        raise DicomError(f"{path}: its positioner angles are more than {LIMITS.most_deg:g} degrees")
    R_camera_ct, mirrored = _rotation(header, primary, secondary)
    K = np.array(
        [
            [to_detector / right_mm, 0, (cols - 1) / 2],
            [0, to_detector / down_mm, (rows - 1) / 2],
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
    return XrayGeometry(camera, mirrored)


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


def _angle(header: XrayHeader, name: str, tag: str) -> float:
    value = header.number(name)
    if value is None:
        raise DicomError(f"{header.path}: has no {name} {tag}: give a camera file with --camera and a pose with --init")
    return value


def _to_patient(header: XrayHeader, to_detector: float) -> float:
    """Distance from the source to the patient, mm, by its own tag or by the magnification, which must agree."""
    magnification = header.number("EstimatedRadiographicMagnificationFactor")
    if magnification is not None and magnification < 1:
        raise DicomError(
            f"{header.path}: EstimatedRadiographicMagnificationFactor (0018,1114) is {magnification:g}; a picture is "
            "larger than the patient"
        )
    if header.number("DistanceSourceToPatient") is None and magnification is not None:
        return to_detector / magnification
    to_patient = _length(header, "DistanceSourceToPatient", "(0018,1111)")
    if to_patient >= to_detector:
        raise DicomError(
            f"{header.path}: DistanceSourceToPatient (0018,1111) {to_patient:g} mm is not less than "
            f"DistanceSourceToDetector (0018,1110) {to_detector:g} mm"
        )
    if magnification is not None and _differ(magnification, to_detector / to_patient, LIMITS.magnification):
        raise DicomError(
            f"{header.path}: EstimatedRadiographicMagnificationFactor (0018,1114) is {magnification:g}, but the "
            f"distances {to_detector:g} and {to_patient:g} mm magnify by {to_detector / to_patient:.3g}"
        )
    return to_patient


def _spacing(header: XrayHeader) -> tuple[float, float] | None:
    """Spacing of rows and of columns at the detector, mm, compared with the other tags that give it."""
    path, limits = header.path, LIMITS
    spacing = header.numbers("ImagerPixelSpacing", 2)
    aspect = header.numbers("PixelAspectRatio", 2)
    if spacing is None:
        if aspect is not None and _differ(aspect[0], aspect[1], limits.aspect):
            raise DicomError(
                f"{path}: PixelAspectRatio (0028,0034) is {aspect[0]:g} to {aspect[1]:g} and ImagerPixelSpacing "
                "(0018,1164) is missing: resample it to square pixels"
            )
        return None
    if not all(limits.least_pixel_mm <= s <= limits.most_pixel_mm for s in spacing):
        raise DicomError(
            f"{path}: ImagerPixelSpacing (0018,1164) is {spacing[0]:g} x {spacing[1]:g}, which no detector has; "
            f"{limits.least_pixel_mm:g} to {limits.most_pixel_mm:g} mm was expected"
        )
    down, right = spacing
    if aspect is not None and (aspect[1] <= 0 or _differ(aspect[0] / aspect[1], down / right, limits.aspect)):
        raise DicomError(
            f"{path}: PixelAspectRatio (0028,0034) {aspect[0]:g} to {aspect[1]:g} and ImagerPixelSpacing (0018,1164) "
            f"{down:g} x {right:g} mm contradict each other"
        )
    at_patient = header.numbers("PixelSpacing", 2)
    if at_patient is not None:
        if min(at_patient) <= 0 or _differ(at_patient[0] / at_patient[1], down / right, limits.aspect):
            raise DicomError(
                f"{path}: PixelSpacing (0028,0030) {at_patient[0]:g} x {at_patient[1]:g} and ImagerPixelSpacing "
                f"(0018,1164) {down:g} x {right:g} mm contradict each other"
            )
        if at_patient[0] > down * (1 + limits.aspect):
            raise DicomError(
                f"{path}: PixelSpacing (0028,0030) {at_patient[0]:g} mm is more than ImagerPixelSpacing (0018,1164) "
                f"{down:g} mm; in the patient, nearer the source, a pixel is smaller"
            )
    return down, right


def _check_field(header: XrayHeader, height_mm: float, width_mm: float) -> None:
    """Refuses an image that is larger than its detector, since its spacing is then wrong."""
    value = header.get("FieldOfViewDimensions")
    if value is None:
        return
    dimensions = value if isinstance(value, (list, tuple)) or hasattr(value, "__iter__") else [value]
    try:
        largest = max(float(v) for v in dimensions)
    except (TypeError, ValueError):
        largest = float("nan")
    if not largest > 0:
        raise DicomError(f"{header.path}: FieldOfViewDimensions (0018,1149) is {value!r}; lengths in mm were expected")
    if max(height_mm, width_mm) > LIMITS.field * largest:
        raise DicomError(
            f"{header.path}: is {height_mm:.0f} x {width_mm:.0f} mm by its ImagerPixelSpacing (0018,1164), but its "
            f"FieldOfViewDimensions (0018,1149) are {largest:g} mm: one of them is of another zoom"
        )


def _differ(a: float, b: float, relative: float) -> bool:
    return abs(a - b) > relative * abs(b)


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
