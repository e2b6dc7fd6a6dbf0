"""The target bone in the stream: whether the patient has moved in parts since the CT, and where the bone is then."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from fluoronav.geometry import Camera, transform_points
from fluoronav.imaging.projector import Projector
from fluoronav.imaging.registration.agreement import Agreement
from fluoronav.imaging.registration.confidence import (
    LOST_AGREEMENT,
    MIN_PATCHES,
    TRACKING_AGREEMENT,
    TRACKING_SCORE,
)
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
    at_bones : float
        Agreement at the bones from which they alone are believed. Right poses of bent and breathing patients had 0.79
        to 0.94, wrong ones 0.74 at the most (one vertebra off in another region's picture).
    fit : float
        Mean correlation of all patches of the bones that is asked beside it. Wrong poses had 0.70 at the most, since
        layers make some patches fit anywhere, but not all. Right ones had 0.81 to 0.90 in six exposures of the cohort
        and 0.67 to 0.85 in five of the embedded case: some are refused.
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
    beside_bend_mm : float
        How far from the axis of the bend the tissue lies by which a bone's depth is measured, 1 sigma. In six exposures
        of spines bent by 4 and 6 degrees per 100 mm the depth of the target bone was wrong by 3 to 28 mm, as if by
        tissue 4 to 36 mm beside a bend of the size that was found; their root mean square.
    look_every_s : float
        How often a patient who moves as one, and whose chest rests, is looked at. Chosen.
    rounds : int
        Placements of the patches where the layers were known a second before. Chosen.
    """

    apart: float = 16.8
    by_chance: float = 6.0
    least_share: float = 0.1
    doubtful: float = 12.6
    at_bones: float = 0.75
    fit: float = 0.77
    worse: float = 0.03
    margin_px: int = 4
    silhouette: float = 0.05
    contradiction: float = 4.0
    beside_bend_mm: float = 16.0
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
        # Of a CT that is a part of the patient, the bones are all that is compared in any case.
        is_part = layers.tissue.grid.known_ct is not None
        self._least_agreement = TRACKING_AGREEMENT if is_part else LOST_AGREEMENT

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
        """How well the layers as they lie agree with the frame; see :class:`.agreement.Agreement`.

        Over the whole field, or at the bones where that does not suffice and they do: the pose is the bone's, and a
        chest that moves otherwise than the layers can says nothing against it.
        """
        whole = self._agreement(T_camera_ct, pyramid[COARSE_SIDE], field_mask, layered.model(self.layers))
        if whole >= TRACKING_AGREEMENT:
            return whole
        at_bones = self.at_bones(T_camera_ct, pyramid, field_mask, layered)
        return at_bones if _told_by_bones(at_bones, layered) else whole

    def at_bones(
        self,
        T_camera_ct: Float,
        pyramid: dict[int, NDArray[np.float32]],
        field_mask: NDArray[np.bool_],
        layered: LayeredPose,
    ) -> float:
        """The lower of the agreements at the target bone alone and at all layered bones."""
        image, model = pyramid[COARSE_SIDE], layered.model(self.layers)
        parts = (self.layers.target.projector, model.bones)
        return self._agreement.at_parts(T_camera_ct, image, field_mask, model, parts)

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
        # Layers fit wrong poses better, too: where all tissue as one does not confirm them, the bones themselves must.
        confirmed = before is not None or whole.agreement >= TRACKING_AGREEMENT
        if not confirmed and whole.agreement < self._least_agreement:
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
        if before is None and confirmed and apart < SETTINGS.apart:
            # What the two differ by on the mean by chance is the bone's own error, and hardly a doubt of all tissue.
            beyond = (apart - SETTINGS.by_chance) / (SETTINGS.doubtful - SETTINGS.by_chance)
            share = float(np.clip(beyond, SETTINGS.least_share, 1))
            return replace(whole, unexplained=share * np.outer(off, off), bone=unexplained)
        if not confirmed and not _told_by_bones(self.at_bones(found.T_camera_ct, pyramid, field_mask, found), found):
            return whole
        agreement = self.agreement(found.T_camera_ct, pyramid, field_mask, found)
        information = np.asarray(np.linalg.inv(unexplained), np.float64)
        unexplained = unexplained + self._depth_by_bend(found)
        estimate = PoseEstimate(found.T_camera_ct, found.score, information, self._centre_ct, 0, found.patches)
        return Hypothesis(estimate, agreement, found, unexplained)

    def _depth_by_bend(self, found: LayeredPose) -> Float:
        """Covariance of the depth of a bone in a spine that is bent, twist about the target's point, CT axes.

        Tissue about the bone turns with its neighbours, and ribs fan out: what lies at a distance from the axis of the
        bend is stretched along the spine, which looks like another magnification, and so like another depth.
        """
        at_camera = transform_points(found.T_camera_ct, self._centre_ct)
        stretch = float(np.linalg.norm(found.bend_rad_mm)) * SETTINGS.beside_bend_mm
        shift_ct = found.T_camera_ct[:3, :3].T @ (at_camera * stretch)
        twist = np.concatenate([np.zeros(3), shift_ct])
        return np.outer(twist, twist)

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


def _told_by_bones(at_bones: float, layered: LayeredPose) -> bool:
    """Whether the bones alone say that the pose is right, whatever lies about them."""
    return at_bones >= SETTINGS.at_bones and layered.fit >= SETTINGS.fit
