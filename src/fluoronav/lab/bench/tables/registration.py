"""Tables of the registration: its subjects, narrow fields, measures over all subjects, and the wrist."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from fluoronav.lab.bench.registration.report import (
    GOOD_MM,
    WRIST_RIGHT_MM,
    WRONG_MM,
    bounds_held,
    percentile,
    success_rate,
    wrist_figures,
)
from fluoronav.lab.bench.tables.pages import Row, read, table

_JSON = "epyc-zen4/registration"


@table("registration")
def _subjects(bench: Path) -> Iterable[Row]:
    yield (
        "subject", "found, %", "wide, %", "across the ray, median / 95 %, mm", "in space, mm",
        "across at 20 photons, mm", "lost", "2 views, in space, mm",
    )  # fmt: skip
    for s in read(bench, _JSON)["subjects"]:
        full, low = (t["poses"] for t in s["tracking"])
        found = (f"{100 * success_rate(s[starts]):.0f}" for starts in ("search", "wide"))
        space = f"{percentile(full, 'mtre_mm', 50):.2f}"
        two = f"{np.median(s['two_views']):.2f}" if s["two_views"] else "none"
        lost = sum(t["lost"] for t in s["tracking"])
        yield (
            s["name"],
            *found,
            _median_95(full, "across_mm"),
            space,
            _median_95(low, "across_mm"),
            f"{lost} of {lost + len(full) + len(low)}",
            two,
        )


@table("registration-fields")
def _fields(bench: Path) -> Iterable[Row]:
    yield (
        "field, of the image", "left out, %", "beyond, %", "found, %", "across the ray, median / 95 %, mm",
        "in space, mm", "bounds hold", "lost",
    )  # fmt: skip
    for f in (field for s in read(bench, _JSON)["subjects"] for field in s["narrow"]):
        poses = f["tracking"]["poses"]
        shares = (f"{100 * share:.1f}" for share in (f["lost"], f["beyond"]))
        tracked = (_median_95(poses, "across_mm"), f"{percentile(poses, 'mtre_mm', 50):.2f}") if poses else ("", "")
        found = f"{100 * success_rate(f['search']):.0f}"
        yield (
            f"{100 * f['share']:.0f} % ({f['field']})",
            *shares,
            found,
            *tracked,
            bounds_held(poses),
            f["tracking"]["lost"],
        )


@table("registration-measures")
def _measures(bench: Path) -> Iterable[Row]:
    result = read(bench, _JSON)
    a = result["all"]
    accepted, second, across = a["acceptance"], a["fused"], a["tracking_across_mm"]
    yield "measure", "value"
    yield "capture range; time of a search", f"{a['capture_range_mm']:.0f} mm; {a['search_ms']:.0f} ms"
    yield (
        "tracking (spine), across the ray",
        f"{across['median']:.2f} / {across['p95']:.2f} mm; {a['tracking_ms']:.1f} ms a frame",
    )
    yield "bounds hold, across and in depth", " and ".join(f"{100 * v:.1f} %" for v in a["coverage"].values())
    for what, kind in (
        (f"wrong poses (over {WRONG_MM:g} mm)", "wrong"),
        (f"right poses (under {GOOD_MM:g} mm)", "good"),
    ):
        yield f"{what} called tracking", f"{100 * accepted[f'{kind}_called_tracking']:.1f} % of {accepted[kind]}"
    for name, view in (("", "mtre"), (", the same view alone", "alone")):
        bound = second["bound_mm" if view == "mtre" else "alone_bound_mm"]
        value = f"{second[f'{view}_mm']:.2f} / {second[f'{view}_p95_mm']:.2f} mm; bound {bound:.1f} mm"
        yield f"a second view in the stream, in space{name}", value
    yield from _bones(result["bones"])
    yield from _wrist(result["wrist"])


def _bones(bones: dict[str, Any]) -> Iterable[Row]:
    for name, kind in (("the moved bone", "moved"), ("its neighbours", "still")):
        b = bones[kind]
        held = f"bound holds in {100 * b['held_across']:.0f} % of {b['bones']}"
        value = f"{b['own_mm']:.2f} / {b['own_p95_mm']:.2f} mm (common pose {b['common_mm']:.2f}); {held}"
        yield f"a pose for each bone: {name}, across the ray", value


def _wrist(wrist: dict[str, Any]) -> Iterable[Row]:
    views, auto = wrist_figures(wrist)
    for cameras, v in views.items():
        where = f"{v['across_mm']:.2f} mm across, {v['mtre_mm']:.2f} mm in space"
        shares = f"{100 * v['right']:.0f} % within {WRIST_RIGHT_MM:g} mm, {100 * v['accepted']:.0f} % accepted"
        yield f"wrist, view {cameras}", f"{where}; {shares}; {v['ms']:.0f} ms"
    value = f"{auto['found']} of {auto['of']} found, {auto['wrong']} wrong accepted; {auto['ms']:.0f} ms"
    yield "wrist, `--auto` from 25 deg and 40 mm", value


def _median_95(rows: list[dict[str, Any]], key: str) -> str:
    return f"{percentile(rows, key, 50):.2f} / {percentile(rows, key, 95):.2f}"
