"""The cohort's figures by scene, and as text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from itertools import zip_longest
from typing import Any

import numpy as np

from fluoronav.lab.bench.cohort.scenes import BY_NAME

Row = dict[str, Any]
_MOST_REASONS = 2


def summaries(rows: list[Row]) -> dict[str, Any]:
    """Figures of each scene and of all together.

    Returns
    -------
    dict
        ``scenes`` by name and ``all``; see :func:`summary`.
    """
    names = list(dict.fromkeys(r["scene"] for r in rows))
    return {
        "scenes": {n: summary([r for r in rows if r["scene"] == n]) for n in names},
        "all": summary(rows) if rows else {},
    }


def summary(rows: list[Row]) -> dict[str, Any]:
    """Figures of some exposures.

    Returns
    -------
    dict
        ``n``; ``present``, how many have a right pose; ``believed`` and ``wrong_believed``, as in
        :func:`fluoronav.lab.bench.cohort.registering.judged`; over those that were believed and have a right pose
        ``across_mm``, ``space_mm`` and ``degrees`` (median, p95), ``bound_mm`` (median) and the shares in which bounds
        hold: ``bound_holds`` (across the ray), ``space_bound_holds``, ``rotation_bound_holds``; the same of the target
        bone's own pose in ``own``, with their number; ``reasons`` why others were not believed, with their number.
    """
    sure = [r for r in rows if r["believed"] and r["present"] and "across_mm" in r]
    own = [r["own"] for r in sure if "own" in r]
    refused = Counter(r["reason"] or r["status"] for r in rows if not r["believed"])
    return {
        "n": len(rows),
        "present": sum(r["present"] for r in rows),
        "believed": sum(r["believed"] for r in rows),
        "wrong_believed": sum(r["wrong_believed"] for r in rows),
        **_figures(sure),
        "own": {"n": len(own), **_figures(own)},
        "reasons": dict(refused.most_common()),
    }


def _figures(poses: list[Row]) -> Row:
    if not poses:
        return dict.fromkeys(
            ("across_mm", "space_mm", "degrees", "bound_mm", "bound_holds", "space_bound_holds", "rotation_bound_holds")
        )

    def held(error: str, bound: str) -> float | None:
        stated = [p[error] <= p[bound] for p in poses if p[bound] is not None]
        return float(np.mean(stated)) if stated else None

    return {
        **{k: _median_and_p95([p[k] for p in poses]) for k in ("across_mm", "space_mm", "degrees")},
        "bound_mm": float(np.median([p["bound_mm"] for p in poses])),
        "bound_holds": held("across_mm", "bound_mm"),
        "space_bound_holds": held("space_mm", "bound_space_mm"),
        "rotation_bound_holds": held("degrees", "bound_degrees"),
    }


def _median_and_p95(values: list[float]) -> dict[str, float]:
    return {"median": float(np.median(values)), "p95": float(np.percentile(values, 95))}


def table(result: dict[str, Any]) -> str:
    """The figures as text."""
    header = ("scene", "believed", "wrong", "across, mm", "degrees", "bound, mm", "holds: across, space, rotation")
    lines = [f"{header[0]:20}{header[1]:>10}{header[2]:>7}{header[3]:>15}{header[4]:>13}{header[5]:>11}  {header[6]}"]
    for name, s in [*result["scenes"].items(), ("all", result["all"])]:
        if s:
            cells = cells_of(s)
            lines.append(
                f"{name:20}{cells[0]:>10}{cells[1]:>7}{cells[2]:>15}{cells[3]:>13}{cells[4]:>11}  {cells[5]}"
                + (f"   ({why})" if (why := _reasons(s)) else "")
            )
    lines += [f"{name:20}{reason}" for name, reason in result["left_out"].items()]
    return "\n".join(lines)


def cells_of(s: dict[str, Any]) -> tuple[str, ...]:
    """Believed, wrong, across, degrees, bound, and where bounds hold, as texts."""
    if s["across_mm"] is None:
        return f"{s['believed']} of {s['n']}", str(s["wrong_believed"]), "", "", "", ""
    return (
        f"{s['believed']} of {s['n']}",
        str(s["wrong_believed"]),
        *(f"{s[k]['median']:.2f} / {s[k]['p95']:.2f}" for k in ("across_mm", "degrees")),
        f"{s['bound_mm']:.2f}",
        ", ".join(_percent(s[k]) for k in ("bound_holds", "space_bound_holds", "rotation_bound_holds")) + " %",
    )


def _percent(share: float | None) -> str:
    return "not said" if share is None else f"{100 * share:.0f}"


def _reasons(s: dict[str, Any]) -> str:
    return "; ".join(f"{n} {why}" for why, n in list(s["reasons"].items())[:_MOST_REASONS])


ALL = "all of these"


def described(name: str) -> str:
    """What a scene is, for the documentation."""
    return f"`{name}`: {BY_NAME[name].what}"


def described_rows(result: dict[str, Any]) -> Iterable[tuple[str, ...]]:
    """Rows for the documentation: what the scene is, and its cells; all together in the last."""
    for name, s in result["scenes"].items():
        yield described(name), *cells_of(s)
    yield ALL, *cells_of(result["all"])


def worst(rows: list[Row], most: int) -> list[Row]:
    """The exposures to look at: wrong and believed first, then by turns the largest errors and what was refused.

    Of what was refused each scene has its turn.
    """
    wrong = _by_error([r for r in rows if r["wrong_believed"]])
    errors = _by_error([r for r in rows if r["believed"] and not r["wrong_believed"] and "across_mm" in r])
    of_scenes: dict[str, list[Row]] = {}
    for row in _by_error([r for r in rows if r["present"] and not r["believed"] and not r["wrong_believed"]]):
        of_scenes.setdefault(row["scene"], []).append(row)
    refused = [row for some in zip_longest(*of_scenes.values()) for row in some if row is not None]
    turns = [row for some in zip_longest(errors, refused) for row in some if row is not None]
    return (wrong + turns)[:most]


def _by_error(rows: list[Row]) -> list[Row]:
    """Largest first; first of all those without a right pose."""
    return sorted(rows, key=lambda r: r.get("across_mm", np.inf), reverse=True)
