"""Whether the plan, the prior and the no-go regions lie where the patient is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fluoronav.case.file import CaseFile
from fluoronav.case.plausible import LIMITS
from fluoronav.case.schema import CaseError
from fluoronav.case.volume import Volume

Float = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class _Extent:
    """A box along the patient axes, LPS mm, shape (3,) each."""

    low: Float
    high: Float

    def distance_mm(self, low: Sequence[float] | Float, high: Sequence[float] | Float) -> float:
        """From another box to this one; 0 where they overlap."""
        return float(np.linalg.norm(np.maximum(0, np.maximum(self.low - high, np.array(low) - self.high))))


def check_places(file: CaseFile, ct: Volume, surroundings: Volume | None, path: Path) -> list[str]:
    """Whether plan and prior lie where the patient is; raises :class:`CaseError`, returns what is unusual."""
    volumes = [ct] if surroundings is None else [ct, surroundings]
    corners = np.vstack([v.corners_ct() for v in volumes])
    extent = _Extent(corners.min(0), corners.max(0))
    warnings = _check_plan(file, extent, path)
    isocentre = file.prior.isocentre_ct
    off = extent.distance_mm(isocentre, isocentre)
    if off > LIMITS.isocentre_outside_mm:
        raise CaseError(
            f"{path}: prior: isocentre_ct {list(isocentre)} lies {off:.0f} mm outside the CT: is it in LPS mm, and of "
            "this patient?"
        )
    for n in file.no_go:
        off = extent.distance_mm(*n.bounds_ct())
        if off > LIMITS.no_go_outside_mm:
            raise CaseError(f"{path}: no_go: {n.name} lies {off:.0f} mm outside the CT: is it in LPS mm?")
        if off > 0:
            warnings.append(f"{path}: no_go: {n.name} lies {off:.0f} mm outside the CT")
    if file.tracker is not None and file.tracker.T_ct_reference is not None:
        marker = [row[3] for row in file.tracker.T_ct_reference[:3]]
        off = extent.distance_mm(marker, marker)
        if off > LIMITS.marker_outside_mm:
            raise CaseError(
                f"{path}: tracker: T_ct_reference puts the marker {off:.0f} mm outside the CT: is it marker to "
                "patient, in LPS mm?"
            )
    return warnings


def _check_plan(file: CaseFile, extent: _Extent, path: Path) -> list[str]:
    warnings = []
    for t in file.plan:
        for name, point, most in (
            ("entry_ct", t.entry_ct, LIMITS.entry_outside_mm), ("target_ct", t.target_ct, LIMITS.target_outside_mm),
        ):  # fmt: skip
            off = extent.distance_mm(point, point)
            if off > most:
                raise CaseError(
                    f"{path}: plan: {t.name}: {name} {list(point)} lies {off:.0f} mm outside the CT: is it in LPS mm, "
                    "and of this patient?"
                )
            if off > 0 and name == "target_ct":
                warnings.append(f"{path}: plan: {t.name}: {name} lies {off:.1f} mm outside the CT")
        length = float(np.linalg.norm(np.subtract(t.target_ct, t.entry_ct)))
        if length < LIMITS.short_path_mm:
            warnings.append(f"{path}: plan: {t.name} is {length:.1f} mm long: is it in mm?")
    return warnings
