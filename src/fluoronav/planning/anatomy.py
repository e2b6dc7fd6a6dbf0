"""Names and label values of anatomical structures, by this project's numbers, and other schemes.

The numbers 1 to 116 are those of TotalSegmentator 2 (not of 1); 117 and 118 are this project's.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Literal

Kind = Literal[
    "vertebra", "rib", "bone", "cartilage", "nerve", "vessel", "organ", "muscle", "lesion", "implant", "other"
]
Scheme = Literal["totalsegmentator", "verse"]

# From head to tail; VerSe numbers them in this order from 1, with L6 as 25, S1 as 26 and T13 as 28.
LEVELS = tuple(
    [f"C{n}" for n in range(1, 8)] + [f"T{n}" for n in range(1, 13)] + [f"L{n}" for n in range(1, 6)] + ["S1"]
)
_VERSE = {k + 1: level for k, level in enumerate(LEVELS[:-1])} | {25: "L6", 26: "S1", 28: "T13"}
# Label values of a vertebra that the table does not have; chosen above its last value.
_EXTRA = {"T13": 201, "L6": 202}
# Label values of structures that the vocabulary does not have; a label map of bytes ends with the last.
OWN_LABELS = range(203, 256)
_LEVEL = re.compile(r"(?:vertebrae?_)?([CTLS]\d{1,2})", re.IGNORECASE)
_BONES = ("vertebra", "rib", "bone")


@dataclass(frozen=True)
class Structure:
    """One structure of the vocabulary.

    Attributes
    ----------
    label : int
        Its value in label maps that fluoronav writes.
    name : str
        TotalSegmentator's name, such as ``vertebrae_T8`` or ``rib_left_4``.
    kind : Kind
    """

    label: int
    name: str
    kind: Kind

    @property
    def is_bone(self) -> bool:
        return self.kind in _BONES


@cache
def vocabulary() -> dict[int, Structure]:
    """All structures by label value; 1 to 116 have the values of TotalSegmentator 2."""
    with files("fluoronav.planning").joinpath("structures.csv").open(encoding="utf-8") as file:
        rows = [Structure(int(r["id"]), r["name"], r["kind"]) for r in csv.DictReader(file)]  # type: ignore[arg-type]
    rows += [Structure(label, f"vertebrae_{level}", "vertebra") for level, label in _EXTRA.items()]
    return {s.label: s for s in rows}


@cache
def by_name() -> dict[str, Structure]:
    """All structures by name."""
    return {s.name: s for s in vocabulary().values()}


def level_of(name: str) -> str | None:
    """The vertebral level that a name means: "T8" for ``vertebrae_T8``, ``vertebra_t8`` and ``T8``; None for others."""
    found = _LEVEL.fullmatch(name.strip())
    return found[1].upper() if found else None


def meant(name: str, there: Iterable[str]) -> str | None:
    """Which of the names of structures a name means: itself, or the vertebra of a level such as "T8"; None for none."""
    level, names = level_of(name), set(there)
    return next((n for n in (name, level and vertebra(level).name) if n in names), None)


def vertebra(level: str) -> Structure:
    """The vertebra of a level such as "T8".

    Raises
    ------
    ValueError
        There is no such level.
    """
    found = by_name().get(f"vertebrae_{level.strip().upper()}")
    if found is None:
        raise ValueError(f"{level!r} is no vertebral level; levels are C1 to C7, T1 to T13, L1 to L6 and S1")
    return found


def mirrored(name: str) -> str:
    """The name of the same structure on the other side; the name itself where the vocabulary has no such structure."""
    other = name.replace("left", "right") if "left" in name else name.replace("right", "left")
    return other if other in by_name() else name


def labels_of_scheme(scheme: Scheme) -> dict[int, Structure]:
    """The structure of each label value of a label map that follows a scheme.

    Parameters
    ----------
    scheme : "totalsegmentator" or "verse"
        This project's numbers (TotalSegmentator 2 up to 116), or VerSe (vertebrae
        alone: 1 is C1, 8 is T1, 20 is L1, 28 is T13).
    """
    if scheme == "verse":
        return {value: vertebra(level) for value, level in _VERSE.items()}
    return dict(vocabulary())
