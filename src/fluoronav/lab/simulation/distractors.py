"""What lies in the beam, is metal or looks like it, and is no instrument.

A cable has no bare end in the field: it goes on beyond it, or ends in an electrode, a lug, a plug or a connector; and a
rod has heads on it. A bare end of wire cannot be told from a K-wire by anyone, and a detector that must not take one
for the other would miss both.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from fluoronav.geometry import Camera

Float = NDArray[np.float64]
Float32 = NDArray[np.float32]

_WITH_CONNECTOR = 0.3  # of cables


def distract(rng: np.random.Generator, camera: Camera, instruments: Float32, field_mask: NDArray[np.bool_]) -> Float32:
    """Staples, leads, cables, rails, beads, letters, implants and retractors, each now and then.

    Parameters
    ----------
    rng : Generator
    camera : Camera
    instruments : ndarray of float32, shape (rows, cols)
        mm of steel of the instruments in each ray's way: no retractor hides them. The rest lies where it lies, whatever
        else is there.
    seen : ndarray of bool, shape (rows, cols)
        Inside aperture and blades.

    Returns
    -------
    ndarray of float32, shape (rows, cols)
        mm of steel in each ray's way, without the instruments'.
    """
    steel = np.zeros_like(instruments)
    scale = camera.cols / 1024
    shift = 4  # cv2 draws to a sixteenth of a pixel

    def place() -> Float:
        return rng.uniform(0.05, 0.95, 2) * [camera.cols, camera.rows]

    def line(points: Float, width: float, mm: float) -> None:
        layer = np.zeros_like(steel)
        at = np.rint(points * 2**shift).astype(np.int32)
        cv2.polylines(layer, [at], False, float(mm), max(round(width * scale), 1), cv2.LINE_AA, shift)
        np.maximum(steel, layer, out=layer)
        steel[...] = layer

    if rng.random() < 0.25:  # staples or clips
        for _ in range(rng.integers(1, 9)):
            c, angle = place(), rng.uniform(0, np.pi)
            along = rng.uniform(8, 22) * scale * np.array([np.cos(angle), np.sin(angle)])
            across = np.array([-along[1], along[0]]) * rng.uniform(0, 0.6)
            line(
                np.array([c - along + across, c - along, c + along, c + along + across]),
                rng.uniform(2, 4),
                rng.uniform(0.4, 1.0),
            )
    if rng.random() < 0.25:  # ECG leads: a thin curved cable that crosses the field
        t = np.linspace(0, 1, 40)[:, None]
        a, b, c, d = (rng.uniform(-0.2, 1.2, 2) * [camera.cols, camera.rows] for _ in range(4))
        curve = (1 - t) ** 3 * a + 3 * t * (1 - t) ** 2 * b + 3 * t * t * (1 - t) * c + t**3 * d
        width, mm = rng.uniform(2, 4), rng.uniform(0.1, 0.4)
        line(curve, width, mm)
        for end, inner in ((a, curve[1]), (d, curve[-2])):
            end_of_cable(rng, steel, scale, end, end - inner, width, mm)
    for _ in range(rng.integers(1, 4) if rng.random() < 0.35 else 0):
        cable, width, mm = cable_px(rng, place(), camera), rng.uniform(2, 9), rng.uniform(0.1, 1.5)
        line(cable, width, mm)
        if rng.random() < _WITH_CONNECTOR:
            _connector(rng, steel, scale, cable, width, mm)
        end_of_cable(rng, steel, scale, cable[0], cable[0] - cable[1], width, mm)
    for _ in range(rng.integers(1, 4) if rng.random() < 0.1 else 0):  # plugs, and what lies about like one
        _plug(rng, steel, scale, place())
    if rng.random() < 0.15:  # a straight wire or rail that crosses the whole field has no tip
        c, angle = place(), rng.uniform(0, np.pi)
        far = 2.0 * camera.cols * np.array([np.cos(angle), np.sin(angle)])
        line(np.array([c - far, c + far]), rng.uniform(3, 14), rng.uniform(0.3, 3))
    if rng.random() < 0.3:  # beads
        for _ in range(rng.integers(1, 12)):
            _disc(steel, place(), rng.uniform(2, 8) * scale, rng.uniform(0.5, 3))
    if rng.random() < 0.25:  # letters of lead
        drawn = np.zeros(steel.shape, np.uint8)
        text = "".join(rng.choice(list("LRABCDKT0123456789"), rng.integers(1, 4)))
        at = tuple(np.rint(place()).astype(int).tolist())
        size, thick = rng.uniform(0.8, 3) * scale, max(round(rng.uniform(3, 8) * scale), 1)
        cv2.putText(drawn, text, at, cv2.FONT_HERSHEY_SIMPLEX, size, 255, thick, cv2.LINE_AA)
        layer = drawn.astype(np.float32) * np.float32(rng.uniform(0.5, 2.5) / 255)
        if rng.random() < 0.5:
            layer = cv2.flip(layer, 1)
        steel += layer
    for _ in range(rng.integers(1, 4) if rng.random() < 0.3 else 0):
        _implant(rng, steel, scale, field_mask, place)
    if rng.random() < 0.2:  # the edge of a retractor or of the table
        layer = np.zeros_like(steel)
        c, angle, w, h = place(), rng.uniform(0, np.pi), rng.uniform(60, 400) * scale, rng.uniform(300, 900) * scale
        box = cv2.boxPoints(((float(c[0]), float(c[1])), (float(w), float(h)), float(np.rad2deg(angle))))
        cv2.fillPoly(layer, [np.rint(box).astype(np.int32)], rng.uniform(0.05, 6.0), cv2.LINE_AA)
        # Never over the whole of the picture's middle: the instruments would be hidden and still be asked for.
        if (layer[field_mask] > 0).mean() < 0.12 and not (layer[steel + instruments > 0.3] > 0).any():
            steel += layer
    return steel


def cable_px(rng: np.random.Generator, start: Float, camera: Camera) -> Float:
    """A cable that lies about until it leaves the field, (n, 2) px.

    Nearly straight pieces, sharp bends between them, and now and then a loop.
    """
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
    """An electrode with its snap, a lug, or a plug.

    Parameters
    ----------
    at : ndarray, shape (2,)
        (column, row) px; outside the field nothing is drawn.
    ahead : ndarray, shape (2,)
        Whither the cable points there.
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
    """Two cables crimped together, or a plug in its socket: a sleeve on a cable, in steps, with a ring at its end."""
    # The last point lies far beyond the field.
    at = int(rng.integers(min(14, len(cable) - 3)))
    along = cable[at + 1] - cable[at]
    along /= max(float(np.linalg.norm(along)), 1e-9)
    layer, begins = np.zeros_like(steel), cable[at]
    thick, dense = max(rng.uniform(1.8, 4) * width, width + 4) * scale, mm * rng.uniform(1.5, 4) + 0.3

    def piece(length: float, wide: float, mm: float) -> Float:
        ends = np.rint(16 * np.stack([begins, begins + length * along])).astype(np.int32)
        # A round body: thicker in its middle.
        for share, of_mm in ((1.0, 0.4), (0.8, 0.75), (0.5, 1.0)):
            cv2.line(layer, ends[0].tolist(), ends[1].tolist(), mm * of_mm, max(round(share * wide), 1), cv2.LINE_AA, 4)
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
    """A plug or a circuit board: rows of pins, a shell, crumbs of solder."""
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
    """A rod with heads at its ends or near them, a plate with holes, or a screw that stays.

    A rod is held by screws, and of a screw its head is in view or nothing: a bare end that comes in from beyond the
    field is a pin, and cannot be told from an instrument by anyone.
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
        if not _is_seen(field_mask, at(1)):
            along = -along
            if not _is_seen(field_mask, at(1)):
                return
        for s in np.linspace(-1, 0.8, 24):
            cv2.circle(layer, at(s), max(round((0.9 + 0.2 * s) * width * (0.75 + 0.25 * (s * 30 % 2))), 1), 4.0, -1)
        cv2.circle(layer, at(1), round(1.5 * width), rng.uniform(5, 9), -1, cv2.LINE_AA)
    steel += layer


def _is_seen(field_mask: NDArray[np.bool_], at: tuple[int, int]) -> bool:
    x, y = at
    return 0 <= y < field_mask.shape[0] and 0 <= x < field_mask.shape[1] and bool(field_mask[y, x])
