"""The table of the witness in the picture."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from fluoronav.lab.bench.tables.pages import Row, read, table

_KINDS = (
    ("pose", "pose, across the ray"), ("tool_across_its_shaft", "tool, across its shaft"),
    ("tool_any_way", "tool, any way across the ray"),
)  # fmt: skip
_FILE = "epyc-zen4/witness"
_SIZES_MM = (2, 3, 5)


@table("witness")
def _witness(bench: Path) -> Iterable[Row]:
    yield "put wrong by", *(f"{mm} mm" for mm in _SIZES_MM)
    if not (bench / f"{_FILE}.json").exists():
        yield "not measured", "", "", ""
        return
    measured = read(bench, _FILE)
    for kind, words in _KINDS:
        yield words, *(_found(measured["wrong"][f"{kind}_{mm}_mm"]) for mm in _SIZES_MM)
    right, ms = measured["right"], measured["ms"]
    said = right["false_alarms"]
    yield (
        f"false doubts of {right['frames']:,} right frames",
        f"{said['pose']} of the pose",
        f"{said['tool']} of a tool",
        "",
    )
    yield "CPU ms a frame", f"{ms['median']:.2f} median", f"{ms['p99']:.2f} in 99 of 100", ""


def _found(wrong: dict[str, float]) -> str:
    return f"{100 * wrong['found']:.1f} % of {wrong['trials']}"
