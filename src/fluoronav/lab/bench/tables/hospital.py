"""Tables of the hospital side: PACS and planning."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from statistics import median

from fluoronav.lab.bench.planning.segmentation import confidence_against_dice
from fluoronav.lab.bench.tables.pages import Row, read, table


@table("pacs")
def _pacs(bench: Path) -> Iterable[Row]:
    p = read(bench, "epyc-zen4/pacs")
    rss, p99, outage = p["rss_mb"], p["stream_p99_ms"], p["outage"]
    yield "", "measured", "asked"
    yield "78 slices of 512 x 512 taken, s", f"{p['receive_s']:.2f}", "1.5"
    yield "last C-STORE to SEG and SR by QIDO-RS, s", f"{p['first_result_s']:.2f}", "3"
    yield (
        "SEG of 256 x 256 x 256, 40 structures: BINARY, LABELMAP, s",
        f"{p['seg_binary_s']}, {p['seg_labelmap_s']}",
        "10, 4",
    )
    yield "memory at most: node, process that makes cases, MB", f"{rss['node']}, {rss['worker']}", "400"
    yield "lost, doubled: ten kills and the outage", f"{p['lost']}, {p['doubled']}", "0, 0"
    yield (
        f"archive down for {outage['minutes']:g} min, {outage['series']} series: all there after, s",
        outage["all_there_s"],
        "",
    )
    yield (
        "stream p99 alone, beside the node, ms",
        f"{p99['alone']}, {p99['beside']} ({p99['beside'] / p99['alone']:.2f} of alone)",
        "1.1",
    )


@table("planning")
def _planning(bench: Path) -> Iterable[Row]:
    p = read(bench, "epyc-zen4/planning")
    yield "", "measured", "asked"
    for name, subject in p["segmentation"]["subjects"].items():
        vertebrae = {s["name"]: s["dice"] for s in subject["structures"] if s["name"].startswith("vertebrae_")}
        dice = ", ".join(f"{name.removeprefix('vertebrae_')} {dice:.2f}" for name, dice in vertebrae.items())
        yield f"Dice of vertebrae, {name} (reference: {subject['reference']})", dice, "0.85, none under 0.80"
        yield (
            "its seconds; of CPU; peak, MiB",
            f"{subject['seconds']}; {subject['cpu_seconds']}; {subject['peak_mib']}",
            "60",
        )
    for kind, vertebrae in (("vertebrae", True), ("everything else", False)):
        found = confidence_against_dice(p["segmentation"]["subjects"], vertebrae=vertebrae)
        if found:
            yield (
                f"confidence and Dice of {kind} ({found['structures']}): rank correlation; Dice less confidence",
                f"{found['rank_correlation']}; {found['least']:+.2f} to {found['most']:+.2f}",
                "",
            )
    long = p["segmentation"]["long_scan"]
    yield f"scan of {' x '.join(map(str, long['voxels']))} voxels: peak, MiB", long["peak_mib"], "bounded"
    hand = p["screws"]["hand"]
    yield (
        "screws on hand-drawn masks: fit, A or B, seconds each",
        f"{hand['fit']} of {hand['pedicles']}, {100 * hand['a_or_b']:.0f} %, {hand['cpu_s']['median']:.2f}",
        "95 %, 0.5",
    )
    yield (
        "volume of cuts: largest relative change",
        f"{max(m['conservation_max'] for m in p['meshes'].values()):.0e}",
        "1e-4",
    )
    closed, labels = (sum(m[key] for m in p["meshes"].values()) for key in ("watertight", "labels"))
    yield "closed surfaces", f"{closed} of {labels}", "all"
    leg = p["measurements"]["synthetic_leg"]["error"]
    yield (
        "axes of a synthetic leg: largest error, degrees",
        f"{max(abs(v) for k, v in leg.items() if k != 'head_mm'):.2f}",
        "1",
    )
    page = p["page"]
    brush = page["brush_to_pixels_ms"]
    yield (
        "page: opening a case, s (the first time)",
        f"{median(page['open_ms']) / 1000:.1f} ({page['first_open_ms'] / 1000:.1f})",
        "3",
    )
    yield "page: brush to pixels, p50, p99, ms", f"{brush['p50']:.0f}, {brush['p99']:.0f}", "50"
    yield "page: undo after a reload, steps", page["undo_after_reload"], "20"
    for name, patient in p.get("surgery", {"patients": {}})["patients"].items():
        times = [one["change_to_numbers_ms"] for one in patient["changes"].values()]
        yield (
            f"page: change of a cut, move, margin, implant to numbers, {name}: p50 each; largest p99, ms",
            ", ".join(f"{t['p50']:.0f}" for t in times) + f"; {max(t['p99'] for t in times):.0f}",
            "150",
        )
    views, pairs = p["views"]["all"], p["views"]["all_pairs"]
    yield (
        "`plan views`: predicted over measured error, 8 views, 3 pairs",
        f"{views['ratio']:.2f}, {pairs['ratio']:.2f}",
        "0.8 to 1.2",
    )
    single = [v["predicted_mm"] / v["measured_mm"] for v in p["views"]["views"]]
    yield "... of a single view", f"{min(single):.2f} to {max(single):.2f}", "0.8 to 1.2"


@table("planning-network")
def _network(bench: Path) -> Iterable[Row]:
    p = read(bench, "epyc-zen4/planning-network")["network"]
    yield "Dice (mean distance of surfaces, mm)", "atlas", "network"
    for patient, subject in p["subjects"].items():
        for row in subject["structures"]:
            shown = (f"{row[who]['dice']:.2f} ({row[who]['mean_mm']:.1f})" for who in ("atlas", "network"))
            yield f"{patient}, {row['name'].removeprefix('vertebrae_')}", *shown
