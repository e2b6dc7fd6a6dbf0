"""A screw for a pedicle: the axis with the most bone around it, and the largest screw of a catalogue that fits."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fluoronav.planning.plan.schema import Grade, Side
from fluoronav.planning.screws.catalogue import Catalogue
from fluoronav.planning.screws.grading import graded
from fluoronav.planning.screws.pedicle import Axis
from fluoronav.planning.screws.vertebra import Vertebra

Float = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class ProposalSettings:
    """What a proposed screw must keep to."""

    fill: float = 0.8  # largest share of the bone's width around the axis; surgeons' rule of thumb for pedicles
    body_share: float = 0.8  # of the body along the axis that the tip may reach; common advice against passing it
    least_body_share: float = 0.4  # below this a screw holds too little; chosen
    front_mm: float = 3.0  # from the tip to the front of the body along the axis, at least; chosen
    back_mm: float = 60.0  # behind the pedicle that the entry is looked for; longer than any lamina


SETTINGS = ProposalSettings()


@dataclass(frozen=True)
class ScrewProposal:
    """A screw for a pedicle, or why there is none.

    Attributes
    ----------
    level, side : str
    fits : bool
    entry_ct, tip_ct : tuple of float or None
        LPS mm; None where nothing fits.
    diameter_mm, length_mm : float or None
    clearance_mm, breach_mm : float or None
        By the grading; None where nothing fits.
    grade : Grade or None
    width_mm : float
        Twice the depth of the best axis below the bone's surface: the thickest cylinder that the pedicle takes.
    reason : str
        Why nothing fits; empty otherwise.
    """

    level: str
    side: Side
    fits: bool
    entry_ct: tuple[float, float, float] | None = None
    tip_ct: tuple[float, float, float] | None = None
    diameter_mm: float | None = None
    length_mm: float | None = None
    clearance_mm: float | None = None
    breach_mm: float | None = None
    grade: Grade | None = None
    width_mm: float = 0.0
    reason: str = ""


def proposed(
    vertebra: Vertebra, side: Side, catalogue: Catalogue, settings: ProposalSettings = SETTINGS
) -> ScrewProposal:
    """Proposes a screw for one pedicle.

    Parameters
    ----------
    vertebra : Vertebra
    side : "left" or "right"
    catalogue : Catalogue

    Returns
    -------
    ScrewProposal
        With ``fits`` false and the numbers in ``reason`` where no screw of the catalogue fits.
    """
    if side not in vertebra.pedicles:
        return ScrewProposal(vertebra.level, side, False, reason=vertebra.missing[side])
    return fitted(vertebra, side, vertebra.pedicles[side].axis, catalogue, settings)


@dataclass(frozen=True)
class _Run:
    """Distances along an axis from its crossing of the narrowest section, mm: where bone begins and ends."""

    entry: float
    wall: float
    front: float


def _run(vertebra: Vertebra, axis: Axis, settings: ProposalSettings) -> _Run:
    canal = vertebra.canal
    step = 0.25
    back = np.arange(0, settings.back_mm, step)
    ahead = np.arange(0, 4 * canal.body_mm, step)

    def leaves(s: Float) -> float:
        out = np.flatnonzero(vertebra.bone.depth_mm(canal.to_ct(axis.at + s[:, None] * axis.direction)) <= 0)
        return float(s[out[0]]) if len(out) else float(s[-1])

    # A breach at the narrowest section itself must not end the run there.
    begin = float((vertebra.canal.front_mm - axis.at[1]) / axis.direction[1])
    return _Run(leaves(-back), begin, leaves(begin + ahead))


def fitted(
    vertebra: Vertebra, side: Side, axis: Axis, catalogue: Catalogue, settings: ProposalSettings = SETTINGS
) -> ScrewProposal:
    """The largest screw of a catalogue along an axis."""
    canal, pedicle = vertebra.canal, vertebra.pedicles[side]
    run = _run(vertebra, axis, settings)
    body = run.front - run.wall
    deepest = min(run.wall + settings.body_share * body, run.front - settings.front_mm)
    shallowest = run.wall + settings.least_body_share * body
    begins = (pedicle.begins_mm - axis.at[1]) / axis.direction[1]
    along = np.arange(begins, deepest, 0.5)
    depth = -vertebra.surfaces.outside_mm(canal.to_ct(axis.at + along[:, None] * axis.direction))
    width = 2 * float(depth[along <= shallowest].min()) if (along <= shallowest).any() else 0.0
    width = max(width, 0.0)
    lengths = [n for n in catalogue.lengths_mm if shallowest <= run.entry + n <= deepest]
    smallest = catalogue.diameters_mm[0]
    what = f"{vertebra.level} {side}"
    if width < smallest:
        reason = f"{what}: the pedicle takes a cylinder of {width:.1f} mm; the thinnest screw has {smallest:g} mm"
        return ScrewProposal(vertebra.level, side, False, width_mm=width, reason=reason)
    if not lengths:
        reason = (
            f"{what}: no length fits: the tip has to lie {shallowest - run.entry:.0f} to {deepest - run.entry:.0f} mm "
            f"from the entry; the catalogue has {', '.join(f'{n:g}' for n in catalogue.lengths_mm)} mm"
        )
        return ScrewProposal(vertebra.level, side, False, width_mm=width, reason=reason)
    for diameter in reversed(catalogue.diameters_mm):
        least = diameter / (2 * settings.fill) if diameter > smallest else diameter / 2
        for length in reversed(lengths):
            tip = run.entry + length
            if depth[along <= tip].min() < least:
                continue
            ends = canal.to_ct(axis.at + np.array([[run.entry], [tip]]) * axis.direction)
            grading = graded(ends[0], ends[1], diameter, side, vertebra)
            if grading.grade in ("A", "B") and grading.in_canal_mm == 0:
                entry_ct, tip_ct = (_rounded(p) for p in ends)
                return ScrewProposal(
                    vertebra.level, side, True, entry_ct, tip_ct, diameter, length, round(grading.clearance_mm, 2),
                    round(grading.breach_mm, 2), grading.grade, round(width, 2),
                )  # fmt: skip
    reason = f"{what}: a screw of {smallest:g} mm would breach the bone, whose width is {width:.1f} mm there"
    return ScrewProposal(vertebra.level, side, False, width_mm=width, reason=reason)


def _rounded(point: Float) -> tuple[float, float, float]:
    x, y, z = (round(float(v), 2) for v in point)
    return x, y, z
