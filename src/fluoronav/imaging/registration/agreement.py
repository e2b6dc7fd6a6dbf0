"""Agreement of the whole model with the frame: it separates right poses from wrong ones that fit in many patches.

The patch score weights the patches that fit. A spine that is shifted by one vertebra fits in many of them. The
agreement compares the whole field after local mean and contrast are removed. On the embedded case, all of 224 wrong
poses at which Gauss-Newton had converged agreed by at least 0.13 less than the right pose; some had a higher patch
score.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from fluoronav.geometry import Camera, inverse
from fluoronav.imaging.projector import AttenuationGrid, padded_rays
from fluoronav.imaging.registration.patches import Renders
from fluoronav.imaging.registration.truncation import chords_mm

Float32 = NDArray[np.float32]


@dataclass(frozen=True)
class AgreementSettings:
    """How the agreement is computed; all chosen."""

    sigma_px: float = 3.0  # over which the local mean is taken, at the agreement's resolution
    mean_regularisation: float = 1e-3  # added to the mask's weight
    contrast_regularisation: float = 0.1  # fraction of the largest local contrast
    # Bound of the largest local contrast, in its upper quartile: 1.5 to 2.4 in exposures of the embedded case, 10 and
    # more where the field has a strip without X-rays.
    most_contrast: float = 2.5
    min_attenuation: float = 0.3  # fraction of the DRR's maximum from which a pixel is compared
    # A CT that is a part of the patient: what else is in the beam has structure, too. Only its bones are compared.
    min_chord: float = 0.5  # fraction of the longest path through the CT from which a pixel is compared
    min_bone: float = 0.05  # fraction of the bones' largest line integral, the same
    outline_px: int = 3  # side of the square by which the bones are dilated
    # Correlation that tissue which the CT lacks allows. Of 140 mm cubes of a lumbar spine, right poses correlated by
    # 0.68 to 0.80 and one that errs by 3 mm by 0.63: with this the threshold of whole CTs divides them.
    attainable_by_part: float = 0.93
    # Such bones count in full with this fraction of them in the field, and with this fraction of the image. On less,
    # one of the many poses of a search agrees by chance: two thoracic vertebrae, of which 0.07 and 0.05 of the image
    # were compared, agreed by 0.77 and 0.71 with poses that err by 35 and 111 mm. Right poses of two lumbar vertebrae
    # saw 0.9 of them and 0.12 of the image, those of 140 mm cubes 0.16.
    full_part_in_view: float = 0.8
    full_part: float = 0.13
    erosion_px: int = 5  # side of the square that is eroded from the compared area
    min_in_view: float = 0.02  # fraction of the image; with less the agreement is 0
    full_in_view: float = 0.6  # fraction of the model's frontal area with which the agreement counts in full
    max_area: float = 0.75  # fraction of the image that the model's frontal area counts for at most
    # A part of the model (:meth:`Agreement.at_parts`).
    around_part_px: int = 9  # side of the square by which its silhouette is dilated: a quarter of a vertebra's width
    min_part: float = 0.02  # fraction of the image in which it must be compared
    min_part_in_view: float = 0.6  # fraction of its surroundings that must be in the field
    min_attainable_power: float = 0.25  # limits the correction for noise to a factor of 2


SETTINGS = AgreementSettings()


def locally_normalised(image: Float32, mask: Float32, sigma: float) -> Float32:
    """Removes the local mean and equalises the local contrast inside a mask; 0 outside, unit norm overall.

    Parameters
    ----------
    image, mask : ndarray of float32, shape (rows, cols)
        The mask is 0 or 1.
    sigma : float
        Pixels; standard deviation of the Gaussian for the mean. That for the contrast is twice as wide.

    Returns
    -------
    ndarray of float32, the same shape
    """
    weight = cv2.GaussianBlur(mask, (0, 0), sigma) + SETTINGS.mean_regularisation
    detail = (image - cv2.GaussianBlur(image * mask, (0, 0), sigma) / weight) * mask
    contrast = np.sqrt(cv2.GaussianBlur(detail * detail, (0, 0), 2 * sigma) / weight)
    inside = contrast[mask > 0]
    largest = float(contrast.max())
    if inside.size:
        quartile = np.partition(inside, 3 * inside.size // 4)[3 * inside.size // 4]
        largest = min(largest, SETTINGS.most_contrast * float(quartile))
    detail /= contrast + SETTINGS.contrast_regularisation * largest + 1e-6
    detail -= mask * (detail.sum() / max(float(mask.sum()), 1))
    return detail / (np.linalg.norm(detail) + 1e-9)


def _noise_fraction(image: Float32) -> float:
    """Fraction of an image's power that is white noise, estimated by the diagonal Haar coefficients."""
    rows, cols = image.shape[0] // 2 * 2, image.shape[1] // 2 * 2
    q = image[:rows, :cols]
    diagonal = 0.5 * (q[::2, ::2] - q[1::2, ::2] - q[::2, 1::2] + q[1::2, 1::2])
    return 4 * float((diagonal**2).sum()) / (float((image**2).sum()) + 1e-12)


class CastsPlainRays(Protocol):
    """A model without derivatives; see :class:`fluoronav.imaging.projector.Projector`."""

    grid: AttenuationGrid

    def line_integrals(self, T_camera_ct: NDArray[np.float64], directions: Float32, integrals: Float32, /) -> None: ...


class Agreement:
    """Agreement of poses with a frame over the whole field.

    Parameters
    ----------
    model, bones : CastsPlainRays
        All tissue, and the rigid bones alone, which are what is compared where the CT is a part of the patient.
    camera : Camera
        At full resolution.
    side : int
        Longer side of the compared image, pixels.
    T_prior : ndarray, shape (4, 4)
        Patient to camera, mm. Its depth gives the model's area in the middle of the image. A pose that leaves most of
        the model outside the image agrees by chance more easily; its agreement is reduced.

    Attributes
    ----------
    is_of_little : bool
        The CT shows so little bone that even a right pose, wholly in view, does not count in full.
    """

    def __init__(
        self, model: CastsPlainRays, bones: CastsPlainRays, camera: Camera, side: int, T_prior: NDArray[np.float64]
    ) -> None:
        self._model, self._bones = model, bones
        self._camera = camera.scaled(side / max(camera.rows, camera.cols))
        self._directions, self._count = padded_rays(self._camera.rays(self._camera.pixel_grid()))
        centre = T_prior[:3, :3] @ model.grid.centre_ct + T_prior[:3, 3]
        frontal = np.array(T_prior)
        frontal[:3, 3] += np.array([0, 0, np.linalg.norm(centre)]) - centre
        area = min(float(self._rendered(frontal)[1].sum()), SETTINGS.max_area * self._count)
        self._full_px = SETTINGS.full_in_view * area
        self.is_of_little = model.grid.known_ct is not None and area < SETTINGS.full_part * self._count

    def __call__(
        self,
        T_camera_ct: NDArray[np.float64],
        image: Float32,
        field_mask: NDArray[np.bool_],
        model: CastsPlainRays | None = None,
    ) -> float:
        """Correlation of the frame with the model's DRR inside the field and the model, -1 to 1.

        The correlation is corrected for the noise of the frame, which is estimated from its finest detail. Where little
        of the model is in view, it is multiplied by the square root of the fraction in view.

        Parameters
        ----------
        T_camera_ct : ndarray, shape (4, 4)
            Patient to camera, mm.
        image : ndarray of float32
            Attenuation at this object's resolution.
        field_mask : ndarray of bool
            Field of view without its penumbra, any size.
        model : CastsPlainRays, optional
            Of the same patient, moved in parts; else the one that it was made with.

        Returns
        -------
        float
        """
        drr, mask = self._rendered(T_camera_ct, model)
        full_px = self._full_px
        if self._model.grid.known_ct is not None:
            of_image = SETTINGS.full_part * mask.size
            full_px = max(full_px, of_image, SETTINGS.full_part_in_view * float(mask.sum()))
        mask *= cv2.resize(field_mask.astype(np.float32), mask.shape[::-1], interpolation=cv2.INTER_NEAREST)
        in_view = float(mask.sum())
        if in_view < SETTINGS.min_in_view * mask.size:
            return 0.0
        return self._correlation(image, drr, mask) * min(1.0, np.sqrt(in_view / full_px))

    def at_parts(
        self,
        T_camera_ct: NDArray[np.float64],
        image: Float32,
        field_mask: NDArray[np.bool_],
        model: CastsPlainRays,
        parts: Sequence[Renders],
    ) -> float:
        """The lowest correlation of the frame with a model's DRR at the silhouettes of some of its parts, -1 to 1.

        Corrected for noise as above. How much of the whole model is in view does not count, since it is the parts that
        are asked for.

        Parameters
        ----------
        T_camera_ct, image, field_mask
            As above.
        model : CastsPlainRays
            All that is in the picture.
        parts : sequence of Renders
            Whose silhouettes say where they are compared.

        Returns
        -------
        float
            0 where one is less than `min_part` of the image, or less than `min_part_in_view` of it is in the field.
        """
        drr = self._cast(model, T_camera_ct)
        field = cv2.resize(field_mask.astype(np.float32), drr.shape[::-1], interpolation=cv2.INTER_NEAREST)
        around = np.ones((SETTINGS.around_part_px, SETTINGS.around_part_px), np.uint8)
        lowest = 1.0
        for part in parts:
            outline = part.render(T_camera_ct, self._camera)
            silhouette = (outline > SETTINGS.min_bone * float(outline.max())).astype(np.float32)
            there = np.asarray(cv2.dilate(silhouette, around), np.float32)
            mask = there * field
            in_view = float(mask.sum())
            if in_view < max(SETTINGS.min_part * mask.size, SETTINGS.min_part_in_view * float(there.sum())):
                return 0.0
            lowest = min(lowest, self._correlation(image, drr, mask))
        return lowest

    def _correlation(self, image: Float32, drr: Float32, mask: Float32) -> float:
        """Of what is inside a mask, as a part of what noise, and tissue that the CT lacks, allow."""
        a, b = locally_normalised(image, mask, SETTINGS.sigma_px), locally_normalised(drr, mask, SETTINGS.sigma_px)
        attainable = np.sqrt(np.clip(1 - _noise_fraction(a) + _noise_fraction(b), SETTINGS.min_attainable_power, 1))
        if self._model.grid.known_ct is not None:
            attainable *= SETTINGS.attainable_by_part
        return float((a * b).sum() / attainable)

    def _cast(self, model: CastsPlainRays, T_camera_ct: NDArray[np.float64]) -> Float32:
        integrals = np.empty(self._directions.shape[1], np.float32)
        model.line_integrals(T_camera_ct, self._directions, integrals)
        return integrals[: self._count].reshape(self._camera.rows, self._camera.cols)

    def _rendered(
        self, T_camera_ct: NDArray[np.float64], model: CastsPlainRays | None = None
    ) -> tuple[Float32, Float32]:
        """The DRR, and its mask (0 or 1) of the pixels that are compared."""
        drr = self._cast(model or self._model, T_camera_ct)
        compared = (drr > 0) & (drr > SETTINGS.min_attenuation * float(drr.max()))
        if self._model.grid.known_ct is not None:
            return drr, self._of_the_bones(T_camera_ct, self._model.grid.known_ct)
        around = np.ones((SETTINGS.erosion_px, SETTINGS.erosion_px), np.uint8)
        return drr, np.asarray(cv2.erode(compared.astype(np.float32), around), dtype=np.float32)

    def _of_the_bones(self, T_camera_ct: NDArray[np.float64], known_ct: NDArray[np.float64]) -> Float32:
        """The mask of a CT that is a part of the patient: its bones and their outline, where the rays cross the CT."""
        chords = chords_mm(self._directions, inverse(T_camera_ct), known_ct)[: self._count]
        compared = chords > SETTINGS.min_chord * float(chords.max())
        integrals = np.empty(self._directions.shape[1], np.float32)
        self._bones.line_integrals(T_camera_ct, self._directions, integrals)
        bone = integrals[: self._count] > SETTINGS.min_bone * float(integrals.max())
        around = np.ones((SETTINGS.outline_px, SETTINGS.outline_px), np.uint8)
        shape = (self._camera.rows, self._camera.cols)
        near = cv2.dilate(bone.astype(np.float32).reshape(shape), around)
        return np.asarray(near * compared.reshape(shape), np.float32)
