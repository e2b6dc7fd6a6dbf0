"""Cases with inconsistent or changed parts: labels, identity, cache, units."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
import zmq
from numpy.typing import NDArray

from fluoronav.case import load_case
from fluoronav.geometry import exp_so3
from fluoronav.lab.bench.faults.command import Ended, all_of, fluoronav, refused_with
from fluoronav.lab.bench.faults.place import Place
from fluoronav.lab.bench.faults.row import BenchError, Fault, NotHere, Outcome
from fluoronav.lab.bench.faults.scans import CORD, T8, build, case_id, crop, embedded, exact_ct, write_case
from fluoronav.lab.simulation.rig import free_endpoints
from fluoronav.wire import encode
from fluoronav.wire.values import PROTOCOL_VERSION

Float = NDArray[np.float64]

_TOOL = {"id": "wire", "kind": "k-wire", "diameter_mm": 2, "length_mm": 150}
_TIP_MM, _PIVOT_MM = np.array([0.0, 0.0, 120.0]), np.array([100.0, -40.0, 900.0])


@dataclass(frozen=True)
class CaseFaults:
    """How the faults are made; chosen."""

    tip_within_mm: float = 0.5  # error of a calibrated tip
    pivot_s: float = 2.0  # of a pivot calibration
    each_s: float = 0.02  # between poses
    tilt_rad: float = np.pi / 6  # of the tool in its dimple
    round_hz: float = 0.9  # of its rotation
    swing_hz: float = 0.37  # of its tilt
    poison_hundredths: int = 20_000  # of a mm, added to a cached distance field


LIMITS = CaseFaults()
# Points near the cord of the crop, LPS mm.
_PROBES_CT = np.array([[0.0, 95.0, -158.5], [10.0, 90.0, -150.0], [-15.0, 100.0, -165.0]])


def _labels_mirrored(place: Place) -> Outcome:
    """A label map that covers a part of the CT, mirrored within it."""
    folder = place.folder()
    sitk.WriteImage(embedded("ct"), str(folder / "ct.nrrd"))
    labels = crop("labels")
    mirrored = sitk.GetImageFromArray(sitk.GetArrayFromImage(labels)[:, :, ::-1])
    mirrored.CopyInformation(labels)
    parts = {}
    for name, image in (("as it is", labels), ("mirrored", mirrored)):
        sitk.WriteImage(image, str(folder / "labels.nrrd"))
        case = write_case(
            folder, "ct.nrrd", labels="labels.nrrd", structures=[T8, CORD], rigid={"structures": [T8["name"]]}
        )
        ended = build(folder, case, cache=folder / "cache")
        if name == "mirrored":
            parts[name] = refused_with(ended, "labels.nrrd", "exchanged", "mirrored")
        else:
            parts[name] = _built(ended)
    return all_of(parts)


def _id_covers_geometry(place: Place) -> Outcome:
    """The same voxels with other geometry: another case, or refused. A copy in another folder is the same case."""
    ct, labels = exact_ct(), crop("labels")
    spacing, origin = ct.GetSpacing(), ct.GetOrigin()
    labels.SetSpacing(spacing)
    labels.SetOrigin(origin)
    wider, moved, turned, elsewhere, cm = (sitk.Image(ct) for _ in range(5))
    wider.SetSpacing([1.0, *spacing[1:]])
    moved.SetOrigin([origin[0] + 5, *origin[1:]])
    turned.SetDirection([-1, 0, 0, 0, -1, 0, 0, 0, 1])
    cm.SetSpacing([s / 10 for s in spacing])
    cm.SetOrigin([o / 10 for o in origin])
    moved_labels = sitk.Image(labels)
    moved_labels.SetOrigin([origin[0] + 0.75, *origin[1:]])
    variants = {
        "as it is": (ct, labels), "copied": (elsewhere, labels), "labels moved": (ct, moved_labels),
        "wider": (wider, None), "moved": (moved, None), "turned": (turned, None), "in cm": (cm, None),
        "without labels": (ct, None),
    }  # fmt: skip
    ids: dict[str, str | None] = {}
    outcome = Outcome()
    for name, (image, map_) in variants.items():
        folder = place.folder()
        sitk.WriteImage(image, str(folder / "ct.nrrd"))
        more: dict[str, Any] = {}
        if map_ is not None:
            sitk.WriteImage(map_, str(folder / "labels.nrrd"))
            more = {"labels": "labels.nrrd", "structures": [CORD]}
        ended = build(folder, write_case(folder, "ct.nrrd", **more), cache=folder / "cache")
        ids[name] = case_id(ended)
        if ids[name] is None and name != "in cm":
            outcome.problems.append(f"{name}: no case: {ended.last}")
    if ids["copied"] != ids["as it is"]:
        outcome.problems.append("a copy is another case")
    seen: dict[str, str] = {}
    for name, id in ids.items():
        if id is None or name == "copied":
            continue
        if id in seen:
            outcome.problems.append(f"{name!r} has the id of {seen[id]!r}")
        seen.setdefault(id, name)
    refused = ", ".join(name for name, id in ids.items() if id is None)
    outcome.seen = f"{len(seen)} ids of {len(ids) - 1} cases" + (f", refused {refused}" if refused else "")
    return outcome


def _poisoned_cache(place: Place) -> Outcome:
    """A cached distance field with 200 mm more outside the cord: for `case build`, then for loading the case."""
    folder = place.folder()
    cache = folder / "cache"
    sitk.WriteImage(crop("ct"), str(folder / "ct.nrrd"))
    sitk.WriteImage(crop("labels"), str(folder / "labels.nrrd"))
    case = write_case(folder, "ct.nrrd", labels="labels.nrrd", structures=[CORD])
    first = build(folder, case, cache=cache)
    if first.code != 0:
        raise BenchError(f"the case cannot be built: {first.last}")
    fields = list(cache.rglob("*.npy"))
    if not fields:
        raise NotHere("this system's cache cannot be laid elsewhere")
    (field,) = fields
    good = field.read_bytes()
    right = _distances_mm(case, field.parent)
    quiet = build(folder, case, cache=cache)
    outcome = Outcome()
    if "computed again" in quiet.text:
        outcome.problems.append("a good field is not believed")
    _poison(field)
    ended = build(folder, case, cache=cache)
    outcome.seen = next((line.strip() for line in ended.text.splitlines() if "cached distance field" in line), "")
    if ended.code != 0:
        outcome.problems.append(f"no case: {ended.last}")
    if outcome.seen and field.name in outcome.seen:
        outcome.said_after_ms = ended.seconds * 1000
    else:
        outcome.problems.append("nothing is said of it")
    if field.read_bytes() != good:
        outcome.problems.append("it stays in the cache")
        field.write_bytes(good)
    _poison(field)
    wrong = float(np.abs(_distances_mm(case, field.parent) - right).max())
    if wrong > 0:
        outcome.problems.append(f"a distance is {wrong:.1f} mm wrong")
    return outcome


def _poison(field: Path) -> None:
    """Changes distances outside the structure only, so that signs stay; keeps what follows the array in the file."""
    with field.open("rb") as file:
        content, rest = np.load(file).astype(np.int32), file.read()
    content[content > 0] += LIMITS.poison_hundredths
    with field.open("wb") as file:
        np.save(file, np.clip(content, -32768, 32767).astype(np.int16))
        file.write(rest)


def _distances_mm(case: Path, cache: Path) -> Float:
    """Distances from the cord at some points near it, mm."""
    out = np.empty((len(_PROBES_CT), 4))
    load_case(case, cache=cache).structures[0].distances(_PROBES_CT, out)
    return out[:, 0]


def _tool_in_metres(place: Place) -> Outcome:
    """A tip 0.12 mm from its marker in a case; a tracker of metres that `calibrate pivot` listens to."""
    folder = place.folder()
    sitk.WriteImage(crop("ct"), str(folder / "ct.nrrd"))
    in_case = build(folder, write_case(folder, "ct.nrrd", tools=[_TOOL | {"tip_mm": (_TIP_MM / 1000).tolist()}]))
    parts = {"case": refused_with(in_case, "case.yaml", "tip_mm", "metres")}
    metres, _ = _pivoted(place.folder(), 1e-3)
    parts["pivot"] = refused_with(metres, "metres", "mm")
    control, tip = _pivoted(place.folder(), 1.0)
    if tip is None or np.linalg.norm(tip - _TIP_MM) > LIMITS.tip_within_mm:
        parts["pivot in mm"] = Outcome([f"the tip is not found: {control.last}"])
    return all_of(parts)


def _pivoted(folder: Path, mm: float) -> tuple[Ended, Float | None]:
    """Runs `calibrate pivot` on a tool that is tilted in a dimple, lengths times `mm`; returns the tip found."""
    endpoint, result = free_endpoints("tcp", folder)["tools"], folder / "pivot.json"
    with _Tracker(endpoint, lambda t: _tilted(t, mm)):
        ended = fluoronav(
            "calibrate", "pivot", "--tool", "wire", "--seconds", LIMITS.pivot_s, "--endpoint", endpoint,
            "--json", result, folder=folder,
        )  # fmt: skip
    return ended, np.array(json.loads(result.read_text())["tip_mm"]) if result.exists() else None


def _tilted(t: float, mm: float) -> Float:
    """The tool's pose after `t` seconds; lengths times `mm`."""
    around, tilt = 2 * np.pi * LIMITS.round_hz * t, LIMITS.tilt_rad * np.cos(2 * np.pi * LIMITS.swing_hz * t)
    T = np.eye(4)
    T[:3, :3] = exp_so3(tilt * np.array([np.cos(around), np.sin(around), 0.0]))
    T[:3, 3] = mm * (_PIVOT_MM - T[:3, :3] @ _TIP_MM)
    return T


class _Tracker:
    """Publishes one tool's poses within its context.

    Parameters
    ----------
    endpoint : str
    pose : callable
        From seconds since the begin to a pose, (4, 4).
    """

    def __init__(self, endpoint: str, pose: Callable[[float], Float]) -> None:
        self._endpoint, self._pose = endpoint, pose
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="bench-tracker", daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._thread.join()

    def _run(self) -> None:
        context = zmq.Context()
        socket = context.socket(zmq.PUB)
        socket.setsockopt(zmq.LINGER, 0)
        socket.bind(self._endpoint)
        begin, seq = time.monotonic(), 0
        while not self._ending.wait(LIMITS.each_s):
            T = self._pose(time.monotonic() - begin)
            tool = {"id": "wire", "visible": True, "T_tracker_tool": T.ravel().tolist(), "error_mm": 0.1}
            message = {
                "v": PROTOCOL_VERSION, "source": "tracker0", "seq": seq, "t_acq": time.time_ns(), "tools": [tool],
            }  # fmt: skip
            socket.send_multipart([b"tool/tracker0", encode(message)])
            seq += 1
        socket.close()
        context.term()


def _built(ended: Ended) -> Outcome:
    """Judges whether a case was built."""
    return Outcome() if ended.code == 0 else Outcome([f"no case: {ended.last}"])


FAULTS = (
    Fault("ct-larger-labels-mirrored", "refused: left and right exchanged", _labels_mirrored),
    Fault("case-id-covers-geometry", "another place is another id", _id_covers_geometry),
    Fault("poisoned-distance-cache", "not believed, said, and the distances are right", _poisoned_cache),
    Fault("tool-in-metres", "refused with the unit", _tool_in_metres),
)
