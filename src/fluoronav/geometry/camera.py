"""The C-arm as a pinhole camera: the X-ray source is the centre of projection, the detector the image plane."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
import yaml
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fluoronav.geometry.se3 import is_rigid
from fluoronav.paths import regular_file
from fluoronav.validation import first_error

Float = NDArray[np.float64]
Number = Annotated[float, Field(allow_inf_nan=False)]
Row3 = Annotated[list[Number], Field(min_length=3, max_length=3)]
Row4 = Annotated[list[Number], Field(min_length=4, max_length=4)]

# Error (1 sigma) of a change of view by the arm's joints, where no calibration gives it: the isocentre wanders by a
# millimetre as the arm bends, and encoders are adjusted to a few tenths of a degree.
ARM_DEG, ARM_MM = 0.3, 1.0


@dataclass(frozen=True, slots=True)
class CameraLimits:
    """Limits of a C-arm's camera; chosen from the C-arms that there are, as noted."""

    most_side: int = 8192  # pixels; flat panels have 4300 x 4300 at most, and the pipeline allocates by the size
    most_pixels: int = 2**25
    # Source-to-detector distance over the detector's longer side: 900 mm over 380 of a large panel is 2.4, 1200 mm over
    # a zoomed field of 50 is 24, a detail of it more.
    least_focal: float = 1.8
    most_focal: float = 60.0
    most_anisotropy: float = 2.1  # ratio of the focal lengths of rows and columns; binning along one axis makes 2
    most_off_centre: float = 0.3  # principal point from the image's middle, of the longer side; calibrated C-arms: 0.05
    # Principal point along columns and rows, of each side. Both below this: the image is larger than its K (0.33 where
    # it is 1.5 times as large).
    least_corner: float = 0.36
    most_skew: float = 0.05  # of the focal length
    most_distance_mm: float = 10_000.0  # from the world's origin to the source: the size of a room
    most_distortion: float = 0.25  # of a corner, of the image's longer side; an image intensifier's is 0.05
    most_undone_px: float = 0.5  # residual of a corner that is undistorted and distorted again
    most_file_bytes: int = 1_000_000  # a camera file has some hundred


LIMITS = CameraLimits()


class CameraError(ValueError):
    """A camera description that cannot be used; the text names the file and the field."""


class CameraFile(BaseModel):
    """The content of a camera file (YAML)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rows: int = Field(gt=0, le=LIMITS.most_side, description="image height, pixels")
    cols: int = Field(gt=0, le=LIMITS.most_side, description="image width, pixels")
    K: Annotated[list[Row3], Field(min_length=3, max_length=3)] = Field(description="intrinsic matrix, pixels")
    T_camera_world: Annotated[list[Row4], Field(min_length=4, max_length=4)] | None = Field(
        default=None, description="world mm to camera mm; fixed cameras only"
    )
    distortion: Annotated[list[Number], Field(min_length=4, max_length=14)] | None = Field(
        default=None, description="OpenCV distortion coefficients k1 k2 p1 p2 [k3 ...]"
    )
    arm_deg: float = Field(
        default=ARM_DEG,
        gt=0,
        le=10,
        description="error of a change of view as the arm's joints tell it, 1 sigma, degrees",
    )
    arm_mm: float = Field(default=ARM_MM, gt=0, le=50, description="the same for the isocentre, mm")
    name: Annotated[str, Field(min_length=1, max_length=64)] | None = Field(
        default=None, description="what a grabber calls this calibration (`camera`); the file's own name always does"
    )
    sdd_mm: float | None = Field(
        default=None, ge=100, le=5000, description="source-to-detector distance that it was calibrated at, mm"
    )
    detector: str | None = Field(
        default=None,
        description="offset, gain and dead pixels: a file of `fluoronav calibrate detector`, relative to this",
    )


@dataclass(frozen=True)
class Camera:
    """Intrinsics of one C-arm geometry.

    Attributes
    ----------
    rows, cols : int
        Image size, pixels.
    K : ndarray, shape (3, 3)
        Intrinsic matrix, pixels; pixel centres at integers.
    distortion : ndarray, shape (n,) or None
        OpenCV's coefficients; None is an undistorted image.
    T_camera_world : ndarray, shape (4, 4) or None
        For cameras that stand still in a common world frame.
    arm_deg, arm_mm : float
        Error of a change of view by the arm's joints, 1 sigma: of the rotation and of the isocentre.
    detector : Path or None
        The detector's calibration.
    calibration : str or None
        Name by which a grabber refers to this calibration.
    sdd_mm : float or None
        The source-to-detector distance that it was calibrated at.
    name : str
        The file, for messages.
    """

    rows: int
    cols: int
    K: Float
    distortion: Float | None = None
    T_camera_world: Float | None = None
    arm_deg: float = ARM_DEG
    arm_mm: float = ARM_MM
    detector: Path | None = None
    calibration: str | None = field(default=None, compare=False)
    sdd_mm: float | None = field(default=None, compare=False)
    name: str = field(default="camera", compare=False)

    def __post_init__(self) -> None:
        K = np.asarray(self.K, dtype=np.float64)
        object.__setattr__(self, "K", K)
        for row, label in ((0, "horizontal"), (1, "vertical")):
            if not (np.isfinite(K[row, row]) and K[row, row] > 0):
                raise CameraError(
                    f"{self.name}: K[{row}][{row}] is {K[row, row]:g}; "
                    f"the {label} focal length in pixels must be positive"
                )
        if not np.isfinite(K).all() or np.abs(K[2] - [0, 0, 1]).max() > 1e-9 or abs(K[1, 0]) > 1e-9:
            raise CameraError(
                f"{self.name}: K must be finite and upper triangular with last row 0 0 1, not {K.tolist()}"
            )
        if self.rows <= 0 or self.cols <= 0:
            raise CameraError(f"{self.name}: rows and cols are {self.rows} and {self.cols}; both must be positive")
        if self.T_camera_world is not None and not is_rigid(self.T_camera_world):
            raise CameraError(f"{self.name}: T_camera_world is not a rigid, right-handed motion")

    @classmethod
    def load(cls, path: str | Path) -> Camera:
        """Reads a camera file.

        Raises
        ------
        CameraError
            Where the file cannot be read or a field is wrong; the text names both.
        """
        path = Path(path)
        try:
            size = regular_file(path).stat().st_size
            if size > LIMITS.most_file_bytes:
                raise CameraError(f"{path}: has {size} bytes; a camera file has some hundred")
            content: Any = yaml.safe_load(path.read_text())
        except (OSError, UnicodeDecodeError, yaml.YAMLError, ValueError, RecursionError) as error:
            if isinstance(error, CameraError):
                raise
            raise CameraError(f"{path}: cannot be read as a camera file (YAML): {error}") from error
        camera = cls.from_dict(content, name=str(path))
        if camera.detector is not None:
            try:
                regular_file(camera.detector)
            except OSError as error:
                raise CameraError(f"{path}: detector: {error}") from error
        return camera

    @classmethod
    def from_dict(cls, content: Any, name: str = "camera") -> Camera:
        """Builds a camera from the mapping that a camera file holds; raises :class:`CameraError`."""
        try:
            f = CameraFile.model_validate(content)
        except ValidationError as error:
            raise CameraError(f"{name}: {first_error(error, whole='the file', shows_value=True)}") from error
        camera = cls(
            rows=f.rows,
            cols=f.cols,
            K=np.array(f.K),
            distortion=None if f.distortion is None else np.array(f.distortion),
            T_camera_world=None if f.T_camera_world is None else np.array(f.T_camera_world),
            arm_deg=f.arm_deg,
            arm_mm=f.arm_mm,
            detector=None if f.detector is None else Path(name).parent / f.detector,
            calibration=f.name,
            sdd_mm=f.sdd_mm,
            name=name,
        )
        camera.check_plausible()
        return camera

    def check_plausible(self, limits: CameraLimits = LIMITS) -> None:
        """Refuses a camera that no C-arm has, before anything is allocated by its size.

        Raises
        ------
        CameraError
            It names the field, its value and what it must be.
        """
        if self.rows * self.cols > limits.most_pixels:
            raise CameraError(
                f"{self.name}: rows and cols are {self.rows} and {self.cols}; more than {limits.most_pixels} pixels "
                "are not taken"
            )
        self._check_focal_lengths(limits)
        self._check_principal_point(limits)
        if self.T_camera_world is not None:
            distance = float(np.linalg.norm(np.asarray(self.T_camera_world)[:3, 3]))
            if distance > limits.most_distance_mm:
                raise CameraError(
                    f"{self.name}: T_camera_world moves by {distance:g} mm; at most {limits.most_distance_mm:g} are "
                    "taken: is it in mm?"
                )
        if self.distortion is not None:
            self._check_distortion(limits)

    def _check_focal_lengths(self, limits: CameraLimits) -> None:
        name, K, longest = self.name, self.K, max(self.rows, self.cols)
        for k in (0, 1):
            ratio = K[k, k] / longest
            if not limits.least_focal <= ratio <= limits.most_focal:
                raise CameraError(
                    f"{name}: K[{k}][{k}] is {K[k, k]:g}, {ratio:.3g} times the image's longer side ({longest} "
                    f"pixels); the source is {limits.least_focal:g} to {limits.most_focal:g} times the detector's side "
                    "away: rows, cols and K must be of the same image"
                )
        anisotropy = max(K[0, 0] / K[1, 1], K[1, 1] / K[0, 0])
        if anisotropy > limits.most_anisotropy:
            raise CameraError(
                f"{name}: K[0][0] and K[1][1] are {K[0, 0]:g} and {K[1, 1]:g}: no detector's pixels are "
                f"{anisotropy:.3g} times as long as wide"
            )
        if abs(K[0, 1]) > limits.most_skew * K[0, 0]:
            raise CameraError(f"{name}: K[0][1] is {K[0, 1]:g}; a detector's rows and columns are at right angles (0)")

    def _check_principal_point(self, limits: CameraLimits) -> None:
        name, K, longest = self.name, self.K, max(self.rows, self.cols)
        corner = max((K[0, 2] + 0.5) / self.cols, (K[1, 2] + 0.5) / self.rows)
        if corner < limits.least_corner:
            raise CameraError(
                f"{name}: the principal point ({K[0, 2]:g}, {K[1, 2]:g}) lies in the upper left of {self.cols} x "
                f"{self.rows} pixels: the image is larger than its K; rows, cols and K must be of the same image"
            )
        for k, (side, label) in enumerate(((self.cols, "cols"), (self.rows, "rows"))):
            off = abs(K[k, 2] - (side - 1) / 2) / longest
            if off > limits.most_off_centre:
                raise CameraError(
                    f"{name}: K[{k}][2] is {K[k, 2]:g}, {off:.2g} times the image's longer side off the middle "
                    f"({label} is {side}); at most {limits.most_off_centre:g} is taken: rows, cols and K must be "
                    "of the same image"
                )

    def _check_distortion(self, limits: CameraLimits) -> None:
        edge_x, edge_y = np.linspace(0, self.cols - 1, 9), np.linspace(0, self.rows - 1, 9)
        at = np.stack(np.meshgrid(edge_x, edge_y), axis=-1)
        with np.errstate(all="ignore"):
            moved = self.project(replace(self, distortion=None).rays(at))
            undone = self.project(self.rays(at))
        far, off = np.abs(moved - at).max(), np.abs(undone - at).max()
        if not far <= limits.most_distortion * max(self.rows, self.cols) or not off <= limits.most_undone_px:
            raise CameraError(
                f"{self.name}: distortion moves the image's border by {far:.3g} pixels; no C-arm's does, or it cannot "
                "be undone: the coefficients are OpenCV's, for coordinates divided by the focal length"
            )

    @property
    def names(self) -> tuple[str, ...]:
        """Names by which a grabber may refer to this calibration: its own, and the file's with and without suffix."""
        file = Path(self.name)
        return (*([self.calibration] if self.calibration else []), file.stem, file.name)

    @property
    def focal_px(self) -> float:
        """Mean focal length: the source-to-detector distance in pixels."""
        return float((self.K[0, 0] + self.K[1, 1]) / 2)

    def scaled(self, factor: float) -> Camera:
        """The camera of the image resized by ``factor`` (0.25: a quarter as wide), pixel centres at integers.

        The size is rounded to whole pixels, and each axis scaled by what it then is. A pixel of the small image covers
        an area of the large one, so centres move by half a pixel: ``u' = scale * (u + 0.5) - 0.5``.
        """
        rows, cols = max(round(self.rows * factor), 1), max(round(self.cols * factor), 1)
        x, y = cols / self.cols, rows / self.rows
        S = np.array([[x, 0, (x - 1) / 2], [0, y, (y - 1) / 2], [0, 0, 1]])
        return replace(self, rows=rows, cols=cols, K=S @ self.K)

    def project(self, points_camera: ArrayLike) -> Float:
        """Image coordinates of points in front of the source.

        Parameters
        ----------
        points_camera : array_like, shape (..., 3)
            mm, camera frame. Points with z <= 0 lie behind the source and give NaN.

        Returns
        -------
        ndarray, shape (..., 2)
            (column, row) in pixels, distortion applied.
        """
        p = np.asarray(points_camera, dtype=np.float64)
        z = np.where(p[..., 2] > 1e-9, p[..., 2], np.nan)
        x, y = p[..., 0] / z, p[..., 1] / z
        if self.distortion is not None:
            x, y = _distort(x, y, self.distortion)
        K = self.K
        return np.stack([K[0, 0] * x + K[0, 1] * y + K[0, 2], K[1, 1] * y + K[1, 2]], axis=-1)

    def rays(self, pixels: ArrayLike) -> Float:
        """Directions of the rays through pixels, scaled to z = 1 (camera frame).

        Parameters
        ----------
        pixels : array_like, shape (..., 2)
            (column, row).

        Returns
        -------
        ndarray, shape (..., 3)
        """
        uv = np.asarray(pixels, dtype=np.float64)
        K = self.K
        y = (uv[..., 1] - K[1, 2]) / K[1, 1]
        x = (uv[..., 0] - K[0, 2] - K[0, 1] * y) / K[0, 0]
        if self.distortion is not None:
            x, y = _undistort(x, y, self.distortion)
        return np.stack([x, y, np.ones_like(x)], axis=-1)

    def pixel_grid(self) -> Float:
        """(column, row) of every pixel, shape (rows, cols, 2)."""
        u, v = np.meshgrid(np.arange(self.cols, dtype=np.float64), np.arange(self.rows, dtype=np.float64))
        return np.stack([u, v], axis=-1)


# OpenCV's fixed-point iteration ends within 5e-11 pixels at a focal length of 5000.
_UNDISTORT = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 60, 1e-14)
_COEFFICIENTS = 12  # k1 k2 p1 p2 k3 ... k6 s1 ... s4; a tilt is not modelled


def _padded(k: Float) -> Float:
    return np.concatenate([k, np.zeros(_COEFFICIENTS)])[:_COEFFICIENTS]


def _distort(x: Float, y: Float, k: Float) -> tuple[Float, Float]:
    """OpenCV's distortion model on normalised image coordinates (calib3d, "Camera calibration").

    `cv2.projectPoints` gives the same to the last digits; it takes half as long for 76 points, 3.4 times as long for
    1,200. Outlines have 100 to 300 points a curve.
    """
    c = _padded(k)
    r2 = x * x + y * y
    radial = (1 + r2 * (c[0] + r2 * (c[1] + r2 * c[4]))) / (1 + r2 * (c[5] + r2 * (c[6] + r2 * c[7])))
    return (
        x * radial + 2 * c[2] * x * y + c[3] * (r2 + 2 * x * x) + c[8] * r2 + c[9] * r2 * r2,
        y * radial + c[2] * (r2 + 2 * y * y) + 2 * c[3] * x * y + c[10] * r2 + c[11] * r2 * r2,
    )


def _undistort(x: Float, y: Float, k: Float) -> tuple[Float, Float]:
    """Inverts :func:`_distort`; the iteration converges for the distortions of image intensifiers."""
    points = np.stack([x, y], axis=-1).reshape(-1, 1, 2)
    if not len(points):
        return x, y
    # With the unit matrix as K this is `cv2.undistortPoints`, which takes no criteria before OpenCV 5.
    moved = np.asarray(cv2.undistortImagePoints(points, np.eye(3), _padded(k), None, _UNDISTORT), np.float64)
    return moved[:, 0, 0].reshape(x.shape), moved[:, 0, 1].reshape(x.shape)
