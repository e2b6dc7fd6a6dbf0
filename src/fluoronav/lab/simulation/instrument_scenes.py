"""Random scenes with instruments in front of real anatomy, and with what looks like instruments and is not.

For training the detector and for measuring it; a scene says where every tip and axis is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import cv2
import numpy as np
from numpy.typing import NDArray

from fluoronav.geometry import Camera, exp_se3, transform_points
from fluoronav.lab.simulation.detector import Detector, ImageChain
from fluoronav.lab.simulation.distractors import distract
from fluoronav.lab.simulation.metal import Metal, axis_points, drill, k_wire, needle, screw, steel_mm
from fluoronav.lab.simulation.xray import transmission

Float = NDArray[np.float64]
Float32 = NDArray[np.float32]

# Where a tip may be, from the source (mm), and how steeply an instrument may stand to the image plane.
_NEAREST_MM, _FARTHEST_MM, _STEEPEST_DEG = 480.0, 760.0, 65.0
_TAILS_IN_VIEW = 0.1
# The chord at an axis' end that gives its direction there, of a straight one and of a bent one; at most so far from its
# last point an axis in view has its tail there. Pixels of the image.
_CHORD_PX, _CHORD_OF_BENT_PX, _AT_TAIL_PX = 300, 40, 2.0
# What shows less of itself nobody would call an instrument; less than the second is hard to tell. Pixels at 1024.
_LEAST_PX, _SHORT_PX = 60, 160
_TIP_PX = 24  # so much of an axis is its tip, pixels of a 1024 image
# What is to be seen must differ from what is around it by so many standard deviations of the noise over its whole area
# (Rose, The sensitivity performance of the human eye on an absolute scale, J Opt Soc Am 1948).
_ROSE = 5.0
_COUNTS = (0.12, 0.5, 0.26, 0.12)  # scenes with 0, 1, 2, 3 instruments
# The middles of the thirds of a pulse of 10 ms, in frames of 30 a second.
_WITHIN_PULSE = (-0.1, 0.0, 0.1)


@dataclass(frozen=True)
class Placed:
    """An instrument of a scene.

    Attributes
    ----------
    metal : Metal
    points_camera : ndarray, shape (n, 3)
        Its axis from the tip on, mm.
    axis_px : ndarray, shape (m, 2)
        The part of the axis that is in view, from the tip on, (column, row), a point every pixel or so.
    tip_hidden : bool
        Other metal in the way of the beam through its tip is thicker than the tip itself, or the tip cannot be told
        from the noise: where the detector saturates, say.
    """

    metal: Metal
    points_camera: Float
    axis_px: Float
    tip_hidden: bool = False

    @property
    def kind(self) -> str:
        return self.metal.kind

    @property
    def tip_direction(self) -> Float:
        """Whither the axis points out of the tip, a unit vector (column, row)."""
        return self._outwards(self.axis_px)

    @property
    def tail_direction(self) -> Float:
        """Whither it points out of the end that is not the tip, where it ends or leaves the view."""
        return self._outwards(self.axis_px[::-1])

    def shows_tail(self, camera: Camera) -> bool:
        """Whether it ends in the camera's view, and does not leave it."""
        return float(np.linalg.norm(self.axis_px[-1] - camera.project(self.points_camera[-1]))) < _AT_TAIL_PX

    def _outwards(self, from_end: Float) -> Float:
        chord = _CHORD_OF_BENT_PX if self.metal.bend_mm else _CHORD_PX
        outwards = from_end[0] - from_end[min(len(from_end) - 1, chord)]
        return outwards / max(float(np.hypot(*outwards)), 1e-9)


@dataclass(frozen=True)
class Background:
    """Anatomy in the beam: water and bone in each ray's way, g/cm2, at half the camera's resolution."""

    water: Float32
    bone: Float32


ShapeMaker = Callable[[np.random.Generator], Metal]
# The motion since the first frame, about where the tip was then, (4, 4), of a moment in frames.
Way = Callable[[float], Float]


def training_shape(rng: np.random.Generator) -> Metal:
    """An instrument of any kind, of sizes that are in use."""
    kind = rng.integers(4)
    if kind == 0:
        bent = 0.0 if rng.random() < 0.7 else rng.uniform(1.5, 12)
        return k_wire(rng.choice([1.2, 1.4, 1.6, 1.8, 2.0, 2.4, 3.0]), rng.uniform(60, 280), rng.uniform(2, 7), bent)
    if kind == 1:
        d = rng.uniform(2.0, 5.0)
        return drill(d, rng.uniform(70, 200), rng.uniform(20, 70), rng.uniform(1.5, 3) * d, d * rng.uniform(0.9, 1.4))
    if kind == 2:
        d = rng.uniform(4.0, 7.5)
        return screw(d, rng.uniform(25, 55), rng.uniform(1.8, 3.2), rng.uniform(9, 14), rng.uniform(5, 9), 220)
    d = rng.uniform(1.2, 3.4)
    return needle(d, d * rng.uniform(0.1, 0.25), rng.uniform(60, 180))


def unseen_shape(rng: np.random.Generator) -> Metal:
    """Instruments of sizes between and beyond those of :func:`training_shape`."""
    kind = rng.integers(4)
    if kind == 0:
        bent = 0.0 if rng.random() < 0.7 else rng.uniform(2, 9)
        return k_wire(rng.choice([1.5, 1.7, 2.2, 2.7]), rng.uniform(80, 250), rng.uniform(1.5, 5), bent)
    if kind == 1:
        d = rng.choice([2.7, 3.2, 4.5])
        return drill(d, rng.uniform(80, 160), rng.uniform(25, 50), 2.2 * d, d)
    if kind == 2:
        return screw(rng.choice([5.0, 6.2]), rng.choice([30.0, 40.0, 50.0]), 2.75, 12.5, rng.uniform(5.5, 10), 220)
    d = rng.choice([1.27, 2.1, 3.05])
    return needle(d, 0.18 * d, rng.uniform(70, 150))


def limb(rng: np.random.Generator, camera: Camera) -> Background:
    """A limb in the open beam: soft tissue, and one to three long bones or a cluster of small ones in it.

    Bodies of revolution, not anatomy: what the detector is to learn from it are sharp cortical edges, edges against
    air, and marrow canals, which look like shafts.
    """
    water, bone = (np.zeros((camera.rows, camera.cols), np.float32) for _ in range(2))
    centre = camera.rays(rng.uniform(0.25, 0.75, 2) * [camera.cols, camera.rows]) * rng.uniform(550, 750)
    along = _near_plane(rng, 25.0)
    across = np.cross(along, [0.0, 0.0, 1.0])
    across /= np.linalg.norm(across)

    def body(radius: NDArray, canal: NDArray, middle: Float, direction: Float, out: Float32, share: float) -> None:
        metal = Metal("limb", radius.astype(np.float32), canal.astype(np.float32))
        points = axis_points(metal, middle + 0.5 * metal.length_mm * direction, direction, across)
        mm = np.zeros_like(out)
        if (points[:, 2] > 120).all():
            steel_mm(metal, points, camera, mm)
        out += np.float32(share) * mm

    s = np.linspace(-1, 1, 1500)
    flesh = rng.uniform(14, 42)
    body(flesh * (1 + rng.uniform(-0.25, 0.25) * s + rng.uniform(0, 0.3) * s**2), 0 * s, centre, along, water, 0.105)
    if rng.random() < 0.35:  # a wrist or a foot
        for _ in range(rng.integers(4, 12)):
            n = int(rng.uniform(40, 130))
            t = np.linspace(-1, 1, n)
            r = 0.1 * n * rng.uniform(0.6, 1.2) * np.sqrt(np.clip(1 - t**2, 0.01, 1))
            at = centre + rng.uniform(-0.8, 0.8) * flesh * across + rng.uniform(-35, 35) * along
            turned = along + rng.normal(0, 0.6, 3)
            body(r, np.clip(r - rng.uniform(1, 2), 0, None), at, turned / np.linalg.norm(turned), bone, 0.16)
    for _ in range(rng.integers(1, 4)):
        n = int(rng.uniform(400, 1500))
        t = np.linspace(-1, 1, n)
        r = rng.uniform(3, min(15, 0.5 * flesh)) * (1 + rng.uniform(0, 1.2) * np.abs(t) ** rng.integers(4, 12))
        r *= np.clip((1 - np.abs(t)) * rng.uniform(8, 40), 0.05, 1) ** 0.5
        at = centre + rng.uniform(-0.7, 0.7) * flesh * across + rng.uniform(-80, 80) * along
        turned = along + rng.normal(0, 0.08, 3)
        body(r, r * rng.uniform(0.3, 0.8), at, turned / np.linalg.norm(turned), bone, rng.uniform(0.1, 0.19))
    return Background(water, bone)


def _near_plane(rng: np.random.Generator, steepest_deg: float) -> Float:
    """A unit vector near the image plane."""
    around, steep = rng.uniform(0, 2 * np.pi), np.deg2rad(rng.uniform(-steepest_deg, steepest_deg))
    return np.array([np.cos(around) * np.cos(steep), np.sin(around) * np.cos(steep), np.sin(steep)])


@dataclass
class _Exposure:
    """What a scene's detector is about to see."""

    chain: ImageChain
    water: Float32
    bone: Float32
    steel: Float32

    @cached_property
    def beam(self) -> Float32:
        """Share of the open beam behind all of it."""
        beam = np.empty(self.steel.size, np.float32)
        transmission(self.water.ravel(), self.bone.ravel(), self.steel.ravel(), beam)
        return beam.reshape(self.steel.shape)

    def counts(self, seed: int) -> NDArray[np.uint16]:
        """What the detector says of it."""
        return self.chain.counts(self.beam, seed)

    @cached_property
    def _detected(self) -> tuple[Float32, float]:
        return self.chain.exposure(self.beam)

    def contrast_to_noise(self, own: Float32, where: NDArray[np.bool_]) -> float:
        """Of a piece of metal, over its whole area, against the same picture without it.

        Parameters
        ----------
        own : ndarray of float32, shape (rows, cols)
            Its steel, mm.
        where : ndarray of bool, shape (rows, cols)
            The part of it that is asked for.
        """
        at, chain, settings = np.nonzero(where & self.chain.field_mask), self.chain, self.chain.settings
        without = np.empty(len(at[0]), np.float32)
        transmission(self.water[at], self.bone[at], np.maximum(self.steel[at] - own[at], 0), without)
        photons, per_share = self._detected
        now, full = photons[at], settings.headroom * settings.photons
        # Scatter is the same with it and without.
        gained = per_share * chain.shading[at] * (without - self.beam[at])
        difference = np.minimum(now + gained, full) - np.minimum(now, full)
        return float(np.sqrt((difference**2 / (now + settings.electronic_photons**2)).sum()))


class SceneMaker:
    """Makes exposures for one camera.

    Parameters
    ----------
    camera : Camera
        Of the exposures; training uses half the resolution, since the detector sees a quarter of it.
    backgrounds : list of Background
        At half of this camera's resolution, or at its own.
    shape : callable
        Draws an instrument.
    hard : float, optional
        The share of instruments that have to be hard to see whole: little of them in view, or their tails as well.
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
            Mean detected photons a pixel of a 1024 x 1024 image; by default 15 to 150.
        count : int, optional
            How many instruments; by default 0 to 3.

        Returns
        -------
        counts : ndarray of uint16, shape (rows, cols)
        instruments : tuple of Placed
        seen : ndarray of bool
            Inside aperture and blades.
        """
        chain, water, bone, placed = self._setup(rng, photons, count)
        steel = self._steel(placed)
        steel += distract(rng, self.camera, steel, chain.field_mask)
        exposure = _Exposure(chain, water, bone, steel)
        placed = self._looked_at(placed, exposure)
        if rng.random() < 0.3:  # the hand, or the patient, moves during the pulse
            exposure = replace(exposure, steel=_moved(steel, rng, self.camera.cols / 1024))
        return exposure.counts(int(rng.integers(30000))), placed, chain.field_mask

    def sequence(
        self, rng: np.random.Generator, frames: int, photons: float | None = None, count: int | None = None
    ) -> Iterator[tuple[NDArray[np.uint16], tuple[Placed, ...]]]:
        """Exposures in which the instruments are moved as by a hand, before one background.

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
            In one order; one that has left the view has an empty axis.
        """
        for exposure, now in self._moments(rng, frames, photons, count):
            placed = self._looked_at(now, exposure)
            yield exposure.counts(int(rng.integers(30000))), placed

    def beams(
        self, rng: np.random.Generator, frames: int, photons: float | None = None, count: int | None = None
    ) -> Iterator[tuple[ImageChain, Float32, tuple[Placed, ...]]]:
        """A sequence before it is exposed: the detector, and what share of the open beam each pixel gets.

        Parameters and the instruments are those of :meth:`sequence`; whether a tip is hidden is not said.
        """
        for exposure, now in self._moments(rng, frames, photons, count):
            yield exposure.chain, exposure.beam, now

    def _moments(
        self, rng: np.random.Generator, frames: int, photons: float | None, count: int | None
    ) -> Iterator[tuple[_Exposure, tuple[Placed, ...]]]:
        chain, water, bone, placed = self._setup(rng, photons, count)
        others = distract(rng, self.camera, self._steel(placed), chain.field_mask)
        ways = [_hand(rng) for _ in placed]
        for k in range(frames):
            now = tuple(self._at(p, way(k), chain.field_mask) for p, way in zip(placed, ways, strict=True))
            yield _Exposure(chain, water, bone, self._steel_of_pulse(placed, ways, k) + others), now

    def _steel_of_pulse(self, placed: tuple[Placed, ...], ways: list[Way], frame: int) -> Float32:
        """Of moving instruments, from the pulse's beginning to its end; its middle is where they are said to be."""
        steel = np.zeros((self.camera.rows, self.camera.cols), np.float32)
        for at in _WITHIN_PULSE:
            steel += self._steel(tuple(_turned(p, way(frame + at)) for p, way in zip(placed, ways, strict=True)))
        steel /= len(_WITHIN_PULSE)
        return steel

    def pair(
        self, rng: np.random.Generator, T_second_first: Float, photons: float | None = None
    ) -> tuple[tuple[NDArray[np.uint16], Placed], tuple[NDArray[np.uint16], Placed]]:
        """One instrument that holds still, from two sides: exposures, and where it is in each camera's frame.

        Parameters
        ----------
        rng : Generator
        T_second_first : ndarray, shape (4, 4)
            From the first camera's frame to the second's, mm.
        photons : float, optional
            As for :meth:`scene`. The anatomy behind it is another in each view.
        """
        while True:
            first, second = self._setup(rng, photons, 1), self._setup(rng, photons, 0)
            (one,) = first[3]
            points = transform_points(T_second_first, one.points_camera)
            if (points[:, 2] < 100).any():
                continue
            other = Placed(one.metal, points, visible_axis_px(points, self.camera, second[0].field_mask))
            if len(other.axis_px) * 1024 / self.camera.cols > _LEAST_PX:
                break
        shots = []
        for (chain, water, bone, _), placed in ((first, one), (second, other)):
            steel = self._steel((placed,))
            steel += distract(rng, self.camera, steel, chain.field_mask)
            shots.append((_Exposure(chain, water, bone, steel).counts(int(rng.integers(30000))), placed))
        return shots[0], shots[1]

    def _setup(
        self, rng: np.random.Generator, photons: float | None, count: int | None
    ) -> tuple[ImageChain, Float32, Float32, tuple[Placed, ...]]:
        """Detector, anatomy (water and bone) and instruments."""
        photons = float(np.exp(rng.uniform(np.log(15), np.log(150)))) if photons is None else photons
        chain = self._chain(photons, int(rng.integers(6)))
        count = int(rng.choice(len(_COUNTS), p=_COUNTS)) if count is None else count
        background = self._backgrounds[rng.integers(len(self._backgrounds))]
        water, bone = _varied(background, rng, (self.camera.cols, self.camera.rows))
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

    def _looked_at(self, placed: tuple[Placed, ...], exposure: _Exposure) -> tuple[Placed, ...]:
        """The same, knowing whose tip is hidden; of one that has left the view it is not asked."""
        return tuple(
            replace(one, tip_hidden=len(one.axis_px) > 0 and self._tip_hidden(one, exposure)) for one in placed
        )

    def _tip_hidden(self, placed: Placed, exposure: _Exposure) -> bool:
        own, steel = self._steel((placed,)), exposure.steel
        length = max(round(_TIP_PX * self.camera.cols / 1024), 1)
        tip = np.rint(placed.axis_px[:length]).astype(np.int32)
        alone = float(own[tip[:, 1], tip[:, 0]].mean())
        if float(steel[tip[:, 1], tip[:, 0]].mean()) > 2 * alone:
            return True
        near = np.zeros(own.shape, np.uint8)
        cv2.polylines(near, [tip], False, 1, max(length, 2))
        return exposure.contrast_to_noise(own, (near > 0) & (own > 0)) < _ROSE

    def _at(self, placed: Placed, motion: Float, field_mask: NDArray[np.bool_]) -> Placed:
        """An instrument moved by a motion about its first tip."""
        turned = _turned(placed, motion)
        return replace(turned, axis_px=visible_axis_px(turned.points_camera, self.camera, field_mask))

    def _chain(self, photons: float, kind: int) -> ImageChain:
        """A detector; a pixel of a smaller image collects more photons."""
        key = (round(photons, -1) or 15.0, kind)
        if key not in self._chains:
            rng = np.random.default_rng(kind)
            settings = Detector(
                photons=key[0] * (1024 / self.camera.cols) ** 2,
                collimator_share=rng.uniform(0.7, 1.2),
                aperture_share=rng.choice([0.98, 0.9, 1.5]),
                scatter_to_primary=rng.uniform(0.2, 0.5),
                blur_sigma_px=rng.uniform(0.7, 1.2),
            )
            self._chains[key] = ImageChain(settings, self.camera.rows, self.camera.cols, kind)
        return self._chains[key]

    def _placed(self, rng: np.random.Generator, field_mask: NDArray[np.bool_], hard: bool) -> Placed | None:
        camera, metal = self.camera, self._shape(rng)
        margin = 0.06
        tip_px = rng.uniform([margin * camera.cols, margin * camera.rows], [(1 - margin) * camera.cols] * 2)
        if not field_mask[int(tip_px[1]), int(tip_px[0])]:
            return None
        tip = camera.rays(tip_px) * rng.uniform(_NEAREST_MM, _FARTHEST_MM)
        direction = _near_plane(rng, _STEEPEST_DEG)
        side = np.cross(direction, rng.standard_normal(3))
        points = axis_points(metal, tip, direction, side / np.linalg.norm(side))
        if (points[:, 2] < 100).any():
            return None
        axis_px = visible_axis_px(points, camera, field_mask)
        if len(axis_px) == 0:
            return None
        placed = Placed(metal, points, axis_px)
        whole = placed.shows_tail(camera)
        length_px = len(axis_px) * 1024 / camera.cols
        if hard and not whole and length_px > _SHORT_PX:
            return None
        # A tail in view is rare: a hand or a driver holds it, out of the field.
        if not hard and whole and rng.random() > _TAILS_IN_VIEW:
            return None
        return placed if length_px > _LEAST_PX else None


def visible_axis_px(points_camera: Float, camera: Camera, field_mask: NDArray[np.bool_]) -> Float:
    """The projected axis from the tip to where it leaves the view, about a point every pixel, shape (m, 2)."""
    uv = camera.project(points_camera)
    pieces = []
    for k in range(len(uv) - 1):
        n = max(int(np.linalg.norm(uv[k + 1] - uv[k])), 1)
        t = np.arange(n)[:, None] / n
        pieces.append(camera.project(points_camera[k] + t * (points_camera[k + 1] - points_camera[k])))
    axis = np.concatenate([*pieces, uv[-1:]])
    at = np.rint(axis).astype(int)
    inside = (at >= 0).all(1) & (at[:, 0] < camera.cols) & (at[:, 1] < camera.rows)
    inside[inside] = field_mask[at[inside, 1], at[inside, 0]]
    leaves = np.flatnonzero(~inside)
    return axis[: leaves[0]] if len(leaves) else axis


def _turned(placed: Placed, motion: Float) -> Placed:
    """An instrument moved by a motion about its tip; its axis in the picture is still that of before."""
    tip = placed.points_camera[0]
    return replace(placed, points_camera=transform_points(motion, placed.points_camera - tip) + tip)


def _varied(background: Background, rng: np.random.Generator, size: tuple[int, int]) -> tuple[Float32, Float32]:
    """The anatomy mirrored, thicker or thinner, and at the camera's size."""
    flip = rng.integers(4)
    thick, dense = rng.uniform(0.75, 1.25), rng.uniform(0.8, 1.2)
    out = []
    for image, share in ((background.water, thick), (background.bone, thick * dense)):
        if flip:
            image = cv2.flip(image.astype(np.float32), int(flip) - 2)
        out.append(np.maximum(cv2.resize(image.astype(np.float32) * share, size, interpolation=cv2.INTER_CUBIC), 0))
    return out[0], out[1]


def _hand(rng: np.random.Generator) -> Way:
    """A few millimetres and degrees, at up to 30 mm/s and 30 frames a second."""
    amplitude = np.concatenate([np.deg2rad(rng.uniform(-2, 2, 3)), rng.uniform(-8, 8, 3)])
    turns, phase = rng.uniform(0.1, 0.5, 6) / 30, rng.uniform(0, 2 * np.pi, 6)

    def at(frame: float) -> Float:
        return exp_se3(amplitude * (np.sin(2 * np.pi * turns * frame + phase) - np.sin(phase)))

    return at


def _moved(steel: Float32, rng: np.random.Generator, scale: float) -> Float32:
    """Blurred along a line of up to 8 pixels of a 1024 image."""
    n = int(rng.uniform(2, 8) * scale) | 1
    if n < 3:
        return steel
    kernel = np.zeros((n, n), np.float32)
    angle = rng.uniform(0, np.pi)
    c = n // 2
    off = c * np.array([np.cos(angle), np.sin(angle)])
    cv2.line(kernel, tuple(np.rint(c - off).astype(int).tolist()), tuple(np.rint(c + off).astype(int).tolist()), 1.0)
    return np.asarray(cv2.filter2D(steel, -1, kernel / kernel.sum()), dtype=np.float32)
