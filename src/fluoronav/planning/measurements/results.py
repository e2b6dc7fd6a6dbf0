"""What measuring gives: items of a plan, what was refused, and flags."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from fluoronav.planning.measurements.errors import Refused
from fluoronav.planning.measurements.mask import Float
from fluoronav.planning.plan.schema import Flag, Measured

Unit = Literal["mm", "deg", "cm3", "HU", "1"]
Progress = Callable[[str, float], None]
_DECIMALS = {"mm": 2, "deg": 2, "cm3": 3, "HU": 1, "1": 3}


@dataclass(frozen=True)
class Refusal:
    """A measurement that was not made, and why."""

    name: str
    structure: str
    reason: str


@dataclass
class Results:
    """Collects what is measured.

    Attributes
    ----------
    items : list of Measured
    refused : list of Refusal
    flags : list of Flag
    seconds : float
    """

    items: list[Measured] = field(default_factory=list)
    refused: list[Refusal] = field(default_factory=list)
    flags: list[Flag] = field(default_factory=list)
    seconds: float = 0.0

    def add(
        self, name: str, structure: str, value: float, unit: Unit, sigma: float | None, method: str,
        points: Float | None = None,
    ) -> None:  # fmt: skip
        """Adds a measurement; `points` are LPS mm, shape (n, 3)."""
        digits = _DECIMALS[unit]
        known = sigma is not None and np.isfinite(sigma)
        at = () if points is None else tuple((float(x), float(y), float(z)) for x, y, z in np.round(points, 2))
        self.items.append(
            Measured(
                id=f"m-{structure}-{name}"[:64], origin="proposed", name=name, structure=structure,
                value=round(float(value), digits), unit=unit,
                uncertainty=round(float(sigma), digits) if known and sigma is not None else None, method=method,
                points_ct=at,
            )
        )  # fmt: skip

    @contextmanager
    def refusing(self, name: str, structure: str) -> Iterator[None]:
        """Notes why a measurement was refused, and goes on."""
        try:
            yield
        except Refused as error:
            self.refused.append(Refusal(name, structure, str(error)))

    def as_json(self) -> dict:
        """For ``--json``."""
        return {
            "measurements": [m.model_dump(mode="json") for m in self.items],
            "refused": [vars(r) for r in self.refused],
            "flags": [f.model_dump(mode="json") for f in self.flags],
            "seconds": round(self.seconds, 2),
        }
