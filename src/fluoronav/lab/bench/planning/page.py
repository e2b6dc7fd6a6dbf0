"""The workspace's page in headless Chromium, on the chest CT: opening, brush to pixels, undo after a reload."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml

from fluoronav.lab.bench.chromium import SIZE, heap_mb, summary
from fluoronav.lab.bench.planning.served import served

CASE = "chest"
STROKES = 24
STEPS = 25  # of each stroke
STEP_MS = 16  # between two movements of the pointer: 60 a second
REDONE = 20  # undo steps after the reload
LABEL = "vertebrae_T9"


def make_case(chest: Path, folder: Path) -> Path:
    """A case of the chest CT with its label map; `folder` is the case store."""
    case = folder / CASE
    case.mkdir(parents=True)
    for name in ("ct.nii.gz", "labels.nii.gz"):
        shutil.copyfile(chest / name, case / name)
    with (chest / "labels.csv").open() as file:
        structures = [{"name": row["structure"], "label": int(row["id"])} for row in csv.DictReader(file)]
    prior = {"isocentre_ct": [0.0, 0.0, -180.0], "source_to_isocentre_mm": 620.0}
    content = {"name": CASE, "ct": "ct.nii.gz", "labels": "labels.nii.gz", "structures": structures, "prior": prior}
    (case / "case.yaml").write_text(yaml.safe_dump(content))
    return case


def measure(data: Path, say: Callable[[str], object]) -> dict[str, Any]:
    """Measures the page.

    Parameters
    ----------
    data : Path
        The folder of real data; `chest/` is read.
    say : callable
        Takes a text for each step.

    Raises
    ------
    OSError
        Chromium is not installed.
    """
    with TemporaryDirectory() as folder:
        make_case(data / CASE, Path(folder))
        with served(Path(folder)) as (address, new_page):
            return _measured(new_page(), address, say)


def _measured(page, address: str, say: Callable[[str], object]) -> dict[str, Any]:
    say("  first opening: the server unpacks the CT and the label map")
    _open(page, address)
    first_ms = page.evaluate("fluoronavWorkspace.view.timing.open_ms[0]")
    opened = []
    for _ in range(3):
        page.reload()
        _ready(page)
        opened.append(page.evaluate("fluoronavWorkspace.view.timing.open_ms[0]"))
    say(f"  {STROKES} strokes of the brush")
    page.click("[data-structure] b >> text=Vertebra T9")
    _draw(page)
    strokes = summary(page.evaluate("fluoronavWorkspace.view.timing.strokes_ms"))
    drawn = _checksum(page)
    say(f"  {REDONE} undo and redo steps after a reload")
    page.reload()
    _ready(page)
    same = _checksum(page) == drawn
    _press(page, "Control+z", REDONE)
    undone = _checksum(page) != drawn
    _press(page, "Control+y", REDONE)
    whole = same and undone and _checksum(page) == drawn
    return {
        "first_open_ms": first_ms, "open_ms": sorted(opened), "brush_to_pixels_ms": strokes,
        "undo_after_reload": REDONE if whole else 0, "heap_mb": heap_mb(page), "size_px": SIZE,
    }  # fmt: skip


def _open(page, address: str) -> None:
    page.goto(address)
    page.click(f"[data-case={CASE}]")
    _ready(page)


def _ready(page) -> None:
    page.wait_for_selector(f"body[data-ready={CASE}]", timeout=120_000)
    page.wait_for_timeout(300)  # the two frames after which the time is noted


def _draw(page) -> None:
    page.keyboard.press("2")
    box = page.locator("[data-view=axial] .cornerstone").bounding_box()
    x, y = box["x"] + box["width"] * 0.3, box["y"] + box["height"] * 0.25
    across, down = box["width"] * 0.4 / STEPS, box["height"] * 0.5 / STROKES
    for stroke in range(STROKES):
        page.mouse.move(x, y + stroke * down)
        page.mouse.down()
        for step in range(STEPS):
            page.mouse.move(x + step * across, y + stroke * down + step % 5)
            page.wait_for_timeout(STEP_MS)
        page.mouse.up()
    page.evaluate("fluoronavWorkspace.view.session.waiting")


def _press(page, keys: str, times: int) -> None:
    for _ in range(times):
        page.keyboard.press(keys)
        page.evaluate("fluoronavWorkspace.view.session.waiting")


def _checksum(page) -> int:
    """Of the label map on the page."""
    return page.evaluate(
        "() => fluoronavWorkspace.view.session.labels.reduce((sum, x, k) => (sum + x * (k % 65521)) % 4294967291, 0)"
    )


def table(result: dict[str, Any]) -> str:
    """The figures as text."""
    opened, brush = result["open_ms"], result["brush_to_pixels_ms"]
    return "\n".join(
        (
            f"page of the workspace, chest CT, {result['size_px']['width']} x {result['size_px']['height']}, Chromium "
            "without a graphics processor",
            f"  opening a case: {opened[len(opened) // 2] / 1000:.1f} s (median of {len(opened)}; the first time "
            f"{result['first_open_ms'] / 1000:.1f} s, with unpacking)",
            f"  brush to pixels: p50 {brush['p50']:.0f} ms, p99 {brush['p99']:.0f} ms of {brush['count']}",
            f"  undo after a reload: {result['undo_after_reload']} steps; heap {result['heap_mb']:.0f} MB",
        )
    )
