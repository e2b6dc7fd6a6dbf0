"""What the server does to a label map on request; each is one step that can be undone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from scipy import ndimage

from fluoronav.validation import first_error
from fluoronav.workspace import delta
from fluoronav.workspace.delta import Runs
from fluoronav.workspace.errors import Refused, WorkspaceError
from fluoronav.workspace.scan import Scan

Label = Annotated[int, Field(ge=1, le=65_535)]
AnyLabel = Annotated[int, Field(ge=0, le=65_535)]
Axis = Literal["x", "y", "z"]
Point = tuple[float, float, float]
Mask = NDArray[np.bool_]
Map = NDArray[np.uint16]

_AXES = {"z": 0, "y": 1, "x": 2}  # of a map (z, y, x)
_SLICES = 16  # searched at a time; chosen
_MOST_PIECES = 64  # of a label that is split; chosen
# Voxels that share an edge or a corner belong together, as for a person who looks at a slice.
_TOUCHING = np.ones((3, 3, 3), bool)


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Interpolate(_Request):
    """Fills the gaps between drawn slices."""

    operation: Literal["interpolate"]
    label: Label
    axis: Axis = "z"
    slices: tuple[int, int] | None = None
    over: tuple[AnyLabel, ...] = (0,)


class Relabel(_Request):
    """Gives a structure, or one piece of it, another label; 0 takes it away."""

    operation: Literal["relabel"]
    from_: AnyLabel = Field(alias="from")
    to: AnyLabel
    seed_ct: Point | None = None


class Split(_Request):
    """Divides a structure into its pieces, or by a plane."""

    operation: Literal["split"]
    label: Label
    by: Literal["components", "plane"]
    to: AnyLabel | tuple[AnyLabel, ...]
    point_ct: Point | None = None
    normal_ct: Point | None = None


class Within(_Request):
    """A region: a structure, a box of voxels (both ends included), or a ball."""

    label: Label | None = None
    box: tuple[tuple[int, int, int], tuple[int, int, int]] | None = None
    centre_ct: Point | None = None
    radius_mm: float | None = Field(default=None, gt=0, le=500)


class Threshold(_Request):
    """Gives the voxels of a region whose HU lie between two values a label."""

    operation: Literal["threshold"]
    label: Label
    low_hu: float
    high_hu: float
    within: Within
    over: tuple[AnyLabel, ...] | None = None


class Fill(_Request):
    """Fills the holes of a structure."""

    operation: Literal["fill"]
    label: Label
    axis: Literal["x", "y", "z", "volume"] = "z"
    over: tuple[AnyLabel, ...] = (0,)


class Erase(_Request):
    """Takes a structure, or one piece of it, away."""

    operation: Literal["erase"]
    label: Label
    seed_ct: Point | None = None


class Rename(_Request):
    """Adds a structure, or names one anew."""

    operation: Literal["structure"]
    label: Label
    name: str = Field(min_length=1, max_length=64)


Request = Annotated[Interpolate | Relabel | Split | Threshold | Fill | Erase | Rename, Field(discriminator="operation")]
_REQUEST: TypeAdapter[Request] = TypeAdapter(Request)


@dataclass(frozen=True)
class Change:
    """What an operation does.

    Attributes
    ----------
    runs : array of runs
    what : str
        In words.
    names : dict
        Names that it gives to labels.
    """

    runs: Runs
    what: str
    names: dict[int, str]


@dataclass(frozen=True)
class Place:
    """What an operation works on.

    Attributes
    ----------
    labels : array of uint16, shape (z, y, x)
    hounsfield : array of int16, shape (z, y, x)
    scan : Scan
    """

    labels: Map
    hounsfield: NDArray[np.int16]
    scan: Scan


def parsed(content: Any) -> Request:
    """An operation from JSON.

    Raises
    ------
    WorkspaceError
    """
    try:
        return _REQUEST.validate_python(content)
    except ValidationError as error:
        raise WorkspaceError(f"the operation cannot be read: {first_error(error)}") from error


def change_of(request: Request, place: Place) -> Change:
    """What an operation would do.

    Raises
    ------
    Refused
        It would do nothing, or is impossible; the text says why.
    """
    if isinstance(request, Rename):
        return Change(delta.NOTHING, f"name label {request.label} {request.name}", {request.label: request.name})
    works: dict[str, Callable[..., tuple[Runs, str]]] = {
        "interpolate": _interpolate, "relabel": _relabel, "split": _split, "threshold": _threshold, "fill": _fill,
        "erase": _erase,
    }  # fmt: skip
    runs, what = works[request.operation](request, place)
    if not runs.size:
        raise Refused(f"{what}: changes nothing")
    return Change(runs, what, {})


def _interpolate(request: Interpolate, place: Place) -> tuple[Runs, str]:
    box = box_of(place.labels, request.label)
    axis = _AXES[request.axis]
    crop = np.moveaxis(place.labels[box], axis, 0)
    drawn = np.flatnonzero((crop == request.label).any(axis=(1, 2)))
    if request.slices is not None:
        first = box[axis].start
        wanted = [s - first for s in sorted(request.slices)]
        missing = [s + first for s in wanted if s not in drawn]
        if missing:
            raise Refused(f"slice {missing[0]} holds nothing of label {request.label}: draw it there first")
        drawn = np.array(wanted)
    spacing = np.delete(np.array(place.scan.spacing_mm)[::-1], axis)
    out = np.zeros(crop.shape, bool)
    for a, b in pairwise(drawn.tolist()):
        if b - a > 1:
            out[a + 1 : b] = between(crop[a] == request.label, crop[b] == request.label, b - a - 1, spacing)
    out &= np.isin(crop, request.over)
    return _set(place.labels, box, np.moveaxis(out, 0, axis), request.label), f"interpolate along {request.axis}"


def between(a: Mask, b: Mask, number: int, spacing_mm: NDArray[np.float64]) -> Mask:
    """Slices between two drawn ones, by their signed distances (Raya and Udupa, IEEE TMI 9:32, 1990).

    Two contours that do not overlap are laid over each other before, and moved along after.

    Parameters
    ----------
    a, b : array of bool, shape (rows, columns)
    number : int
        Slices between.
    spacing_mm : array, shape (2,)

    Returns
    -------
    ndarray of bool, shape (number, rows, columns)
    """
    shift = np.zeros(2)
    if not (a & b).any():
        shift = np.array(ndimage.center_of_mass(b)) - np.array(ndimage.center_of_mass(a))
    near, far = _signed(a, spacing_mm), _signed(b, spacing_mm)
    out = np.empty((number, *a.shape), bool)
    for k in range(number):
        t = (k + 1) / (number + 1)
        if shift.any():
            moved_near = ndimage.shift(near, t * shift, order=1, mode="nearest")
            moved_far = ndimage.shift(far, (t - 1) * shift, order=1, mode="nearest")
            out[k] = (1 - t) * moved_near + t * moved_far > 0
        else:
            out[k] = (1 - t) * near + t * far > 0
    return out


def _signed(mask: Mask, spacing_mm: NDArray[np.float64]) -> NDArray[np.float64]:
    """Distance to the outline, mm; positive inside."""
    padded = np.pad(mask, 1)  # what touches the edge of the box ends there
    inside = ndimage.distance_transform_edt(padded, spacing_mm)
    outside = ndimage.distance_transform_edt(~padded, spacing_mm)
    return (np.asarray(inside) - np.asarray(outside))[1:-1, 1:-1]


def _relabel(request: Relabel, place: Place) -> tuple[Runs, str]:
    what = f"relabel {request.from_} as {request.to}" + (" (one piece)" if request.seed_ct else "")
    if request.from_ == 0:
        raise Refused("what has no label cannot be relabelled: use a threshold inside a region")
    box = box_of(place.labels, request.from_)
    mask = place.labels[box] == request.from_
    if request.seed_ct is not None:
        mask = _piece(mask, box, request.seed_ct, request.from_, place.scan)
    return _set(place.labels, box, mask, request.to), what


def _erase(request: Erase, place: Place) -> tuple[Runs, str]:
    box = box_of(place.labels, request.label)
    mask = place.labels[box] == request.label
    if request.seed_ct is not None:
        mask = _piece(mask, box, request.seed_ct, request.label, place.scan)
    return _set(place.labels, box, mask, 0), "erase" + (" one piece" if request.seed_ct else "")


def _split(request: Split, place: Place) -> tuple[Runs, str]:
    box = box_of(place.labels, request.label)
    mask = place.labels[box] == request.label
    to = request.to if isinstance(request.to, tuple) else (request.to,)
    if request.label in to or not to:
        raise Refused("the pieces must get other labels than the structure that is split")
    if request.by == "plane":
        if request.point_ct is None or request.normal_ct is None or not np.linalg.norm(request.normal_ct) > 0:
            raise WorkspaceError("a split by a plane needs point_ct, and normal_ct of some length")
        beyond = mask & (_heights(box, request.point_ct, request.normal_ct, place.scan) > 0)
        if not beyond.any() or beyond.sum() == mask.sum():
            raise Refused("the plane does not cut the structure")
        return _set(place.labels, box, beyond, to[0]), f"split {request.label} by a plane"
    pieces, number = ndimage.label(mask, _TOUCHING)  # type: ignore[misc]
    if number < 2:
        raise Refused(f"label {request.label} is in one piece: split it by a plane")
    if number > _MOST_PIECES:
        raise Refused(f"label {request.label} is in {number} pieces, more than {_MOST_PIECES}: erase the specks first")
    sizes = np.bincount(pieces.reshape(-1))[1:]
    order = 1 + np.argsort(-sizes, kind="stable")
    after = place.labels[box].copy()
    for piece, label in zip(order[1:], to, strict=False):
        after[pieces == piece] = label
    return _replace(place.labels, box, after), f"split {request.label} into {min(number, len(to) + 1)} pieces"


def _threshold(request: Threshold, place: Place) -> tuple[Runs, str]:
    if not request.low_hu <= request.high_hu:
        raise WorkspaceError(f"low_hu {request.low_hu:g} is above high_hu {request.high_hu:g}")
    within, scan = request.within, place.scan
    over = request.over if request.over is not None else (0,)
    if within.label is not None:
        box = box_of(place.labels, within.label)
        region = place.labels[box] == within.label
        over = request.over if request.over is not None else (within.label,)
    elif within.box is not None:
        low, high = np.sort(np.array(within.box), axis=0)
        low, high = np.maximum(low, 0)[::-1], (np.minimum(high, np.array(scan.size) - 1) + 1)[::-1]
        if (low >= high).any():
            raise Refused("the box lies outside the CT")
        box = tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
        region = np.ones(place.labels[box].shape, bool)
    elif within.centre_ct is not None and within.radius_mm is not None:
        box, region = _ball(within.centre_ct, within.radius_mm, scan)
    else:
        raise WorkspaceError("within: give label, box, or centre_ct and radius_mm")
    hounsfield = place.hounsfield[box]
    mask = region & (hounsfield >= request.low_hu) & (hounsfield <= request.high_hu)
    mask &= np.isin(place.labels[box], over)
    what = f"threshold {request.low_hu:g} to {request.high_hu:g} HU"
    return _set(place.labels, box, mask, request.label), what


def _fill(request: Fill, place: Place) -> tuple[Runs, str]:
    box = box_of(place.labels, request.label)
    mask = place.labels[box] == request.label
    if request.axis == "volume":
        filled = ndimage.binary_fill_holes(mask)
    else:
        axis = _AXES[request.axis]
        filled = np.stack([np.asarray(ndimage.binary_fill_holes(m)) for m in np.moveaxis(mask, axis, 0)], axis=axis)
    mask = np.asarray(filled) & np.isin(place.labels[box], request.over)
    return _set(place.labels, box, mask, request.label), "fill holes"


Box = tuple[slice, ...]


def box_of(labels: Map, label: int) -> Box:
    """The smallest box (z, y, x) that holds a label; searched some slices at a time, so that no mask of all is made."""
    rows, columns, slices = np.zeros(labels.shape[1], bool), np.zeros(labels.shape[2], bool), []
    for k in range(0, labels.shape[0], _SLICES):
        slab = labels[k : k + _SLICES] == label
        here = slab.any(axis=(1, 2))
        if here.any():
            slices += (np.flatnonzero(here) + k).tolist()
            plane = slab.any(axis=0)
            rows |= plane.any(axis=1)
            columns |= plane.any(axis=0)
    if not slices:
        raise Refused(f"label {label} has no voxels")
    found = (np.array(slices), np.flatnonzero(rows), np.flatnonzero(columns))
    return tuple(slice(int(f[0]), int(f[-1]) + 1) for f in found)


def _piece(mask: Mask, box: Box, seed_ct: Point, label: int, scan: Scan) -> Mask:
    """The connected piece of a mask at a point."""
    at = np.rint(scan.index_of(np.array(seed_ct))).astype(int)[::-1] - [b.start for b in box]
    inside = all(0 <= i < n for i, n in zip(at, mask.shape, strict=True))
    if not inside or not mask[tuple(at)]:
        raise Refused(f"there is nothing of label {label} at {', '.join(f'{v:.1f}' for v in seed_ct)} mm")
    pieces, _ = ndimage.label(mask, _TOUCHING)  # type: ignore[misc]
    return pieces == pieces[tuple(at)]


def _heights(box: Box, point_ct: Point, normal_ct: Point, scan: Scan) -> NDArray[np.float64]:
    """Distance of each voxel of a box above a plane, in lengths of its normal; shape (z, y, x)."""
    per_step = np.array(normal_ct) @ scan.step_mm()  # along x, y, z
    start = float(np.dot(normal_ct, np.array(scan.origin_ct) - np.array(point_ct)))
    z, y, x = (np.arange(b.start, b.stop) for b in box)
    return start + per_step[0] * x[None, None, :] + per_step[1] * y[None, :, None] + per_step[2] * z[:, None, None]


def _ball(centre_ct: Sequence[float], radius_mm: float, scan: Scan) -> tuple[Box, Mask]:
    centre = scan.index_of(np.array(centre_ct))
    reach = radius_mm / np.array(scan.spacing_mm)
    low = np.maximum(np.floor(centre - reach), 0).astype(int)
    high = np.minimum(np.ceil(centre + reach) + 1, scan.size).astype(int)
    if (low >= high).any():
        raise Refused("the ball lies outside the CT")
    box = tuple(slice(int(a), int(b)) for a, b in zip(low[::-1], high[::-1], strict=True))
    steps = [
        ((np.arange(b.start, b.stop) - c) * s) ** 2
        for b, c, s in zip(box, centre[::-1], scan.spacing_mm[::-1], strict=True)
    ]
    return box, steps[0][:, None, None] + steps[1][None, :, None] + steps[2][None, None, :] <= radius_mm**2


def _set(labels: Map, box: Box, mask: Mask, label: int) -> Runs:
    """Runs that give the voxels of a mask in a box a label."""
    return _replace(labels, box, np.where(mask, np.uint16(label), labels[box]))


def _replace(labels: Map, box: Box, after: Map) -> Runs:
    """Runs that make a box what is given."""
    before = labels[box]
    z, y, x = np.nonzero(before != after)
    at = ((z + box[0].start) * labels.shape[1] + y + box[1].start) * labels.shape[2] + x + box[2].start
    return delta.from_voxels(at.astype(np.int64), before[z, y, x], after[z, y, x])
