"""Tables of the hospital side: PACS and planning."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

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
