"""Metal in the beam that is no instrument, and objects that look like metal.

A cable has no bare end in the field: it leaves the field, or ends in an electrode, a lug, a plug or a connector. A rod
has heads. Nobody can tell a bare end of wire from a K-wire, and a detector trained to do so would miss both.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from fluoronav.geometry import Camera

Float = NDArray[np.float64]
Float32 = NDArray[np.float32]


@dataclass(frozen=True)
class DistractorRates:
    """Fractions of the scenes that show each kind, unless said otherwise; all chosen."""

    staples: float = 0.25
    ecg_lead: float = 0.25
    cables: float = 0.35
    connector: float = 0.3  # of the cables
    plugs: float = 0.1
    rail: float = 0.15
    beads: float = 0.3
    letters: float = 0.25
    implants: float = 0.3
    retractor: float = 0.2
    # A retractor that hides more of the field is left out: instruments behind it would be asked for.
    retractor_most: float = 0.12  # fraction of the field


RATES = DistractorRates()
_SHIFT = 4  # cv2 draws to a sixteenth of a pixel


class _Scene:
    """An image of steel, mm, into which random objects are drawn; lengths are pixels of a 1024 image."""

    def __init__(
        self, rng: np.random.Generator, camera: Camera, instruments: Float32, field_mask: NDArray[np.bool_]
    ) -> None:
        self.rng, self.camera, self.instruments, self.field_mask = rng, camera, instruments, field_mask
        self.steel = np.zeros_like(instruments)
        self.scale = camera.cols / 1024

    def place(self) -> Float:
        return self.rng.uniform(0.05, 0.95, 2) * [self.camera.cols, self.camera.rows]

    def line(self, points: Float, width: float, mm: float) -> None:
        layer = np.zeros_like(self.steel)
        at = np.rint(points * 2**_SHIFT).astype(np.int32)
        cv2.polylines(layer, [at], False, float(mm), max(round(width * self.scale), 1), cv2.LINE_AA, _SHIFT)
        np.maximum(self.steel, layer, out=self.steel)

    def count(self, rate: float, most: int) -> int:
        """How many objects of a kind: 1 to `most` - 1 at a rate, else none."""
        return int(self.rng.integers(1, most)) if self.rng.random() < rate else 0


def distract(rng: np.random.Generator, camera: Camera, instruments: Float32, field_mask: NDArray[np.bool_]) -> Float32:
    """Draws staples, leads, cables, rails, beads, letters, implants and retractors, each at its rate.

    Parameters
    ----------
    rng : Generator
    camera : Camera
    instruments : ndarray of float32, shape (rows, cols)
        Steel of the instruments along each ray, mm: no retractor hides them; the other objects may.
    field_mask : ndarray of bool, shape (rows, cols)
        Inside aperture and blades.

    Returns
    -------
    ndarray of float32, shape (rows, cols)
        Steel along each ray, mm, without the instruments'.
    """
    scene = _Scene(rng, camera, instruments, field_mask)
    for draw in (_staples, _ecg_lead, _cables, _plugs, _rail, _beads, _letters, _implants, _retractor):
        draw(scene)  # in this order, so that a seed gives the same scene
    return scene.steel


def _staples(scene: _Scene) -> None:
    """Staples or clips."""
    rng = scene.rng
    for _ in range(scene.count(RATES.staples, 9)):
        c, angle = scene.place(), rng.uniform(0, np.pi)
        along = rng.uniform(8, 22) * scene.scale * np.array([np.cos(angle), np.sin(angle)])
        across = np.array([-along[1], along[0]]) * rng.uniform(0, 0.6)
        points = np.array([c - along + across, c - along, c + along, c + along + across])
        scene.line(points, rng.uniform(2, 4), rng.uniform(0.4, 1.0))


def _ecg_lead(scene: _Scene) -> None:
    """A thin curved cable through the field."""
    rng, camera = scene.rng, scene.camera
    if rng.random() >= RATES.ecg_lead:
        return
    t = np.linspace(0, 1, 40)[:, None]
    a, b, c, d = (rng.uniform(-0.2, 1.2, 2) * [camera.cols, camera.rows] for _ in range(4))
    curve = (1 - t) ** 3 * a + 3 * t * (1 - t) ** 2 * b + 3 * t * t * (1 - t) * c + t**3 * d
    width, mm = rng.uniform(2, 4), rng.uniform(0.1, 0.4)
    scene.line(curve, width, mm)
    for end, inner in ((a, curve[1]), (d, curve[-2])):
        end_of_cable(rng, scene.steel, scene.scale, end, end - inner, width, mm)


def _cables(scene: _Scene) -> None:
    rng = scene.rng
    for _ in range(scene.count(RATES.cables, 4)):
        cable, width, mm = cable_px(rng, scene.place(), scene.camera), rng.uniform(2, 9), rng.uniform(0.1, 1.5)
        scene.line(cable, width, mm)
        if rng.random() < RATES.connector:
            _connector(rng, scene.steel, scene.scale, cable, width, mm)
        end_of_cable(rng, scene.steel, scene.scale, cable[0], cable[0] - cable[1], width, mm)


def _plugs(scene: _Scene) -> None:
    for _ in range(scene.count(RATES.plugs, 4)):
        _plug(scene.rng, scene.steel, scene.scale, scene.place())


def _rail(scene: _Scene) -> None:
    """A straight wire or rail through the whole field: it has no tip."""
    rng = scene.rng
    if rng.random() >= RATES.rail:
        return
    c, angle = scene.place(), rng.uniform(0, np.pi)
    far = 2.0 * scene.camera.cols * np.array([np.cos(angle), np.sin(angle)])
    scene.line(np.array([c - far, c + far]), rng.uniform(3, 14), rng.uniform(0.3, 3))


def _beads(scene: _Scene) -> None:
    for _ in range(scene.count(RATES.beads, 12)):
        _disc(scene.steel, scene.place(), scene.rng.uniform(2, 8) * scene.scale, scene.rng.uniform(0.5, 3))


def _letters(scene: _Scene) -> None:
    """Letters of lead, mirrored in half of the cases."""
    rng, scale = scene.rng, scene.scale
    if rng.random() >= RATES.letters:
        return
    drawn = np.zeros(scene.steel.shape, np.uint8)
    text = "".join(rng.choice(list("LRABCDKT0123456789"), rng.integers(1, 4)))
    at = tuple(np.rint(scene.place()).astype(int).tolist())
    size, thick = rng.uniform(0.8, 3) * scale, max(round(rng.uniform(3, 8) * scale), 1)
    cv2.putText(drawn, text, at, cv2.FONT_HERSHEY_SIMPLEX, size, 255, thick, cv2.LINE_AA)
    layer = drawn.astype(np.float32) * np.float32(rng.uniform(0.5, 2.5) / 255)
    scene.steel += cv2.flip(layer, 1) if rng.random() < 0.5 else layer


def _implants(scene: _Scene) -> None:
    for _ in range(scene.count(RATES.implants, 4)):
        _implant(scene.rng, scene.steel, scene.scale, scene.field_mask, scene.place)


def _retractor(scene: _Scene) -> None:
    """The edge of a retractor or of the table; never over instruments or over much of the field."""
    rng, scale = scene.rng, scene.scale
    if rng.random() >= RATES.retractor:
        return
    layer = np.zeros_like(scene.steel)
    c, angle, w, h = scene.place(), rng.uniform(0, np.pi), rng.uniform(60, 400) * scale, rng.uniform(300, 900) * scale
    box = cv2.boxPoints(((float(c[0]), float(c[1])), (float(w), float(h)), float(np.rad2deg(angle))))
    cv2.fillPoly(layer, [np.rint(box).astype(np.int32)], rng.uniform(0.05, 6.0), cv2.LINE_AA)
    hides = (layer[scene.steel + scene.instruments > 0.3] > 0).any()
    if (layer[scene.field_mask] > 0).mean() < RATES.retractor_most and not hides:
        scene.steel += layer


def cable_px(rng: np.random.Generator, start: Float, camera: Camera) -> Float:
    """A cable from `start` until it leaves the field, shape (n, 2), px: straight pieces, sharp bends, some loops."""
    cols, points, heading = camera.cols, [start], rng.uniform(0, 2 * np.pi)
    for _ in range(rng.integers(2, 9)):
        length, steps = rng.uniform(0.03, 0.35) * cols, 12
        turn = 2 * np.pi * rng.choice([-1, 1]) if rng.random() < 0.2 else rng.normal(0, 0.25)
        for _ in range(steps):
            heading += turn / steps
            points.append(points[-1] + length / steps * np.array([np.cos(heading), np.sin(heading)]))
        bend, steps = rng.choice([-1, 1]) * rng.uniform(0.3, 2.8), int(rng.integers(1, 8))
        radius = rng.uniform(0.002, 0.03) * cols
        for _ in range(steps):
            heading += bend / steps
            points.append(points[-1] + radius * abs(bend) / steps * np.array([np.cos(heading), np.sin(heading)]))
    points.append(points[-1] + 2 * (camera.rows + cols) * np.array([np.cos(heading), np.sin(heading)]))
    return np.array(points)


def end_of_cable(
    rng: np.random.Generator, steel: Float32, scale: float, at: Float, ahead: Float, width: float, mm: float
) -> None:
    """Draws what a cable ends in: an electrode with its snap, a lug, or a plug.

    Parameters
    ----------
    at : ndarray, shape (2,)
        (column, row) px; outside the field nothing is drawn.
    ahead : ndarray, shape (2,)
        Direction of the cable there.
    width, mm : float
        Of the cable: pixels of a 1024 image, mm of steel.
    """
    kind = rng.integers(3)
    if kind == 0:
        _disc(steel, at, rng.uniform(10, 25) * scale, rng.uniform(0.1, 0.6))
        _disc(steel, at, rng.uniform(4, 8) * scale, rng.uniform(0.8, 3))
    elif kind == 1:
        layer = np.zeros_like(steel)
        half = scale * np.array([rng.uniform(6, 20), 0.5 * max(rng.uniform(1.6, 3) * width, width + 4)])
        angle = float(np.rad2deg(np.arctan2(ahead[1], ahead[0])))
        box = cv2.boxPoints(((float(at[0]), float(at[1])), (2 * float(half[0]), 2 * float(half[1])), angle))
        cv2.fillPoly(layer, [np.rint(box * 16).astype(np.int32)], mm * rng.uniform(1.5, 4) + 0.2, cv2.LINE_AA, 4)
        if rng.random() < 0.5:  # a ring lug
            middle = np.rint(box.mean(0) + half[0] * ahead / max(float(np.linalg.norm(ahead)), 1e-9)).astype(int)
            radius = max(round(2 * float(half[1])), 2)
            cv2.circle(layer, middle.tolist(), radius, float(layer.max()), max(round(0.4 * radius), 1), cv2.LINE_AA)
        steel += layer
    else:
        _plug(rng, steel, scale, at)


def _connector(rng: np.random.Generator, steel: Float32, scale: float, cable: Float, width: float, mm: float) -> None:
    """Draws a connector: a stepped sleeve on a cable, in half of the cases with a ring."""
    # The last point lies far beyond the field.
    at = int(rng.integers(min(14, len(cable) - 3)))
    along = cable[at + 1] - cable[at]
    along /= max(float(np.linalg.norm(along)), 1e-9)
    layer, begins = np.zeros_like(steel), cable[at]
    thick, dense = max(rng.uniform(1.8, 4) * width, width + 4) * scale, mm * rng.uniform(1.5, 4) + 0.3

    def piece(length: float, wide: float, mm: float) -> Float:
        ends = np.rint(16 * np.stack([begins, begins + length * along])).astype(np.int32)
        # A round body: thicker in its middle.
        for fraction, of_mm in ((1.0, 0.4), (0.8, 0.75), (0.5, 1.0)):
            cv2.line(
                layer, ends[0].tolist(), ends[1].tolist(), mm * of_mm, max(round(fraction * wide), 1), cv2.LINE_AA, 4
            )
        return begins + length * along

    for _ in range(rng.integers(1, 4)):
        begins = piece(rng.uniform(10, 60) * scale, thick * rng.uniform(0.5, 1), dense * rng.uniform(0.6, 1))
    if rng.random() < 0.5:
        middle = np.rint(begins + 0.5 * thick * along).astype(int)
        cv2.circle(layer, middle.tolist(), max(round(0.5 * thick), 2), dense, max(round(0.2 * thick), 1), cv2.LINE_AA)
    np.maximum(steel, layer, out=layer)
    steel[...] = layer


def _disc(steel: Float32, at: Float, radius: float, mm: float) -> None:
    layer = np.zeros_like(steel)
    x, y = np.rint(at).astype(int).tolist()
    cv2.circle(layer, (x, y), max(round(radius), 1), float(mm), -1, cv2.LINE_AA)
    steel += layer


def _plug(rng: np.random.Generator, steel: Float32, scale: float, at: Float) -> None:
    """Draws a plug or a circuit board: rows of pins, a shell, crumbs of solder."""
    half = rng.uniform(20, 60) * scale * np.array([1, rng.uniform(0.25, 0.8)])
    angle = rng.uniform(0, np.pi)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    layer = np.zeros_like(steel)

    def box(middle: Float, size: Float, mm: float) -> None:
        corners = (middle + size * np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]])) @ turn.T + at
        cv2.fillPoly(layer, [np.rint(corners * 16).astype(np.int32)], float(mm), cv2.LINE_AA, 4)

    box(np.zeros(2), half, rng.uniform(0, 0.4))
    pins = rng.integers(3, 12)
    for row in np.linspace(-0.6, 0.6, rng.integers(1, 4)):
        for x in np.linspace(-0.85, 0.85, pins):
            size = half * [rng.uniform(0.3, 0.7) / pins, rng.uniform(0.1, 0.35)]
            box(half * [x, row], np.maximum(size, 0.7), rng.uniform(0.2, 2))
    for _ in range(rng.integers(0, 12)):
        box(half * rng.uniform(-1, 1, 2), half * rng.uniform(0.03, 0.2, 2), rng.uniform(0.2, 2))
    steel += layer


def _implant(
    rng: np.random.Generator, steel: Float32, scale: float, field_mask: NDArray[np.bool_], place: Callable[[], Float]
) -> None:
    """Draws a rod with heads at or near its ends, a plate with holes, or a screw.

    A screw is drawn only with its head in the field: a bare end that enters the field looks like an instrument.
    """
    c, angle = place(), rng.uniform(0, np.pi)
    along = np.array([np.cos(angle), np.sin(angle)])
    half = rng.uniform(40, 200) * scale
    width = rng.uniform(14, 26) * scale
    layer = np.zeros_like(steel)

    def at(s: float) -> tuple[int, int]:
        x, y = np.rint(c + s * half * along).astype(int).tolist()
        return x, y

    kind = rng.integers(3)
    if kind == 0:
        cv2.line(layer, at(-1), at(1), rng.uniform(2, 5), max(round(width), 1), cv2.LINE_AA)
        inwards = 0.0 if rng.random() < 0.7 else min(rng.uniform(10, 35) * scale / half, 0.8)
        for end in (-1, 1):
            cv2.circle(layer, at(end * (1 - inwards)), round(1.2 * width), rng.uniform(4, 8), -1, cv2.LINE_AA)
    elif kind == 1:
        cv2.line(layer, at(-1), at(1), rng.uniform(1, 3), max(round(1.8 * width), 1), cv2.LINE_AA)
        for s in np.linspace(-0.8, 0.8, rng.integers(3, 7)):
            cv2.circle(layer, at(s), max(round(0.5 * width), 1), 0.0, -1, cv2.LINE_AA)
    else:
        half = min(half, 110 * scale)
        if not _in_field(field_mask, at(1)):
            along = -along
            if not _in_field(field_mask, at(1)):
                return
        for s in np.linspace(-1, 0.8, 24):
            cv2.circle(layer, at(s), max(round((0.9 + 0.2 * s) * width * (0.75 + 0.25 * (s * 30 % 2))), 1), 4.0, -1)
        cv2.circle(layer, at(1), round(1.5 * width), rng.uniform(5, 9), -1, cv2.LINE_AA)
    steel += layer


def _in_field(field_mask: NDArray[np.bool_], at: tuple[int, int]) -> bool:
    x, y = at
    return 0 <= y < field_mask.shape[0] and 0 <= x < field_mask.shape[1] and bool(field_mask[y, x])
