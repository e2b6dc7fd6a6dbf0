"""What an overlay draws on a picture: lines, points and texts in the picture's pixels.

Pixel centres lie at integers here, as in the overlay; in a presentation state the first pixel's centre is 0.5\\0.5
(PS3.3 C.10.5.1.2).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fluoronav.dicom.errors import DicomError
from fluoronav.dicom.objects.provenance import DRAFT

Float = NDArray[np.float64]

INSTRUMENT, CAUTION, DANGER = "#ffd400", "#ff9f0a", "#ff3b30"
PLAN, TEXT = "#00c8ff", "#ffffff"
_LEVELS = {"clear": INSTRUMENT, "caution": CAUTION, "danger": DANGER}
# A layer has one colour, and a name of at most 16 letters (VR CS).
_LAYERS = {INSTRUMENT: "TOOL", CAUTION: "TOOL CAUTION", DANGER: "TOOL DANGER"}
_HALF_PIXEL = 0.5  # from a pixel's centre to its corner, where presentation states count from


@dataclass(frozen=True)
class Line:
    """A line through points, shape (n, 2), as (x, y) px; a closed one ends where it begins."""

    points_px: Float
    color: str
    layer: str


@dataclass(frozen=True)
class Point:
    """A marked point, shape (2,), px."""

    at_px: Float
    color: str
    layer: str


@dataclass(frozen=True)
class Text:
    """A text whose left end is at a point, shape (2,), px."""

    at_px: Float
    text: str
    color: str
    layer: str


@dataclass(frozen=True)
class Graphics:
    """Everything that is drawn on one picture."""

    lines: tuple[Line, ...] = ()
    points: tuple[Point, ...] = ()
    texts: tuple[Text, ...] = field(default=())

    def __len__(self) -> int:
        return len(self.lines) + len(self.points) + len(self.texts)

    def layers(self) -> dict[str, str]:
        """Colour of each layer, in the order in which they are drawn."""
        return {g.layer: g.color for g in (*self.lines, *self.points, *self.texts)}

    def within(self, rows: int, columns: int) -> Graphics:
        """What lies inside a picture: lines are cut at its edges, points and texts outside are left out."""
        size = np.array([columns - 1, rows - 1], dtype=np.float64)
        lines = [Line(run, g.color, g.layer) for g in self.lines for run in _runs_inside(g.points_px, size)]
        kept = [[g for g in group if ((g.at_px >= 0) & (g.at_px <= size)).all()] for group in (self.points, self.texts)]
        return Graphics(tuple(lines), tuple(kept[0]), tuple(kept[1]))  # pyright: ignore[reportArgumentType]

    def content(self) -> bytes:
        """Bytes that two graphics share only if they draw the same."""
        parts = [f"{type(g).__name__} {g.layer} {g.color} {getattr(g, 'text', '')}".encode() + _place(g) for g in self]
        return b"\0".join(parts)

    def __iter__(self) -> Iterator[Line | Point | Text]:
        yield from (*self.lines, *self.points, *self.texts)


def graphics_of(overlay: Mapping[str, Any]) -> Graphics:
    """The graphics of an overlay message (docs/wire-protocol.md, `overlay/*`).

    Parameters
    ----------
    overlay : mapping
        The message as it was sent: `outlines`, `plan`, `instruments` and `distances` are used.

    Raises
    ------
    DicomError
        A coordinate is not a finite number.
    """
    lines: list[Line] = []
    points: list[Point] = []
    texts: list[Text] = []
    outlines: Sequence[Mapping[str, Any]] = overlay.get("outlines") or ()
    for k, outline in enumerate(outlines):
        layer = f"OUTLINE {k + 1}"
        closed: list[Any] = [[*path, path[0]] for path in outline["paths"] if len(path) > 1]
        lines += [Line(_pixels(path, "outlines"), outline["color"], layer) for path in closed]
    for plan in overlay.get("plan") or ():
        if plan.get("entry_px") and plan.get("target_px"):
            lines.append(Line(_pixels([plan["entry_px"], plan["target_px"]], "plan"), PLAN, "PLAN"))
            texts.append(Text(_pixels(plan["target_px"], "plan"), plan["trajectory"], PLAN, "PLAN"))
    levels = _nearest(overlay.get("distances") or ())
    for instrument in overlay.get("instruments") or ():
        if not instrument.get("tip_px"):
            continue
        nearest = levels.get(instrument["id"])
        color = _LEVELS.get(nearest["level"], INSTRUMENT) if nearest else INSTRUMENT
        layer = _LAYERS[color]
        tip = _pixels(instrument["tip_px"], "instruments")
        shaft = instrument.get("shaft_px") or [instrument["tip_px"], instrument.get("tail_px")]
        if shaft[-1]:
            lines.append(Line(_pixels(shaft, "instruments"), color, layer))
        points.append(Point(tip, color, layer))
        texts.append(Text(tip, _label(instrument["id"], nearest), color, layer))
    return Graphics(tuple(lines), tuple(points), tuple(texts))


def graphics_in(state: Any, frame: int = 1) -> Graphics:
    """The graphics of a presentation state that was written by :func:`presentation_state`, for one frame.

    The mark of a draft is left out: it is of the state, not of the graphics.

    Raises
    ------
    DicomError
        Coordinates are not relative to the image.
    """
    from highdicom.color import CIELabColor

    colors = {}
    for layer in state.get("GraphicLayerSequence") or ():
        value = layer.get("GraphicLayerRecommendedDisplayCIELabValue")
        rgb = CIELabColor.from_dicom_value(value).to_rgb(clip=True) if value else (255, 255, 255)
        colors[str(layer.GraphicLayer)] = "#{:02x}{:02x}{:02x}".format(*rgb)
    lines: list[Line] = []
    points: list[Point] = []
    texts: list[Text] = []
    for annotation in state.get("GraphicAnnotationSequence") or ():
        layer = str(annotation.GraphicLayer)
        color = colors.get(layer, TEXT)
        if layer == DRAFT or not _is_of_frame(annotation, frame):
            continue
        for item in annotation.get("GraphicObjectSequence") or ():
            data = _image_points(item, "GraphicAnnotationUnits", item.GraphicData)
            if item.GraphicType == "POINT":
                points.append(Point(data[0], color, layer))
            else:
                lines.append(Line(data, color, layer))
        for item in annotation.get("TextObjectSequence") or ():
            at = _image_points(item, "AnchorPointAnnotationUnits", item.AnchorPoint)[0]
            texts.append(Text(at, str(item.UnformattedTextValue), color, layer))
    return Graphics(tuple(lines), tuple(points), tuple(texts))


def to_state(points_px: Float) -> Float:
    """Pixels with centres at integers as those of a presentation state."""
    return points_px + _HALF_PIXEL


def _is_of_frame(annotation: Any, frame: int) -> bool:
    for image in annotation.get("ReferencedImageSequence") or ():
        frames = image.get("ReferencedFrameNumber")
        if frames is not None and frame not in np.atleast_1d(np.array(frames, dtype=int)):
            return False
    return True


def _image_points(item: Any, units: str, data: Any) -> Float:
    if item.get(units) != "PIXEL":
        raise DicomError(
            f"the presentation state has graphics in {item.get(units)} units; only those in PIXEL are drawn"
        )
    return np.array(data, dtype=np.float64).reshape(-1, 2) - _HALF_PIXEL


def _nearest(distances: Sequence[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """For each instrument the structure that it is nearest to by its lower bound."""
    out: dict[str, Mapping[str, Any]] = {}
    for d in distances:
        known = out.get(d["instrument"])
        if known is None or d["lower_mm"] < known["lower_mm"]:
            out[d["instrument"]] = d
    return out


def _label(name: str, nearest: Mapping[str, Any] | None) -> str:
    if nearest is None:
        return name
    return f"{name}: {nearest['structure']} {nearest['distance_mm']:.1f} mm"


def _pixels(values: Any, what: str) -> Float:
    out = np.array(values, dtype=np.float64)
    if out.shape[-1] != 2 or not np.isfinite(out).all():
        raise DicomError(f"the overlay's {what} hold a pixel that is not two finite numbers")
    return out


def _place(graphic: Line | Point | Text) -> bytes:
    return (graphic.points_px if isinstance(graphic, Line) else graphic.at_px).round(3).tobytes()


def _runs_inside(points: Float, size: Float) -> list[Float]:
    """The parts of a line inside the picture, each as points (n, 2)."""
    runs: list[list[Float]] = []
    for start, end in pairwise(points):
        inside = _clipped(start, end, size)
        if inside is None:
            continue
        a, b = inside
        if runs and np.array_equal(runs[-1][-1], a):
            runs[-1].append(b)
        else:
            runs.append([a, b])
    return [np.array(run) for run in runs]


def _clipped(start: Float, end: Float, size: Float) -> tuple[Float, Float] | None:
    """The part of a segment within 0 and size on both axes (Liang and Barsky, 1984); None without any."""
    step = end - start
    enter, leave = 0.0, 1.0
    for axis in range(2):
        for sign, room in ((-1.0, start[axis]), (1.0, size[axis] - start[axis])):
            along = sign * step[axis]
            if along == 0:
                if room < 0:
                    return None
            elif along < 0:
                enter = max(enter, room / along)
            else:
                leave = min(leave, room / along)
    if enter > leave:
        return None
    return (start if enter == 0 else start + enter * step), (end if leave == 1 else start + leave * step)
