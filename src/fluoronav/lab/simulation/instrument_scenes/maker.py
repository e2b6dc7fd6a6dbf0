"""Makes random scenes: one exposure, a sequence, or one instrument from two sides."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from fluoronav.geometry import Camera, transform_points
from fluoronav.lab.simulation.distractors import distract
from fluoronav.lab.simulation.flat_panel import FlatPanel, ImageChain
from fluoronav.lab.simulation.instrument_scenes.exposure import Exposure, motion_blurred
from fluoronav.lab.simulation.instrument_scenes.limb import Background, near_image_plane
from fluoronav.lab.simulation.instrument_scenes.placed import Motion, Placed, hand_motion, visible_axis_px
from fluoronav.lab.simulation.instrument_scenes.shapes import ShapeMaker, training_shape
from fluoronav.lab.simulation.metal import axis_points, steel_mm

Float = NDArray[np.float64]
Float32 = NDArray[np.float32]


@dataclass(frozen=True)
class SceneLimits:
    """Which scenes are made. Pixels are those of a 1024 x 1024 image. All chosen but `rose`."""

    nearest_mm: float = 480.0  # depth of a tip from the source
    farthest_mm: float = 760.0
    steepest_deg: float = 65.0  # of an instrument to the image plane
    nearest_point_mm: float = 100.0  # from the source, of any point of an instrument
    margin: float = 0.06  # fraction of the image's width at its edge that has no tip
    tails_in_view: float = 0.1  # fraction kept of the instruments whose tail shows: a hand or a driver holds most
    least_px: int = 60  # visible length below which nobody would call it an instrument
    short_px: int = 160  # visible length below which it is hard to tell
    tip_px: int = 24  # length of the axis that is called its tip
    # Contrast-to-noise ratio over its whole area from which an object is seen (Rose, J Opt Soc Am 38:196, 1948).
    rose: float = 5.0
    counts: tuple[float, ...] = (0.12, 0.5, 0.26, 0.12)  # fractions of the scenes with 0, 1, 2, 3 instruments
    photons: tuple[float, float] = (15.0, 150.0)  # per pixel, log-uniform
    moving: float = 0.3  # fraction of the exposures in which the hand or the patient moves
    # Middles of the thirds of a pulse of 10 ms, in frames at 30 a second.
    within_pulse: tuple[float, ...] = (-0.1, 0.0, 0.1)


LIMITS = SceneLimits()


class SceneMaker:
    """Makes random exposures for one camera.

    Parameters
    ----------
    camera : Camera
        Of the exposures; training uses half the resolution, since the network reads a quarter of it.
    backgrounds : list of Background
        At half of this camera's resolution, or at its own.
    shape : callable
        Draws an instrument.
    hard : float, optional
        Fraction of the instruments that must be hard to see as a whole: little of them in view, or their tails as well.
    """

    def __init__(
        self, camera: Camera, backgrounds: list[Background], shape: ShapeMaker = training_shape, hard: float = 0.0
    ) -> None:
        self.camera, self._backgrounds, self._shape, self._hard = camera, backgrounds, shape, hard
        self._chains: dict[tuple[float, int], ImageChain] = {}

    def scene(
        self, rng: np.random.Generator, photons: float | None = None, count: int | None = None
    ) -> tuple[NDArray[np.uint16], tuple[Placed, ...], NDArray[np.bool_]]:
        """One exposure.

        Parameters
        ----------
        rng : Generator
        photons : float, optional
            Mean detected photons per pixel of a 1024 x 1024 image; by default 15 to 150.
        count : int, optional
            Number of instruments; by default 0 to 3.

        Returns
        -------
        counts : ndarray of uint16, shape (rows, cols)
        instruments : tuple of Placed
        field_mask : ndarray of bool, shape (rows, cols)
            Inside aperture and blades.
        """
        chain, water, bone, placed = self._setup(rng, photons, count)
        steel = self._steel(placed)
        steel += distract(rng, self.camera, steel, chain.field_mask)
        exposure = Exposure(chain, water, bone, steel)
        placed = self._with_tip_hidden(placed, exposure)
        if rng.random() < LIMITS.moving:
            exposure = replace(exposure, steel=motion_blurred(steel, rng, self.camera.cols / 1024))
        return exposure.counts(int(rng.integers(30000))), placed, chain.field_mask

    def sequence(
        self, rng: np.random.Generator, frames: int, photons: float | None = None, count: int | None = None
    ) -> Iterator[tuple[NDArray[np.uint16], tuple[Placed, ...]]]:
        """Exposures in which a hand moves the instruments, in front of one background.

        Parameters
        ----------
        rng : Generator
        frames : int
        photons, count
            As for :meth:`scene`.

        Yields
        ------
        counts : ndarray of uint16, shape (rows, cols)
        instruments : tuple of Placed
            Always in the same order; one that has left the view has an empty axis.
        """
        for exposure, now in self._moments(rng, frames, photons, count):
            placed = self._with_tip_hidden(now, exposure)
            yield exposure.counts(int(rng.integers(30000))), placed

    def beams(
        self, rng: np.random.Generator, frames: int, photons: float | None = None, count: int | None = None
    ) -> Iterator[tuple[ImageChain, Float32, tuple[Placed, ...]]]:
        """A sequence before it is exposed: the panel, and the fraction of the open beam at each pixel.

        Parameters and instruments are those of :meth:`sequence`; `tip_hidden` is not set.
        """
        for exposure, now in self._moments(rng, frames, photons, count):
            yield exposure.chain, exposure.beam, now

    def _moments(
        self, rng: np.random.Generator, frames: int, photons: float | None, count: int | None
    ) -> Iterator[tuple[Exposure, tuple[Placed, ...]]]:
        chain, water, bone, placed = self._setup(rng, photons, count)
        others = distract(rng, self.camera, self._steel(placed), chain.field_mask)
        motions = [hand_motion(rng) for _ in placed]
        for k in range(frames):
            now = tuple(self._at(p, at(k), chain.field_mask) for p, at in zip(placed, motions, strict=True))
            yield Exposure(chain, water, bone, self._steel_of_pulse(placed, motions, k) + others), now

    def _steel_of_pulse(self, placed: tuple[Placed, ...], motions: list[Motion], frame: int) -> Float32:
        """Steel of moving instruments, averaged over the pulse; their stated place is that of its middle."""
        steel = np.zeros((self.camera.rows, self.camera.cols), np.float32)
        for t in LIMITS.within_pulse:
            steel += self._steel(tuple(p.moved(at(frame + t)) for p, at in zip(placed, motions, strict=True)))
        steel /= len(LIMITS.within_pulse)
        return steel

    def pair(
        self, rng: np.random.Generator, T_second_first: Float, photons: float | None = None
    ) -> tuple[tuple[NDArray[np.uint16], Placed], tuple[NDArray[np.uint16], Placed]]:
        """One instrument at rest, from two sides: exposures, and its place in each camera's frame.

        Parameters
        ----------
        rng : Generator
        T_second_first : ndarray, shape (4, 4)
            From the first camera's frame to the second's, mm.
        photons : float, optional
            As for :meth:`scene`. The anatomy behind it differs between the views.
        """
        while True:
            first, second = self._setup(rng, photons, 1), self._setup(rng, photons, 0)
            (one,) = first[3]
            points = transform_points(T_second_first, one.points_camera)
            if (points[:, 2] < LIMITS.nearest_point_mm).any():
                continue
            other = Placed(one.metal, points, visible_axis_px(points, self.camera, second[0].field_mask))
            if len(other.axis_px) * 1024 / self.camera.cols > LIMITS.least_px:
                break
        shots = []
        for (chain, water, bone, _), placed in ((first, one), (second, other)):
            steel = self._steel((placed,))
            steel += distract(rng, self.camera, steel, chain.field_mask)
            shots.append((Exposure(chain, water, bone, steel).counts(int(rng.integers(30000))), placed))
        return shots[0], shots[1]

    def _setup(
        self, rng: np.random.Generator, photons: float | None, count: int | None
    ) -> tuple[ImageChain, Float32, Float32, tuple[Placed, ...]]:
        """Panel, water, bone and instruments."""
        photons = float(np.exp(rng.uniform(*np.log(LIMITS.photons)))) if photons is None else photons
        chain = self._chain(photons, int(rng.integers(6)))
        count = int(rng.choice(len(LIMITS.counts), p=LIMITS.counts)) if count is None else count
        background = self._backgrounds[rng.integers(len(self._backgrounds))]
        water, bone = background.varied(rng, (self.camera.cols, self.camera.rows))
        placed: list[Placed] = []
        while len(placed) < count:
            hard = self._hard > 0 and rng.random() < self._hard
            one = None
            while one is None:
                one = self._placed(rng, chain.field_mask, hard)
            placed.append(one)
        return chain, water, bone, tuple(placed)

    def _steel(self, placed: tuple[Placed, ...]) -> Float32:
        steel = np.zeros((self.camera.rows, self.camera.cols), np.float32)
        for one in placed:
            steel_mm(one.metal, one.points_camera, self.camera, steel)
        return steel

    def _with_tip_hidden(self, placed: tuple[Placed, ...], exposure: Exposure) -> tuple[Placed, ...]:
        """The instruments with `tip_hidden` set; it is false for one that has left the view."""
        return tuple(
            replace(one, tip_hidden=len(one.axis_px) > 0 and self._tip_hidden(one, exposure)) for one in placed
        )

    def _tip_hidden(self, placed: Placed, exposure: Exposure) -> bool:
        own, steel = self._steel((placed,)), exposure.steel
        length = max(round(LIMITS.tip_px * self.camera.cols / 1024), 1)
        tip = np.rint(placed.axis_px[:length]).astype(np.int32)
        alone = float(own[tip[:, 1], tip[:, 0]].mean())
        if float(steel[tip[:, 1], tip[:, 0]].mean()) > 2 * alone:
            return True
        near = np.zeros(own.shape, np.uint8)
        cv2.polylines(near, [tip], False, 1, max(length, 2))
        return exposure.contrast_to_noise(own, (near > 0) & (own > 0)) < LIMITS.rose

    def _at(self, placed: Placed, motion: Float, field_mask: NDArray[np.bool_]) -> Placed:
        """An instrument moved about its tip, with its visible axis."""
        moved = placed.moved(motion)
        return replace(moved, axis_px=visible_axis_px(moved.points_camera, self.camera, field_mask))

    def _chain(self, photons: float, kind: int) -> ImageChain:
        """A panel; a pixel of a smaller image collects more photons."""
        key = (round(photons, -1) or 15.0, kind)
        if key not in self._chains:
            rng = np.random.default_rng(kind)
            settings = FlatPanel(
                photons=key[0] * (1024 / self.camera.cols) ** 2,
                collimator_fraction=rng.uniform(0.7, 1.2),
                aperture_fraction=rng.choice([0.98, 0.9, 1.5]),
                scatter_to_primary=rng.uniform(0.2, 0.5),
                blur_sigma_px=rng.uniform(0.7, 1.2),
            )
            self._chains[key] = ImageChain(settings, self.camera.rows, self.camera.cols, kind)
        return self._chains[key]

    def _placed(self, rng: np.random.Generator, field_mask: NDArray[np.bool_], hard: bool) -> Placed | None:
        camera, metal = self.camera, self._shape(rng)
        low, high = LIMITS.margin, 1 - LIMITS.margin
        tip_px = rng.uniform([low * camera.cols, low * camera.rows], [high * camera.cols] * 2)
        if not field_mask[int(tip_px[1]), int(tip_px[0])]:
            return None
        tip = camera.rays(tip_px) * rng.uniform(LIMITS.nearest_mm, LIMITS.farthest_mm)
        direction = near_image_plane(rng, LIMITS.steepest_deg)
        side = np.cross(direction, rng.standard_normal(3))
        points = axis_points(metal, tip, direction, side / np.linalg.norm(side))
        if (points[:, 2] < LIMITS.nearest_point_mm).any():
            return None
        axis_px = visible_axis_px(points, camera, field_mask)
        if len(axis_px) == 0:
            return None
        placed = Placed(metal, points, axis_px)
        whole = placed.shows_tail(camera)
        length_px = len(axis_px) * 1024 / camera.cols
        if hard and not whole and length_px > LIMITS.short_px:
            return None
        if not hard and whole and rng.random() > LIMITS.tails_in_view:
            return None
        return placed if length_px > LIMITS.least_px else None
