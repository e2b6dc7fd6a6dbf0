"""Measures the PACS node beside a real archive (Orthanc), part by part; method: docs/benches.md."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from fluoronav.lab import machine
from fluoronav.lab.bench.pacs.crash import bench_crash
from fluoronav.lab.bench.pacs.objects import measure_objects
from fluoronav.lab.bench.pacs.outage import bench_outage
from fluoronav.lab.bench.pacs.receive import bench_receive
from fluoronav.lab.bench.pacs.rig import check_installed
from fluoronav.lab.bench.pacs.series import Template, template
from fluoronav.lab.bench.pacs.stream import bench_stream
from fluoronav.pacs.quiet import quiet_libraries
from fluoronav.site.launch import LaunchFile

PARTS = ("receive", "objects", "crash", "outage", "stream")
_WITH_ARCHIVE = ("receive", "crash", "outage")
# The JSON always has these; None where the part was not measured.
_FIGURES = (
    "receive_s", "first_result_s", "seg_binary_s", "seg_labelmap_s", "rss_mb", "lost", "doubled", "stream_p99_ms",
)  # fmt: skip
# What is asked of each, as the table says it.
_ASKED = {
    "receive_s": ("78 slices of 512 x 512 taken, s", "1.5"),
    "first_result_s": ("last C-STORE to SEG and SR by QIDO-RS, s", "3"),
    "seg_binary_s": ("SEG BINARY, 256 x 256 x 256, 40 structures, s", "10"),
    "seg_labelmap_s": ("SEG LABELMAP, the same, s", "4"),
    "lost": ("lost in ten crashes, and while the archive was down", "0"),
    "doubled": ("doubled in the same", "0"),
}


def bench_pacs(
    parts: Sequence[str],
    launch: LaunchFile,
    runs: int,
    frames: int,
    pairs: int,
    minutes: float,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Runs the parts, one after another.

    Parameters
    ----------
    parts : sequence of str
        Of :data:`PARTS`.
    launch : LaunchFile
        Of the live stream.
    runs : int
        Series of `receive`.
    frames, pairs : int
        Of `stream`: frames of a run, and runs of each kind.
    minutes : float
        Of `outage`: for which the archive is down.
    say : callable

    Raises
    ------
    PacsBenchError
        Orthanc is not installed, or something did not happen.
    """
    if any(part in _WITH_ARCHIVE for part in parts):
        check_installed()
    quiet_libraries()
    result: dict[str, Any] = dict.fromkeys(_FIGURES)
    with tempfile.TemporaryDirectory(prefix="fluoronav-pacs-") as name:
        folder = Path(name)
        series = _template(say) if set(parts) != {"objects"} else None
        for part in (p for p in PARTS if p in parts):
            say(f"{part}:")
            if part == "objects":
                say("label maps of 40 ellipsoids, made by the bench")
                result |= measure_objects()
                continue
            assert series is not None
            place = folder / part
            place.mkdir()
            if part == "receive":
                result |= bench_receive(place, series, runs, say)
            elif part == "crash":
                _add(result, bench_crash(place, series, say))
            elif part == "outage":
                _add(result, bench_outage(place, series, say, minutes))
            else:
                result |= bench_stream(place, series, launch, frames, pairs, say)
    result["settings"] = {
        "parts": list(parts), "runs": runs, "frames": frames, "pairs": pairs, "minutes": minutes,
        "stages": list(launch.stages),
    }  # fmt: skip
    result["machine"] = machine.description()
    return result


def _add(result: dict[str, Any], part: dict[str, Any]) -> None:
    """Adds the figures of a part; what was lost and doubled is that of all parts together."""
    for key in ("lost", "doubled"):
        part[key] += result[key] or 0
    result |= part


def _template(say: Callable[[str], None]) -> Template:
    say("making a series of the embedded case; its structures stand for the analysis, which is not timed")
    return template()


def table(result: dict[str, Any]) -> str:
    """The figures with what is asked of them."""
    rows = [("", "measured", "asked")]
    rows += [(text, f"{result[key]:g}", most) for key, (text, most) in _ASKED.items() if result[key] is not None]
    if (outage := result.get("outage")) is not None:
        what = f"archive down for {outage['minutes']:g} min, {outage['series']} series meanwhile: all there after, s"
        rows.append((what, f"{outage['all_there_s']:g}", ""))
    if (rss := result["rss_mb"]) is not None:
        rows.append(
            ("memory at most: node, and process that makes cases, MB", f"{rss['node']}, {rss['worker']}", "400")
        )
    if (p99 := result["stream_p99_ms"]) is not None:
        ratio = f"{p99['beside'] / p99['alone']:.2f} of alone"
        rows.append(("stream p99 alone, and beside the node, ms", f"{p99['alone']}, {p99['beside']} ({ratio})", "1.1"))
    widths = [max(len(row[k]) for row in rows) for k in range(3)]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows)
