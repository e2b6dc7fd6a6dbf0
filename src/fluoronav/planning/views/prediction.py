"""The covariance that the registration will have at a view, before there is an image.

The registration's covariance is the inverse of its normal equations, scaled by the residual of its patches, plus the
model's own error (:mod:`fluoronav.imaging.registration.confidence`). The equations depend on the model alone. What is
missing before an image is there is each patch's correlation: it follows from the patch's contrast in the model, from
the quantum noise at the dose, and from a share of contrast that the model does not explain.

Two covariances are predicted. The *stated* one is what the display will show: with the floors, which make its bounds
hold for any patient. The *expected* one is without them: how large the errors are where the CT is of this patient as
they lie on the table, as in the simulated exposures of `bench planning --only views`.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from fluoronav.geometry import Camera, CArmPose, skew
from fluoronav.imaging.registration.confidence import FLOOR, covariance_in_camera
from fluoronav.imaging.registration.gauss_newton import SETTINGS as GAUSS_NEWTON
from fluoronav.imaging.registration.graph_backend import TRACKING_PATCHES
from fluoronav.imaging.registration.model import RegistrationModel
from fluoronav.imaging.registration.patches import PatchLevel
from fluoronav.imaging.registration.search import FINE_SIDE
from fluoronav.imaging.registration.similarity import normal_equations, patch_weights

Float = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class ExposureSettings:
    """What is assumed of the exposures.

    Attributes
    ----------
    photons : float
        Mean detected photons per pixel of the full image; that of a usual dose in `bench registration`.
    electronic_photons : float
        Electronic noise, 1 sigma; of the simulated panel.
    aperture : float
        Diameter of the field, share of the image's side; of the simulated panel.
    unexplained : float
        Squared contrast of a patch that the model does not explain, over that which it explains: scatter, beam
        hardening, blur, voxels. Fitted to the scores of registrations of the embedded case (`bench planning --only
        views`).
    """

    photons: float = 80.0
    electronic_photons: float = 3.0
    aperture: float = 0.88
    unexplained: float = 0.07


EXPOSURE = ExposureSettings()


@dataclass(frozen=True)
class Covariances:
    """Covariances of (rotation, translation of a point), rad and mm, CT axes, shape (6, 6) each.

    Attributes
    ----------
    stated : ndarray
        With the floors of the registration's model error.
    expected : ndarray
        Without them.
    """

    stated: Float
    expected: Float


@dataclass(frozen=True)
class PredictedView:
    """What is predicted for one view.

    Attributes
    ----------
    orbital_deg, angular_deg : float
    T_camera_ct : ndarray, shape (4, 4)
    stated, expected : ndarray, shape (6, 6)
        Covariances of (rotation, translation of `centre_ct`), rad and mm, camera axes: with and without the floors.
    centre_ct : ndarray, shape (3,)
    score : float
        Expected weighted correlation of the patches.
    patches : int
    """

    orbital_deg: float
    angular_deg: float
    T_camera_ct: Float
    stated: Float
    expected: Float
    centre_ct: Float
    score: float
    patches: int

    @property
    def both(self) -> Covariances:
        """Both covariances in CT axes."""
        return Covariances(*(in_ct_axes(C, self.T_camera_ct) for C in (self.stated, self.expected)))


def in_ct_axes(covariance: Float, T_camera_ct: Float) -> Float:
    """A covariance of (rotation, translation) in camera axes, in CT axes."""
    R = np.kron(np.eye(2), T_camera_ct[:3, :3].T)
    return R @ covariance @ R.T


def sigma_mm(covariance_ct: Float, centre_ct: Float, point_ct: Float, direction_ct: Float) -> float:
    """Standard deviation of a point's error along a direction, mm.

    Parameters
    ----------
    covariance_ct : ndarray, shape (6, 6)
        Of (rotation, translation of `centre_ct`), rad and mm, CT axes.
    centre_ct, point_ct, direction_ct : ndarray, shape (3,)
        LPS mm; the direction has any length.
    """
    n = np.asarray(direction_ct) / np.linalg.norm(direction_ct)
    # The point moves by w x arm + v.
    row = np.concatenate([n @ -skew(np.asarray(point_ct) - centre_ct), n])
    return float(np.sqrt(row @ covariance_ct @ row))


class ViewPredictor:
    """Predicts covariances for one case and camera.

    Parameters
    ----------
    case : fluoronav.case.Case
    camera : Camera
    centre_ct : ndarray, shape (3,)
        The point that covariances are about, LPS mm.
    """

    def __init__(self, case, camera: Camera, centre_ct: Float, exposure: ExposureSettings = EXPOSURE) -> None:
        self._model = RegistrationModel.of_case(case)
        self._exposure, self._centre_ct = exposure, np.asarray(centre_ct, np.float64)
        count, size = TRACKING_PATCHES[1]
        self._level = PatchLevel(camera, FINE_SIDE, size, count)
        self._full_over_level = (max(camera.rows, camera.cols) / FINE_SIDE) ** 2
        rows, cols = self._level.camera.rows, self._level.camera.cols
        y, x = np.mgrid[:rows, :cols]
        radius = np.hypot(x - (cols - 1) / 2, y - (rows - 1) / 2)
        self._field = radius < exposure.aperture * min(rows, cols) / 2

    def at(
        self, orbital_deg: float, angular_deg: float, isocentre_ct: Float, reach_mm: float, swivel_deg: float = 0.0
    ) -> PredictedView | None:
        """The view at two angles; None where no patch has structure.

        Parameters
        ----------
        orbital_deg, angular_deg : float
        isocentre_ct : ndarray, shape (3,)
            What is in the middle of the image, LPS mm.
        reach_mm : float
            From the source to it.
        """
        place = (float(isocentre_ct[0]), float(isocentre_ct[1]), float(isocentre_ct[2]))
        T = CArmPose(place, reach_mm, orbital_deg, angular_deg, swivel_deg).T_camera_ct()
        return self.at_pose(T, orbital_deg, angular_deg)

    def at_pose(self, T_camera_ct: Float, orbital_deg: float = 0.0, angular_deg: float = 0.0) -> PredictedView | None:
        """The view of a pose; None where no patch has structure."""
        level = self._level
        if not level.choose(self._model.bones, T_camera_ct, self._field):
            return None
        self._model.tissue.line_integrals_and_derivatives(T_camera_ct, level.directions, self._centre_ct, level.model)
        n, pixels = level.count, level.size**2
        integrals = level.model[0, : n * pixels].reshape(n, pixels)
        power = integrals.var(axis=1) * pixels
        unexplained = self._exposure.unexplained * power + pixels * self._noise(T_camera_ct, integrals)
        ncc = np.sqrt(power / np.maximum(power + unexplained, 1e-12)).astype(np.float64)
        weights = np.zeros(n)
        patch_weights(ncc, weights)
        total = float(weights.sum())
        if total <= 0:
            return None
        A, g = np.zeros((6, 6)), np.zeros(6)
        normal_equations(level.frame_hat, level.model, level.size, weights, level.scratch, A, g)
        # The squared difference of two unit vectors with correlation c is 2 (1 - c).
        noise = float(weights @ (2 * (1 - ncc))) / (total * (pixels - 2))
        information = A * (GAUSS_NEWTON.information_per_pixel / noise)
        stated = covariance_in_camera(information, T_camera_ct)
        expected = stated - np.diag([0.0, 0.0, 0.0, FLOOR.image_mm**2, FLOOR.image_mm**2, FLOOR.depth_mm**2])
        return PredictedView(
            orbital_deg, angular_deg, T_camera_ct, stated, expected, self._centre_ct,
            float(weights @ ncc) / total, int(np.count_nonzero(weights)),
        )  # fmt: skip

    def _noise(self, T_camera_ct: Float, integrals: NDArray) -> Float:
        """Variance of the attenuation of a pixel by quantum and electronic noise, for each patch."""
        small = self._level.camera.scaled(64 / FINE_SIDE)
        beam = np.exp(-self._model.coarse_tissue.render(T_camera_ct, small))
        field = cv2.resize(self._field.astype(np.uint8), beam.shape[::-1], interpolation=cv2.INTER_NEAREST) > 0
        photons = self._exposure.photons * np.exp(-integrals.mean(axis=1)) / float(beam[field].mean())
        variance = (photons + self._exposure.electronic_photons**2) / photons**2
        return variance / self._full_over_level


def together(
    first: PredictedView, second: PredictedView, arm_deg: float, arm_mm: float, off_isocentre_mm: float = 0.0
) -> Covariances:
    """Covariances in the first view after a second one that the arm's joints join to it.

    The formula is that of the stream (`stream/registration/view_memory.py`): the second view's covariance, widened by
    the joints' error, is a second measurement of the pose. The stream weighs by what is stated; what is expected
    follows from those weights.

    Parameters
    ----------
    first, second : PredictedView
        The one that is guided in, and the one before.
    arm_deg, arm_mm : float
        Error of a change of view by the joints, 1 sigma.
    off_isocentre_mm : float
        From the point that the covariances are about to the isocentre: a turn of the arm moves it by so much more.
    """
    one, other = first.both, second.both
    arm_rad = np.deg2rad(arm_deg)
    # The same in all axes, so that it need not be turned.
    arm = np.diag([arm_rad**2] * 3 + [arm_mm**2 + (arm_rad * off_isocentre_mm) ** 2] * 3)
    gain = one.stated @ np.linalg.inv(one.stated + other.stated + arm)
    rest = np.eye(6) - gain
    return Covariances(rest @ one.stated, rest @ one.expected @ rest.T + gain @ (other.expected + arm) @ gain.T)


def beam_angle_deg(first: PredictedView, second: PredictedView) -> float:
    """Angle between two beams, 0 to 90: a view from behind shows the same plane."""
    cosine = abs(float(first.T_camera_ct[2, :3] @ second.T_camera_ct[2, :3]))
    return float(np.rad2deg(np.arccos(min(cosine, 1.0))))
