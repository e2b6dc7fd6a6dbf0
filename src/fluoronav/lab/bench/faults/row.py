"""Faults, their outcomes, and the rows of the bench's table."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fluoronav.lab.bench.faults.place import Place


_SEEN_LETTERS = 160  # of a row in the table


class BenchError(RuntimeError):
    """A fault could not be judged, or a process failed; the text says which and why."""


class NotHere(Exception):
    """This computer cannot run a fault; the text says what is missing."""


@dataclass
class Outcome:
    """The result of a fault.

    Attributes
    ----------
    problems : list of str
        Deviations from the expected; without any, the row is ok.
    said_after_ms : float or None
        From the fault's begin to its first report; None without a report.
    recovered_after_ms : float or None
        From the fault's end (or begin, if it stays) until all was right again.
    lost_frames : int or None
        Frames without an overlay; None if no frames were sent.
    seen : str
        Observations, in words.
    """

    problems: list[str] = field(default_factory=list)
    said_after_ms: float | None = None
    recovered_after_ms: float | None = None
    lost_frames: int | None = None
    seen: str = ""


@dataclass(frozen=True)
class Fault:
    """A fault that the bench can produce.

    Attributes
    ----------
    name : str
        Short, with hyphens.
    expected : str
        Expected reaction, in words.
    run : callable
        Produces the fault and judges the reaction.
    """

    name: str
    expected: str
    run: Callable[[Place], Outcome]


def row_of(fault: Fault, outcome: Outcome) -> dict[str, Any]:
    """A row of the bench's JSON.

    Returns
    -------
    dict
        ``name``, ``ok`` (None if it was not run), ``said_after_ms``, ``recovered_after_ms``, ``lost_frames``,
        ``expected``, ``seen``.
    """
    said = "; ".join(outcome.problems) or outcome.seen or "as expected"
    if outcome.problems and outcome.seen:
        said += f" ({outcome.seen})"
    return {
        "name": fault.name,
        "ok": not outcome.problems,
        "said_after_ms": _rounded(outcome.said_after_ms),
        "recovered_after_ms": _rounded(outcome.recovered_after_ms),
        "lost_frames": outcome.lost_frames,
        "expected": fault.expected,
        "seen": said,
    }


def row_not_run(fault: Fault, why: str) -> dict[str, Any]:
    """The row of a fault that this computer cannot run."""
    return row_of(fault, Outcome()) | {"ok": None, "seen": f"not run: {why}"}


def row_failed(fault: Fault, why: str) -> dict[str, Any]:
    """The row of a fault that could not be judged."""
    return row_of(fault, Outcome([why]))


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows as text; observations are shortened, the JSON has all of them."""
    lines = [f"{'fault':38}{'':8}{'said':>8}{'over':>8}{'lost':>6}  seen"]
    for r in rows:
        verdict = {True: "ok", False: "NOT OK", None: "not run"}[r["ok"]]
        said, over = (_seconds(r[k]) for k in ("said_after_ms", "recovered_after_ms"))
        lost = "-" if r["lost_frames"] is None else str(r["lost_frames"])
        lines.append(
            f"{r['name']:38}{verdict:8}{said:>8}{over:>8}{lost:>6}  {textwrap.shorten(r['seen'], _SEEN_LETTERS)}"
        )
    counts = [sum(r["ok"] is v for r in rows) for v in (True, False, None)]
    lines.append("")
    lines.append(f"{counts[0]} ok, {counts[1]} not ok, {counts[2]} not run; said and over in s")
    return "\n".join(lines)


def _seconds(ms: float | None) -> str:
    return "-" if ms is None else f"{ms / 1000:.2f}"


def _rounded(ms: float | None) -> float | None:
    return None if ms is None else round(max(ms, 0.0), 1)
