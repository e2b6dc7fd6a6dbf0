"""Figures of the registration bench over all subjects, and as text."""

from __future__ import annotations

from typing import Any

import numpy as np

from fluoronav.imaging.registration.confidence import TRACKING_AGREEMENT, TRACKING_SCORE

# Across the ray, mm; chosen: a search within 2 mm is followed to the end by the tracking.
SUCCESS_MM = 2.0
# A pose off by more is wrong, one off by less is good, across the ray, mm; chosen: between them nothing is claimed.
WRONG_MM, GOOD_MM = 3.0, 1.0
# In space, mm; chosen: a wrist from a start near by is right, and one found by a search is not another minimum.
WRIST_RIGHT_MM, WRIST_FOUND_MM = 0.3, 1.0
BINS_MM = (10, 20, 30, 40, 50, 60, 70)  # upper ends of the bins of the initial error; chosen


def together(subjects: list[dict[str, Any]]) -> dict[str, Any]:
    """The figures over all subjects."""
    searched = [r for s in subjects for r in s["search"]]
    wide = [r for s in subjects for r in s["wide"]]
    spine = [r for s in subjects if s["name"] != "ribs" for t in s["tracking"] if t["photons"] > 50 for r in t["poses"]]
    every = [r for s in subjects for t in s["tracking"] for r in t["poses"]]
    judged = [j for s in subjects for j in s["judged"]]
    wrong = [j for j in judged if not j["across_mm"] <= WRONG_MM]
    good = [j for j in judged if j["across_mm"] < GOOD_MM]
    pairs = [e for s in subjects for e in s["two_views"]]
    fused = [f for s in subjects for f in s["fused"]]
    return {
        "search_success": success_rate(searched),
        "capture_range_mm": capture_range_mm(searched),
        "by_start": [
            {"to_mm": high, "success": success_rate(rows), "starts": len(rows)}
            for high in BINS_MM
            for rows in [[r for r in searched if high - 10 <= r["start_mm"] < high + 1e-6]]
            if rows
        ],
        "search_ms": percentile(searched + wide, "ms", 50),
        "search_cpu_s": {
            "median": percentile(searched + wide, "cpu_s", 50),
            "max": percentile(searched + wide, "cpu_s", 100),
        },
        "wide_success": success_rate(wide),
        "wide_start_mm": float(np.median([r["start_mm"] for r in wide])),
        "tracking_across_mm": {"median": percentile(spine, "across_mm", 50), "p95": percentile(spine, "across_mm", 95)},
        "tracking_mtre_mm": {"median": percentile(spine, "mtre_mm", 50), "p95": percentile(spine, "mtre_mm", 95)},
        "tracking_ms": percentile(every, "ms", 50),
        "lost": sum(t["lost"] for s in subjects for t in s["tracking"]),
        "two_views_mtre_mm": float(np.median(pairs)) if pairs else None,
        "fused": {
            "pairs": len(fused),
            **{
                k: percentile(fused, k, 50) if fused else None
                for k in ("alone_mm", "mtre_mm", "alone_bound_mm", "bound_mm")
            },
            "alone_p95_mm": percentile(fused, "alone_mm", 95) if fused else None,
            "mtre_p95_mm": percentile(fused, "mtre_mm", 95) if fused else None,
            "held": float(np.mean([f["held"] for f in fused])) if fused else None,
        },
        "coverage": {
            "image": float(np.mean([r["held_across"] for r in every])),
            "depth": float(np.mean([r["held_depth"] for r in every])),
        },
        "acceptance": {
            "wrong": len(wrong),
            "wrong_called_tracking": float(np.mean([j["tracking"] for j in wrong])) if wrong else None,
            "good": len(good),
            "good_called_tracking": float(np.mean([j["tracking"] for j in good])) if good else None,
            "thresholds": {"score": TRACKING_SCORE, "agreement": TRACKING_AGREEMENT},
        },
    }


def success_rate(rows: list[dict[str, Any]]) -> float:
    """Fraction of the searches that end within :data:`SUCCESS_MM` across the ray."""
    return float(np.mean([r["across_mm"] < SUCCESS_MM for r in rows]))


def capture_range_mm(rows: list[dict[str, Any]]) -> float:
    """Initial error up to which at least 95 % of the starts succeed, mm (van de Kraats et al., 2005)."""
    ranked = sorted(rows, key=lambda r: r["start_mm"])
    success = np.cumsum([r["across_mm"] < SUCCESS_MM for r in ranked]) / np.arange(1, len(ranked) + 1)
    reached = np.flatnonzero(success >= 0.95)
    return float(ranked[reached[-1]]["start_mm"]) if len(reached) else 0.0


def percentile(rows: list[dict[str, Any]], key: str, percent: float) -> float:
    """A percentile of one figure over rows."""
    return float(np.percentile([r[key] for r in rows], percent))


def table(result: dict[str, Any]) -> str:
    """The figures as text."""
    lines = [
        f"{'subject':10}{'found':>7}{'wide':>7}{'across med / 95 %':>20}{'in space':>10}{'at 20 ph.':>16}{'2 views':>9}"
    ]
    lines += [_subject_line(s) for s in result["subjects"]]
    if "all" in result:
        lines += _all_lines(result["all"])
    lines += [_field_line(field) for s in result["subjects"] for field in s["narrow"]]
    if "bones" in result:
        lines.append(_bones_line(result["bones"]))
    if "wrist" in result:
        lines += _wrist_lines(result["wrist"])
    return "\n".join(lines)


def _subject_line(s: dict[str, Any]) -> str:
    t, low = s["tracking"]
    return (
        f"{s['name']:10}{success_rate(s['search']):7.0%}{success_rate(s['wide']):7.0%}"
        f"{percentile(t['poses'], 'across_mm', 50):11.2f} / {percentile(t['poses'], 'across_mm', 95):4.2f} mm"
        f"{percentile(t['poses'], 'mtre_mm', 50):7.2f} mm"
        f"{percentile(low['poses'], 'across_mm', 50):8.2f} / {percentile(low['poses'], 'across_mm', 95):4.2f}"
        + (f"{np.median(s['two_views']):6.2f} mm" if s["two_views"] else "")
    )


def _all_lines(a: dict[str, Any]) -> list[str]:
    c, f = a["acceptance"], a["fused"]
    lines = [
        f"search: {a['search_success']:.1%} within {SUCCESS_MM:g} mm across, capture range "
        f"{a['capture_range_mm']:.0f} mm, {a['search_ms']:.0f} ms, {a['search_cpu_s']['median']:.2f} s of CPU, "
        f"at most {a['search_cpu_s']['max']:.2f}",
        f"search from +-30 deg, +-100 mm and +-60 mm: {a['wide_success']:.1%}",
        f"tracking (spine): {a['tracking_across_mm']['median']:.2f} mm across, 95 % "
        f"{a['tracking_across_mm']['p95']:.2f}; {a['tracking_ms']:.1f} ms a frame",
        f"bounds hold in {a['coverage']['image']:.1%} across and {a['coverage']['depth']:.1%} in depth",
        f"wrong poses (over 3 mm) called tracking: {_percent(c['wrong_called_tracking'])} of {c['wrong']}; "
        f"good ones: {_percent(c['good_called_tracking'])} of {c['good']}",
    ]  # fmt: skip
    if f["pairs"]:
        lines.append(
            f"a second view in the stream, joints 0.3 deg and 1 mm off: {f['mtre_mm']:.2f} mm in space, 95 % "
            f"{f['mtre_p95_mm']:.2f} (alone {f['alone_mm']:.2f}, {f['alone_p95_mm']:.2f}); bound "
            f"{f['bound_mm']:.1f} mm (alone {f['alone_bound_mm']:.1f}) holds in {f['held']:.1%} of {f['pairs']}"
        )
    return lines


def _field_line(field: dict[str, Any]) -> str:
    poses = field["tracking"]["poses"]
    tracked = (
        f"tracked {percentile(poses, 'across_mm', 50):.2f} mm across, 95 % {percentile(poses, 'across_mm', 95):.2f}, "
        f"{percentile(poses, 'mtre_mm', 50):.2f} in space, "
        if poses
        else ""
    )
    return (
        f"field of {field['share']:.0%} of the image ({field['field']}): {field['lost']:.1%} of it missing in the "
        f"field mask, {field['beyond']:.1%} too much; found {success_rate(field['search']):.0%}, {tracked}"
        f"bounds hold {bounds_held(poses)}, lost {field['tracking']['lost']}"
    )


def _bones_line(b: dict[str, Any]) -> str:
    return "a pose for each bone, one view: " + "; ".join(
        f"{kind} {b[kind]['own_mm']:.2f} mm across, 95 % {b[kind]['own_p95_mm']:.2f} (common pose "
        f"{b[kind]['common_mm']:.2f}), bound holds {b[kind]['held_across']:.0%} of {b[kind]['bones']}"
        for kind in ("moved", "still")
        if kind in b
    )


def wrist_figures(wrist: dict[str, Any]) -> tuple[dict[str, dict[str, float]], dict[str, float]]:
    """Figures of the wrist by its views, and of its searches.

    Returns
    -------
    views : dict
        By the cameras' numbers: ``right``, ``held_depth`` and ``accepted`` (shares), ``across_mm``, ``mtre_mm`` and
        ``ms`` (medians).
    auto : dict
        ``found``, ``wrong`` (accepted) and ``of``, ``ms`` (median).
    """
    views = {}
    for cameras in ([1, 2], [1], [2]):
        rows = [r for r in wrist["points"] if r["cameras"] == cameras]
        shares = {k: float(np.mean([r[k] for r in rows])) for k in ("held_depth", "accepted")}
        right = float(np.mean([r["mtre_mm"] < WRIST_RIGHT_MM for r in rows]))
        medians = {k: percentile(rows, k, 50) for k in ("across_mm", "mtre_mm", "ms")}
        views[str(cameras)] = {"right": right, **shares, **medians}
    rows = wrist["auto"]
    found = sum(r["mtre_mm"] < WRIST_FOUND_MM for r in rows)
    wrong = sum(r["accepted"] and r["mtre_mm"] > WRONG_MM for r in rows)
    return views, {"found": found, "wrong": wrong, "of": len(rows), "ms": percentile(rows, "ms", 50)}


def _wrist_lines(wrist: dict[str, Any]) -> list[str]:
    views, auto = wrist_figures(wrist)
    lines = [
        f"wrist, view {cameras}: {v['right']:.0%} within {WRIST_RIGHT_MM:g} mm; across {v['across_mm']:.2f} mm, in "
        f"space {v['mtre_mm']:.2f} mm, depth bound holds {v['held_depth']:.0%}, accepted {v['accepted']:.0%}, "
        f"{v['ms']:.0f} ms"
        for cameras, v in views.items()
    ]
    lines.append(
        f"wrist, --auto from 25 deg and 40 mm: {auto['found']} of {auto['of']} found, {auto['wrong']} wrong ones "
        f"accepted, {auto['ms']:.0f} ms"
    )
    return lines


def bounds_held(poses: list[dict[str, Any]]) -> str:
    """In how many of some poses both bounds hold, in words."""
    return f"{sum(r['held_across'] and r['held_depth'] for r in poses)} of {len(poses)}"


def _percent(fraction: float | None) -> str:
    return "none" if fraction is None else f"{fraction:.2%}"
