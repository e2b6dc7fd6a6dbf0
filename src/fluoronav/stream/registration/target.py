"""The target bone in the stream: whether the patient has moved in parts since the CT, and where the bone is then."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from fluoronav.geometry import Camera
from fluoronav.imaging.projector import Projector
from fluoronav.imaging.registration.agreement import Agreement
from fluoronav.imaging.registration.confidence import MIN_PATCHES, TRACKING_AGREEMENT, TRACKING_SCORE
from fluoronav.imaging.registration.gauss_newton import PoseEstimate, twist_between
from fluoronav.imaging.registration.layered_fit import LayeredFit, LayeredPose
from fluoronav.imaging.registration.search import COARSE_SIDE, GRID_SIDE, Hypothesis
from fluoronav.imaging.registration.target_bone import LayeredModel, Layers

Float = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class TargetSettings:
    """When the patient is taken for one that has moved in parts.

    Attributes
    ----------
    apart : float
        The pose of all tissue is not the target bone's where it is farther from it: squared distance in units of the
        bone's own covariance. Chi-square's 99 % quantile for six unknowns. In seven exposures of patients who were the
        CT it was 6.4 at the most, in six whose chest had breathed 19 and more.
    by_chance, doubtful : float
        From the second on the whole difference counts as doubt of the pose of all tissue, up to the first
        `least_share` of it, and between them a part. The mean and the 95 % quantile.
    least_share : float
        In six exposures of a patient who was the CT the difference was 0.6 to 4.1, and the pose of all tissue erred by
        0.03 to 0.17 mm and by 0.04 to 0.14 degrees. A tenth keeps the bound of the rotation above that.
    worse : float
        At the bones the layers may agree by so much less than what they are compared with. Chosen: two exposures of one
        pose differ by less.
    margin_px : int
        About the bones' silhouette at 64 pixels, where poses are compared. Chosen: a vertebra's width.
    silhouette : float
        Of the largest line integral of the bones, from which a pixel is theirs. Chosen.
    contradiction : float
        Where bone and tissue say different poses, and the layers do not fit better, the truth may be as far beyond
        either: the covariance is the square of their difference times this. Chosen: twice the difference.
    look_every_s : float
        How often a patient who moves as one is looked at. Chosen: a breath takes four seconds.
    rounds : int
        Placements of the patches where the layers were known a second before. Chosen.
    """

    apart: float = 16.8
    by_chance: float = 6.0
    least_share: float = 0.1
    doubtful: float = 12.6
    worse: float = 0.03
    margin_px: int = 4
    silhouette: float = 0.05
    contradiction: float = 4.0
    look_every_s: float = 3.0
    rounds: int = 1


SETTINGS = TargetSettings()


class TargetBone:
    """Looks for the target bone on the background thread; not reentrant.

    Parameters
    ----------
    layers : Layers
    bones : Projector
        The rigid bones alone.
    camera : Camera
        At full resolution.
    T_prior : ndarray, shape (4, 4)
        As of :class:`.agreement.Agreement`.
    centre_ct : ndarray, shape (3,)
        The point that errors are stated at, LPS mm.
    """

    def __init__(self, layers: Layers, bones: Projector, camera: Camera, T_prior: Float, centre_ct: Float) -> None:
        self.layers, self._centre_ct = layers, centre_ct
        self._fit = LayeredFit(layers, camera)
        self._small = camera.scaled(GRID_SIDE / max(camera.rows, camera.cols))
        self._agreement = Agreement(LayeredModel(layers), bones, camera, COARSE_SIDE, T_prior)

    @property
    def name(self) -> str:
        """Of the target bone."""
        return self.layers.target.name

    def agreement(
        self,
        T_camera_ct: Float,
        pyramid: dict[int, NDArray[np.float32]],
        field_mask: NDArray[np.bool_],
        layered: LayeredPose,
    ) -> float:
        """Of the whole field with the layers as they lie; see :class:`.agreement.Agreement`."""
        return self._agreement(T_camera_ct, pyramid[COARSE_SIDE], field_mask, layered.model(self.layers))

    def of(
        self,
        whole: Hypothesis,
        pyramid: dict[int, NDArray[np.float32]],
        field_mask: NDArray[np.bool_],
        before: LayeredPose | None = None,
    ) -> Hypothesis:
        """The pose of the target bone where the patient has moved in parts, else that of all tissue with its doubt.

        Parameters
        ----------
        whole : Hypothesis
            Of all tissue as one, or of the layers as they lay last.
        pyramid : dict
            Attenuation by the longer side of the image.
        field_mask : ndarray of bool
        before : LayeredPose, optional
            How the layers lay last.
        """
        # Layers fit wrong poses better, too: none may be believed that all tissue as one does not confirm.
        if whole.agreement < TRACKING_AGREEMENT and before is None:
            return whole
        T = whole.estimate.T_camera_ct
        rounds = {} if before is None else {"rounds": SETTINGS.rounds}
        found = self._fit.fit(pyramid, field_mask, T, before, **rounds)
        if found is None or not np.isfinite(found.T_camera_ct).all() or not np.isfinite(found.covariance).all():
            return whole
        if found.patches < MIN_PATCHES or found.score < TRACKING_SCORE:
            return whole
        unexplained = found.covariance_about(self._centre_ct)
        off = twist_between(T, found.T_camera_ct, self._centre_ct)
        if not self._fits_better(found, T, pyramid, field_mask, before):
            return replace(whole, unexplained=SETTINGS.contradiction * np.outer(off, off))
        apart = float(off @ np.linalg.solve(unexplained, off))
        if before is None and apart < SETTINGS.apart:
            # What the two differ by on the mean by chance is the bone's own error, and hardly a doubt of all tissue.
            beyond = (apart - SETTINGS.by_chance) / (SETTINGS.doubtful - SETTINGS.by_chance)
            share = float(np.clip(beyond, SETTINGS.least_share, 1))
            return replace(whole, unexplained=share * np.outer(off, off), bone=unexplained)
        agreement = self.agreement(found.T_camera_ct, pyramid, field_mask, found)
        information = np.asarray(np.linalg.inv(unexplained), np.float64)
        estimate = PoseEstimate(found.T_camera_ct, found.score, information, self._centre_ct, 0, found.patches)
        return Hypothesis(estimate, agreement, found, unexplained)

    def _fits_better(
        self,
        found: LayeredPose,
        T_before: Float,
        pyramid: dict[int, NDArray[np.float32]],
        field_mask: NDArray[np.bool_],
        before: LayeredPose | None,
    ) -> bool:
        """Whether the layers agree, at the bones, as well as what was before: the chest must not decide."""
        model = found.model(self.layers)
        silhouette = model.bones.render(found.T_camera_ct, self._small)
        near = silhouette > SETTINGS.silhouette * float(silhouette.max())
        side = 2 * SETTINGS.margin_px + 1
        near = cv2.dilate(near.astype(np.uint8), np.ones((side, side), np.uint8)) > 0
        mask = cv2.resize(field_mask.astype(np.uint8), near.shape[::-1], interpolation=cv2.INTER_NEAREST) > 0
        mask &= near
        image, rigid = pyramid[COARSE_SIDE], LayeredModel(self.layers)
        as_before = self._agreement(T_before, image, mask, rigid if before is None else before.model(self.layers))
        return self._agreement(found.T_camera_ct, image, mask, model) >= as_before - SETTINGS.worse
