"""Draws docs/images/house.png: the rooms by layer, who imports whom, and the four walks of docs/architecture.md.

    python docs/images/draw_house.py

Needs the extras `dev` (import-linter brings the import graph) and `bench` (matplotlib).
"""

from pathlib import Path

import grimp
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

HERE = Path(__file__).parent
STAGES = ("preprocessing", "registration", "detection", "tracking", "guidance", "view")
LAYERS = [
    ["cli"],
    ["lab"],
    ["display", "openigtlink", "recording", "calibration"],
    ["stream.pipeline"],
    [f"stream.{name}" for name in STAGES],
    ["site", "stream.frame"],
    ["imaging.registration", "imaging.projector", "imaging.inference", "imaging.xray"],
    ["case"],
    ["dicom", "wire"],
    ["geometry"],
]
# They import from every layer below: their arrows would hide the others.
TOP = ("cli", "lab")
# Modules that all stages share are drawn as one room.
SHARED = ("stream.frame", "stream.stage", "stream.alerts", "stream.priority")
WALKS = {
    "stream.registration": "1",
    "imaging.registration": "1",
    "dicom": "2",
    "stream.guidance": "3",
    "stream.pipeline": "3  4",
    "stream.frame": "4",
}
INK, PAPER, LINE, WALK = "#1b2631", "#fdfefe", "#85929e", "#ca6f1e"


def room_of(module: str) -> str | None:
    """The room that a module lies in; None for modules that belong to no room."""
    name = module.removeprefix("fluoronav.")
    if name in SHARED:
        return "stream.frame"
    parts = name.split(".")
    room = ".".join(parts[:2]) if parts[0] in ("stream", "imaging") else parts[0]
    return room if any(room in layer for layer in LAYERS) else None


def arrows() -> set[tuple[str, str]]:
    """Pairs of rooms of which the first imports the second."""
    graph = grimp.build_graph("fluoronav")
    pairs = set()
    for importer in graph.modules:
        for imported in graph.find_modules_directly_imported_by(importer):
            one, other = room_of(importer), room_of(imported)
            if one is not None and other is not None and one != other and one not in TOP:
                pairs.add((one, other))
    return pairs


def main() -> None:
    """Writes the picture."""
    figure, axis = plt.subplots(figsize=(12, 10), constrained_layout=True)
    places = {}
    for row, layer in enumerate(LAYERS):
        for k, room in enumerate(layer):
            places[room] = ((k + 1) / (len(layer) + 1) * 12, -1.15 * row)
    for one, other in sorted(arrows()):
        (x0, y0), (x1, y1) = places[one], places[other]
        style = "-|>" if y1 < y0 else "-"
        bend = 0.0 if abs(x0 - x1) < 3 else 0.08
        axis.add_patch(
            FancyArrowPatch(
                (x0, y0 - 0.26), (x1, y1 + 0.29), arrowstyle=style, mutation_scale=9, color=LINE, alpha=0.45, lw=0.9,
                connectionstyle=f"arc3,rad={bend}",
            )
        )  # fmt: skip
    for room, (x, y) in places.items():
        label = {"stream.frame": "stream/\nframe, stage, alerts"}.get(room, room.replace(".", "/\n"))
        width = 0.105 * max(map(len, label.split("\n"))) + 0.3
        walk = WALKS.get(room)
        axis.add_patch(
            FancyBboxPatch(
                (x - width / 2, y - 0.22), width, 0.44, boxstyle="round,pad=0.04", fc=PAPER, lw=2 if walk else 1,
                ec=WALK if walk else INK, zorder=3,
            )
        )  # fmt: skip
        axis.text(x, y, label, ha="center", va="center", fontsize=9.5, color=INK, zorder=4)
        if walk:
            axis.text(
                x + width / 2 + 0.08, y + 0.2, walk, fontsize=10, color=WALK, weight="bold", zorder=4, va="bottom"
            )
    axis.set_xlim(0, 12)
    axis.set_ylim(-1.15 * (len(LAYERS) - 1) - 0.6, 0.6)
    axis.axis("off")
    axis.text(6.9, -0.6, "cli and lab import from every layer below", fontsize=9, color=LINE, va="center")
    figure.savefig(HERE / "house.png", dpi=100)


if __name__ == "__main__":
    main()
