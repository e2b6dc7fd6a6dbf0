"""The figures of the instruments' bench as text."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fluoronav.lab.bench.instruments.figures import LIMITS


def table(result: dict[str, Any]) -> str:
    """The figures as text."""
    lines = [
        f"{'photons':>8} {'kind':8}{'shown':>6}{'found':>8}{'(95 %)':>12}{'tip in sight':>14}{'tip med / 95 %':>18}"
        f"{'direction':>11}{'kind right':>12}{'false a frame':>15}",
        *(line for dose in result["by_dose"] for line in _kind_lines(dose)),
        *(_bent_line(dose) for dose in result["by_dose"]),
        *(_false_line(dose) for dose in result["by_dose"]),
        f"real frames without instruments: {result['real']['false']} false in {result['real']['frames']}",
        f"tip at its own depth: median {_px(result['tip_mm']['median'])} mm, 95 % {_px(result['tip_mm']['p95'])}",
        *(line for m in result["moving"] for line in _moving_lines(m)),
        *(_depth_line(name, d) for name, d in result["depth_mm"].items() if d["mm"] is not None),
        _drift_line(result["drift"]),
        f"{result['ms']:.1f} ms a frame",
        _alerts_line(result["alerts"]),
    ]
    return "\n".join(lines)


def _px(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _kind_lines(dose: dict[str, Any]) -> Iterator[str]:
    for kind, f in (("all", dose | {"instruments": dose["count"]}), *dose["kinds"].items()):
        right = "-" if f["kind_right"] is None else f"{f['kind_right']:.0%}"
        low, high = f["detection_rate_95"]
        yield (
            f"{dose['photons']:8g} {kind:8}{f['instruments']:6}{f['detection_rate']:8.1%}"
            f"{f'{low:.0%} to {high:.0%}':>12}{f['detection_rate_tip_in_sight']:14.1%}"
            f"{_px(f['tip_px']['median']):>9} / {_px(f['tip_px']['p95'])} px{_px(f['direction_deg']):>9}°{right:>12}"
            f"{f['false_per_frame']:15.4f}"
        )


def _bent_line(dose: dict[str, Any]) -> str:
    b = dose["bent"]
    return (
        f"bent by {LIMITS.bent_px:g} px or more, {dose['photons']:g} photons: {b['called_bent']:.0%} of "
        f"{b['count']} called bent, off by {_px(b['px_off'])} px (median); of "
        f"{b['straight']} straight ones {b['straight_called_bent']:.1%}"
    )


def _false_line(dose: dict[str, Any]) -> str:
    low, high = dose["false_per_frame_95"]
    return (
        f"false, {dose['photons']:g} photons: {dose['false_per_frame']:.4f} a frame (95 %: {low:.4f} to {high:.4f}), "
        f"{dose['other_end_per_frame']:.4f} of it the other end of an instrument"
    )


def _moving_lines(m: dict[str, Any]) -> Iterator[str]:
    yield _moving_line(m, f"{m['photons']:g} photons")
    yield _moving_line(m["whole"], "the same in looks at whole frames")


def _moving_line(m: dict[str, Any], which: str) -> str:
    return (
        f"moving, {which}, {m['frames']} frames of {m['sequences']} scenes: {m['shown']:.1%} "
        f"shown (95 %: {m['shown_95'][0]:.1%} to {m['shown_95'][1]:.1%}; {m['shown_tip_in_sight']:.1%} with the "
        f"tip in sight), tip {_px(m['tip_px']['median'])} / {_px(m['tip_px']['p95'])} px, {m['switches']} changes of "
        f"identity, {m['false_per_frame']:.4f} false a frame ({m['false_per_1000_frames']:.1f} different ones in "
        "1000 frames)"
    )


def _depth_line(name: str, d: dict[str, Any]) -> str:
    return (
        f"tip in space by {name.replace('_', ' ')}: median {d['mm']['median']:.2f} mm, 95 % {d['mm']['p95']:.2f} "
        f"(stated {d['sigma_mm']:.2f}, 1 sigma; held {d['held']:.0%} of {d['count']})"
    )


def _drift_line(d: dict[str, Any]) -> str:
    return (
        f"drift of 2 mm: noticed after {d['noticed_frames']['median']:.0f} frames (at most "
        f"{d['noticed_frames']['max']}), then {d['corrected_mm']['median']:.2f} mm, 95 % "
        f"{d['corrected_mm']['p95']:.2f}; unnoticed {d['unnoticed']} of {d['runs']}"
    )


def _alerts_line(a: dict[str, Any]) -> str:
    return (
        f"proximity alerts over {a['approaches']} approaches: {a['missed']:.2%} missed of {a['due']}, {a['late']:.2%} "
        f"more than a frame late, {a['false']:.2%} false of {a['raised']}, flutter in {a['flutter']:.2%}"
    )
