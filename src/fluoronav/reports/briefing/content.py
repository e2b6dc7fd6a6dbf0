"""What a briefing says, as plain data: HTML, PDF and JSON are made from it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from fluoronav.planning.plan.schema import PlanState
from fluoronav.planning.segmentation.engine import State


@dataclass(frozen=True)
class Said:
    """What a person said.

    Attributes
    ----------
    who : str
        User, or empty where nobody has.
    at : str
        Date and time in this computer's zone, minutes; empty where the case's trail does not tell.
    """

    who: str = ""
    at: str = ""


@dataclass(frozen=True)
class Head:
    """Of which plan it is, and whether that may be used.

    Attributes
    ----------
    case : str
        The pseudonym.
    procedure : str
    revision : int
    state : PlanState
        What the plan says of itself.
    is_final : bool
        Approved, unchanged since, and of the present CT and label map. Else every page says DRAFT.
    draft_because : tuple of str
        Why it is not final.
    author, made : str
    reviewed, approved : Said
    plan_hash, ct_hash, labels_hash : str
        First digits of the SHA-256; of the label map empty where there is none.
    printed : str
    version : str
        Of fluoronav.
    """

    case: str
    procedure: str
    revision: int
    state: PlanState
    is_final: bool
    draft_because: tuple[str, ...]
    author: str
    made: str
    reviewed: Said
    approved: Said
    plan_hash: str
    ct_hash: str
    labels_hash: str
    printed: str
    version: str


@dataclass(frozen=True)
class OpenPoint:
    """What somebody has still to do or to know; the gravest kinds are `unsafe` and `level`."""

    kind: str
    about: str
    text: str


@dataclass(frozen=True)
class ClosedPoint:
    """A question or a flag that a person has answered."""

    about: str
    text: str
    answer: str
    said: Said


@dataclass(frozen=True)
class Levels:
    """Whether the level of the spine is sure.

    Attributes
    ----------
    is_sure : bool
        No question about it is open.
    text : str
    """

    is_sure: bool
    text: str


@dataclass(frozen=True)
class Questions:
    """Everything that was asked: what is open comes first."""

    levels: Levels
    open: tuple[OpenPoint, ...]
    closed: tuple[ClosedPoint, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Instrument:
    """A screw, or a path.

    Attributes
    ----------
    item, name, side : str
    diameter_mm, length_mm : float
    grade : str
        Gertzbein and Robbins; empty for a path.
    clearance_mm, breach_mm : float or None
        As in the plan.
    bound_mm : float or None
        What the guidance will state for the tip at the planned views, 95 %; None without views.
    left_mm : float or None
        Clearance less that bound.
    origin : str
    """

    item: str
    name: str
    side: str
    diameter_mm: float
    length_mm: float
    grade: str
    clearance_mm: float | None
    breach_mm: float | None
    bound_mm: float | None
    left_mm: float | None
    origin: str


@dataclass(frozen=True)
class Step:
    """A cut, a move, a resection or an implant."""

    item: str
    what: str
    structure: str
    text: str
    origin: str


@dataclass(frozen=True)
class Needed:
    """What must be on the table."""

    count: int
    what: str
    size: str
    note: str = ""


@dataclass(frozen=True)
class ViewUse:
    """What a view is for.

    Attributes
    ----------
    name : str
        The screw or path.
    turn : str
        What is done there: the exposure before, or the guiding.
    text : str
        The predicted error, or where the arm goes next.
    error_mm, bound_mm : float or None
        Expected error of the tip in the direction that matters, and what the guidance will state for it, 95 %; None for
        the exposure before.
    """

    name: str
    turn: str
    text: str
    error_mm: float | None = None
    bound_mm: float | None = None


@dataclass(frozen=True)
class ViewCard:
    """A planned C-arm view.

    Attributes
    ----------
    title : str
        The screws or paths that it is for.
    words, joints : str
        Its angles, as radiographers and as the display's menu say them.
    uses : tuple of ViewUse
    arm : str
        What it would collide with, or that nothing was found.
    is_free : bool
    picture : bytes
        JPEG, grey; not in the JSON.
    """

    title: str
    words: str
    joints: str
    orbital_deg: float
    angular_deg: float
    uses: tuple[ViewUse, ...]
    arm: str
    is_free: bool
    picture: bytes = field(repr=False)


@dataclass(frozen=True)
class Views:
    """The planned views; `note` says what to do where there are none, or where they are of older screws."""

    cards: tuple[ViewCard, ...]
    note: str


@dataclass(frozen=True)
class Figures:
    """Measurements of a structure: each its name, value, one standard deviation and unit, as text."""

    structure: str
    values: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Drawn:
    """A structure that the plan or an alarm uses."""

    name: str
    state: State | None
    said: Said
    engine: str
    confidence: float | None


@dataclass(frozen=True)
class Segmented:
    """How the label map was made.

    Attributes
    ----------
    engines : tuple of str
        Each with its number of structures by state.
    used : tuple of Drawn
    """

    engines: tuple[str, ...]
    used: tuple[Drawn, ...]


@dataclass(frozen=True)
class Briefing:
    """The whole document."""

    head: Head
    questions: Questions
    screws: tuple[Instrument, ...]
    paths: tuple[Instrument, ...]
    steps: tuple[Step, ...]
    needed: tuple[Needed, ...]
    views: Views
    figures: tuple[Figures, ...]
    more_figures: int
    segmented: Segmented

    def result(self) -> dict[str, Any]:
        """For JSON; without pictures."""
        from dataclasses import asdict

        content = asdict(self)
        for card in content["views"]["cards"]:
            del card["picture"]
        return content
