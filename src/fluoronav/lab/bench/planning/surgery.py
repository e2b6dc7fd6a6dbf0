"""The planned surgery on the workspace's page, in headless Chromium: from a change to its numbers."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import SimpleITK as sitk
import yaml

from fluoronav.lab.bench.chromium import SIZE, summary
from fluoronav.lab.bench.planning.served import served

# Name of each patient: folder of its `ct.nii.gz` and `labels.nii.gz`, and the bone that is cut. Both have the ids of
# `chest/labels.csv`.
PATIENTS = {"chest": ("chest", "vertebrae_T8"), "patient_b": ("planning/patient_b", "vertebrae_L1")}
LESION, LESION_LABEL, LESION_MM = "lesion_1", 255, 12.0  # a ball of this radius, drawn in front of the bone's middle
STEPS = 40  # of a drag, and of a value
STEP_MS = 33  # between two of them: 30 a second
_PAGE = "fluoronavWorkspace.view"


def make_case(data: Path, name: str, store: Path) -> dict[str, Any]:
    """A case of a patient with a lesion; its items to change, by kind. `store` is the case store."""
    folder, bone = PATIENTS[name]
    case = store / name
    case.mkdir(parents=True)
    shutil.copyfile(data / folder / "ct.nii.gz", case / "ct.nii.gz")
    with (data / "chest/labels.csv").open() as file:
        ids = {row["structure"]: int(row["id"]) for row in csv.DictReader(file)}
    labels = sitk.Cast(sitk.ReadImage(str(data / folder / "labels.nii.gz")), sitk.sitkUInt8)
    voxels = sitk.GetArrayFromImage(labels)
    at_bone = np.argwhere(voxels == ids[bone])[:, ::-1]
    middle = np.array(labels.TransformContinuousIndexToPhysicalPoint(at_bone.mean(0).tolist()))
    _draw_ball(voxels, labels, middle + (0, -22.0, 0))
    drawn = sitk.GetImageFromArray(voxels)
    drawn.CopyInformation(labels)
    sitk.WriteImage(drawn, str(case / "labels.nii.gz"))
    there = set(np.unique(voxels).tolist())
    structures = [{"name": n, "label": k} for n, k in ids.items() if k in there]
    structures.append({"name": LESION, "label": LESION_LABEL})
    prior = {"isocentre_ct": middle.tolist(), "source_to_isocentre_mm": 620.0}
    content = {"name": name, "ct": "ct.nii.gz", "labels": "labels.nii.gz", "structures": structures, "prior": prior}
    (case / "case.yaml").write_text(yaml.safe_dump(content))
    return _items(bone, middle)


def _draw_ball(voxels: np.ndarray, grid: sitk.Image, middle: np.ndarray) -> None:
    """Draws the lesion into a label map (z, y, x)."""
    at = np.array(grid.TransformPhysicalPointToContinuousIndex(middle.tolist()))
    spacing = np.array(grid.GetSpacing())
    low, high = np.floor(at - LESION_MM / spacing).astype(int), np.ceil(at + LESION_MM / spacing).astype(int) + 1
    box = tuple(slice(max(a, 0), b) for a, b in zip(low[::-1], high[::-1], strict=True))
    index = np.moveaxis(np.mgrid[box], 0, -1)[..., ::-1]
    voxels[box][np.linalg.norm((index - at) * spacing, axis=-1) <= LESION_MM] = LESION_LABEL


def _items(bone: str, middle: np.ndarray) -> dict[str, Any]:
    """A wedge with a piece that is moved, a resection, and a plate on a cut."""
    x, y, z = middle.tolist()
    tilt = [0.0, float(np.sin(0.1)), float(np.cos(0.1))]
    low = {"structure": bone, "point_ct": [x, y, z - 5], "normal_ct": [0, 0, 1], "kerf_mm": 1.2, "wedge_to": "high"}
    high = {"structure": bone, "point_ct": [x, y, z + 3], "normal_ct": tilt, "kerf_mm": 1.2}
    T_moved = [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, -4], [0, 0, 0, 1]]
    T_implant = [[1, 0, 0, x], [0, 1, 0, y], [0, 0, 1, z], [0, 0, 0, 1]]
    plate = {"family": "plate", "size": "3-hole", "T_ct_implant": T_implant, "structure": bone}
    kinds = {
        "low": ("cut", low), "high": ("cut", high), "moved": ("move", {"cut": "high", "T_moved_ct": T_moved}),
        "margin": ("resection", {"lesion": LESION, "margin_mm": 4}), "plate": ("implant", plate),
    }  # fmt: skip
    return {name: {"kind": kind, "id": name, "origin": "drawn", **keys} for name, (kind, keys) in kinds.items()}


def measure(data: Path, say: Callable[[str], object]) -> dict[str, Any]:
    """Measures the planned surgery on the page.

    Parameters
    ----------
    data : Path
        The folder of real data; `chest/` and `planning/patient_b/` are read.
    say : callable
        Takes a text for each step.

    Raises
    ------
    OSError
        Chromium is not installed.
    """
    out = {}
    with TemporaryDirectory() as folder:
        items = {name: make_case(data, name, Path(folder)) for name in PATIENTS}
        with served(Path(folder)) as (address, new_page):
            for name in PATIENTS:
                say(f"  {name}: {STEPS} changes each of a cut, a move, a margin and an implant")
                page = new_page()
                out[name] = _measured(page, f"{address}#{name}", name, items[name])
                page.close()
    return {"patients": out, "step_ms": STEP_MS, "size_px": SIZE}


def _measured(page, address: str, name: str, items: dict[str, Any]) -> dict[str, Any]:
    page.set_default_timeout(120_000)
    page.goto(address)
    page.wait_for_selector(f"body[data-ready={name}]")
    page.evaluate(f"{_PAGE}.surfacesShown")
    verb_s = _verb(page, items)
    out: dict[str, Any] = {}
    for item, change in (("low", _drag), ("moved", _step), ("margin", _step), ("plate", _step)):
        page.evaluate(f"(id) => {_PAGE}.plan.show(id)", item)
        page.wait_for_selector("#surgery label")
        _settled(page)
        page.evaluate(f"() => {{ {_PAGE}.timing.changes_ms.length = {_PAGE}.timing.settled_ms.length = 0; }}")
        change(page, item)
        _settled(page)
        page.wait_for_timeout(200)  # the frame after which the time is noted
        out[items[item]["kind"]] = {
            "change_to_numbers_ms": summary(page.evaluate(f"{_PAGE}.timing.changes_ms")),
            "let_go_to_exact_ms": summary(page.evaluate(f"{_PAGE}.timing.settled_ms")),
        }
    triangles = page.evaluate(f"{_PAGE}.plan.live.bodies.reduce((n, b) => n + b.triangles.length / 3, 0)")
    return {"changes": out, "verb_s": verb_s, "drawn_triangles": triangles}


def _verb(page, items: dict[str, Any]) -> float:
    """Puts the items into the plan; seconds from asking for `fluoronav plan simulate` to its result on the page."""
    page.evaluate(f"(put) => {_PAGE}.plan.change({{ put }})", list(items.values()))
    page.click("[data-tab=Plan]")
    _settled(page)
    return page.evaluate(
        f"async () => {{ const t = performance.now(); await {_PAGE}.jobs.finished('simulate');"
        " return (performance.now() - t) / 1000; }"
    )


def _settled(page) -> None:
    """Waits until the plan holds what was changed, and its numbers are exact."""
    page.wait_for_timeout(100)
    page.wait_for_function(
        f"() => {{ const {{ live }} = {_PAGE}.plan; return !live.drafts.size && !live.asking && live.report?.exact; }}"
    )


def _drag(page, item: str) -> None:
    """Drags the square of a cut in the sagittal view."""
    at = page.evaluate(f"""() => {{
      const cut = {_PAGE}.cuts.cuts[1], {{ left, top }} = cut.box.getBoundingClientRect();
      const [x, y] = cut.viewport.worldToCanvas({_PAGE}.plan.live.grips(cut)[0].at);
      return [left + x, top + y];
    }}""")
    page.mouse.move(*at)
    page.mouse.down()
    for k in range(1, STEPS + 1):
        page.mouse.move(at[0], at[1] - 4 * np.sin(k / 6))
        page.wait_for_timeout(STEP_MS)
    page.mouse.up()


def _step(page, item: str) -> None:
    """Steps the first field of an item with the arrow keys."""
    page.locator("#surgery input").first.focus()
    for k in range(STEPS):
        page.keyboard.press("ArrowUp" if k % 8 < 4 else "ArrowDown")
        page.wait_for_timeout(STEP_MS)


def table(result: dict[str, Any]) -> str:
    """The figures as text."""
    lines = [
        f"planned surgery on the page, changed every {result['step_ms']} ms, Chromium without a graphics processor"
    ]
    for name, patient in result["patients"].items():
        for kind, one in patient["changes"].items():
            numbers, exact = one["change_to_numbers_ms"], one["let_go_to_exact_ms"]
            lines.append(
                f"  {name}, {kind}: change to numbers p50 {numbers['p50']:.0f} ms, p99 {numbers['p99']:.0f} ms of "
                f"{numbers['count']}; exact {exact['p50']:.0f} ms after letting go"
            )
        lines.append(f"  {name}: the verb `plan simulate` takes {patient['verb_s']:.1f} s")
    return "\n".join(lines)
