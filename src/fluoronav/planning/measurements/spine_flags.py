"""Flags of a spine, which a person has to look at: its count, its ribs, transitional vertebrae, open rings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from fluoronav.planning.anatomy import level_of
from fluoronav.planning.measurements.mask import Float, StructureMask
from fluoronav.planning.measurements.spine import ORDER
from fluoronav.planning.measurements.vertebra import Body
from fluoronav.planning.measurements.volumes import gap
from fluoronav.planning.plan.schema import Flag

_SIDES = ("left", "right")
_OPTIONAL = ("T13", "L6")


@dataclass(frozen=True, slots=True)
class SpineFlagSettings:
    """When a spine is unusual."""

    short_rib_mm: float = 38.0  # a twelfth rib below is short (Yun 2018, Korean J Radiol 19:1140)
    rib_levels: int = 1  # rib n meets vertebrae n - 1 and n; one off is a question of counting
    tall_process_mm: float = 19.0  # height of a transverse process of the last lumbar vertebra (Castellvi 1984, type I)
    process_mm: float = 4.0  # beside the body where its transverse process begins; chosen
    touching_mm: float = 2.0  # between that process and the sacrum (Castellvi II and III); chosen: a joint's cartilage
    lumbar: int = 5


SETTINGS = SpineFlagSettings()


@dataclass(frozen=True)
class Vertebra:
    """What is known of a vertebra when flags are raised; `body` is None where it was not measured."""

    mask: StructureMask
    centre_ct: Float
    whole: bool
    body: Body | None = None
    canal_mm2: float | None = None


def spine_flags(masks: Mapping[str, StructureMask], vertebrae: Mapping[str, Vertebra]) -> list[Flag]:
    """All flags of the spine.

    Parameters
    ----------
    masks : mapping of str to StructureMask
        All structures by name.
    vertebrae : mapping of str to Vertebra
        By level.
    """
    return [
        *_count_flags(masks, vertebrae),
        *_rib_flags(masks, vertebrae),
        *_process_flags(masks, vertebrae),
        *_ring_flags(vertebrae),
    ]


def flag(what: str, text: str, structure: str | None = None, points: Float | None = None) -> Flag:
    """A flag that nobody has acknowledged yet."""
    name = f"flag-{what}" + (f"-{structure}" if structure else "")
    at = () if points is None else tuple((float(x), float(y), float(z)) for x, y, z in np.round(points, 2))
    return Flag(id=name[:64], origin="proposed", what=what, text=text, structure=structure, points_ct=at)


def _count_flags(masks: Mapping[str, StructureMask], vertebrae: Mapping[str, Vertebra]) -> list[Flag]:
    found = [level for level in ORDER if level in vertebrae]
    out = []
    for level in _OPTIONAL:
        if level in vertebrae:
            text = f"{level} is labelled, which most people do not have: count before a level is chosen"
            out.append(flag("transitional", text, f"vertebrae_{level}", vertebrae[level].centre_ct[None]))
    for above, below in pairwise(found):
        between = [x for x in ORDER[ORDER.index(above) + 1 : ORDER.index(below)] if x not in _OPTIONAL]
        ends = np.stack([vertebrae[above].centre_ct, vertebrae[below].centre_ct])
        if between:
            text = f"between {above} and {below} there is no {', '.join(between)}: counted wrongly, or not segmented?"
            out.append(flag("count", text, f"vertebrae_{below}", ends))
        if ends[0, 2] <= ends[1, 2]:
            text = f"{above} lies below {below}: the labels are in the wrong order, or the patient's axes are"
            out.append(flag("order", text, f"vertebrae_{below}", ends))
    lumbar = [level for level in found if level.startswith("L")]
    sacrum = "S1" in vertebrae or "sacrum" in masks
    if sacrum and any(level.startswith("T") for level in found) and len(lumbar) != SETTINGS.lumbar:
        text = f"{len(lumbar)} lumbar vertebrae between the last thoracic one and the sacrum; most people have 5"
        out.append(flag("count", text, None, np.array([vertebrae[x].centre_ct for x in lumbar]) if lumbar else None))
    return out


def _rib_flags(masks: Mapping[str, StructureMask], vertebrae: Mapping[str, Vertebra]) -> list[Flag]:
    out = []
    last = vertebrae.get("T12")
    any_ribs = any(name.startswith("rib_") for name in masks)
    if last is not None and last.whole and any_ribs:
        for side in _SIDES:
            out += _twelfth(masks.get(f"rib_{side}_12"), side, last)
    counts = {side: sorted(int(n.rsplit("_", 1)[1]) for n in masks if n.startswith(f"rib_{side}_")) for side in _SIDES}
    if counts["left"] != counts["right"]:
        left, right = len(counts["left"]), len(counts["right"])
        text = f"{left} ribs on the left and {right} on the right: is one missing, or counted wrongly?"
        out.append(flag("ribs", text))
    thoracic = {k: v for k, v in vertebrae.items() if k.startswith("T") and v.whole}
    for side in _SIDES:
        off = []
        for number in counts[side]:
            nearest = _nearest_level(masks[f"rib_{side}_{number}"], thoracic)
            if nearest is not None and not -SETTINGS.rib_levels - 1 < nearest - number <= SETTINGS.rib_levels - 1:
                off.append((number, nearest))
        if off:
            text = f"on the {side} " + ", ".join(f"rib {n} lies at T{t}" for n, t in off)
            first = masks[f"rib_{side}_{off[0][0]}"].points_ct().mean(0)
            out.append(
                flag(
                    "level",
                    text + ": ribs and vertebrae are counted differently",
                    f"rib_{side}_{off[0][0]}",
                    first[None],
                )
            )
    return out


def _twelfth(rib: StructureMask | None, side: str, last: Vertebra) -> list[Flag]:
    if rib is None:
        text = f"no twelfth rib on the {side} although T12 is whole: a short rib is missed easily, or T12 is L1"
        return [flag("rib12", text, f"rib_{side}_12", last.centre_ct[None])]
    if rib.at_edge:
        return []
    points = rib.points_ct()
    head = points[int(np.argmin(np.linalg.norm(points - last.centre_ct, axis=1)))]
    tip = points[int(np.argmax(np.linalg.norm(points - head, axis=1)))]
    length = float(np.linalg.norm(tip - head))
    if length >= SETTINGS.short_rib_mm:
        return []
    text = (
        f"the twelfth rib on the {side} is {length:.0f} mm long, below {SETTINGS.short_rib_mm:g}: a transitional "
        "vertebra is possible; count before a level is chosen"
    )
    return [flag("rib12", text, rib.name, np.stack([head, tip]))]


def _nearest_level(rib: StructureMask, thoracic: Mapping[str, Vertebra]) -> int | None:
    """Number of the thoracic vertebra that a rib comes nearest to; None where it reaches none."""
    points = rib.points_ct()[:: max(rib.voxels // 2000, 1)]
    best, best_mm = None, 40.0
    for level, vertebra in thoracic.items():
        # Rib heads meet the body's upper back edge.
        away = float(np.linalg.norm(points - vertebra.centre_ct, axis=1).min())
        if away < best_mm:
            best, best_mm = int(level[1:]), away
    return best


def _process_flags(masks: Mapping[str, StructureMask], vertebrae: Mapping[str, Vertebra]) -> list[Flag]:
    """Tall transverse processes of the last lumbar vertebra, and whether they meet the sacrum."""
    sacrum = masks.get("sacrum") or masks.get("vertebrae_S1")
    lumbar = [level for level in ORDER if level in vertebrae and level in ("L4", "L5", "L6")]
    if sacrum is None or not lumbar or (last := vertebrae[lumbar[-1]]).body is None:
        return []
    out = []
    points = last.mask.points_ct()
    uvw = last.body.frame.of_ct(points)
    for side, sign in (("left", 1), ("right", -1)):
        beside = sign * uvw[:, 0] > last.body.width_mm / 2 + SETTINGS.process_mm
        if np.count_nonzero(beside) < 10:
            continue
        process = points[beside]
        height = float(np.ptp(uvw[beside, 2]))
        part = StructureMask(last.mask.name, _only(last.mask, beside), last.mask.T_ct_index)
        near = gap(part, sacrum)
        if height < SETTINGS.tall_process_mm:
            continue
        meets = near.distance_mm <= SETTINGS.touching_mm
        text = (
            f"the {side} transverse process of {lumbar[-1]} is {height:.0f} mm tall, at least "
            f"{SETTINGS.tall_process_mm:g}, and {near.distance_mm:.1f} mm from the sacrum: "
            + ("a sacralised vertebra (Castellvi II to IV)?" if meets else "a transitional vertebra (Castellvi I)?")
        )
        ends = process[[int(np.argmax(uvw[beside, 2])), int(np.argmin(uvw[beside, 2]))]]
        out.append(flag("transitional", text, f"{last.mask.name}-{side}", np.concatenate([ends, near.points_ct])))
    return out


def _only(mask: StructureMask, keep: np.ndarray) -> np.ndarray:
    out = np.zeros_like(mask.inside)
    out[mask.inside] = keep
    return out


def _ring_flags(vertebrae: Mapping[str, Vertebra]) -> list[Flag]:
    return [
        flag(
            "open-ring",
            f"the arch of {level_of(v.mask.name)} does not enclose the canal: a laminectomy, spina bifida, or a lamina "
            "that the label misses. Screws and distances to the cord need the arch",
            v.mask.name,
            v.centre_ct[None],
        )
        for v in vertebrae.values()
        if v.whole and v.body is not None and v.canal_mm2 == 0
    ]
