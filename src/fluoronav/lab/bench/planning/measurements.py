"""Measurements against every reference that there is: reported heights, hand-drawn masks, bones of known size."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from fluoronav.lab.bench.planning.bench import Say
from fluoronav.lab.simulation.bones import SyntheticLeg, SyntheticVertebra, label_map, turned
from fluoronav.planning.anatomy import Scheme, labels_of_scheme, level_of
from fluoronav.planning.measurements.femur import head_of
from fluoronav.planning.measurements.mask import StructureMask, masks_of, spread
from fluoronav.planning.measurements.measure import measure as measured
from fluoronav.planning.measurements.pedicle import bottleneck_mm, pedicle_of
from fluoronav.planning.measurements.results import Results
from fluoronav.planning.measurements.vertebra import Body, body_of, body_voxels, start_frame

_HEIGHTS = ("anterior", "middle", "posterior")
_HAND_DRAWN = (("sub-verse010", "sub-verse010_seg-vert_msk"), ("sub-gl003", "sub-gl003_dir-ax_seg-vert_msk"))
_LEG = dict(version=15.0, mldfa=86.0, mpta=85.0, hka=176.0)
_TURNS = 10  # synthetic vertebrae in random poses


def measure(data: Path, say: Say) -> dict[str, Any]:
    """All comparisons.

    Parameters
    ----------
    data : Path
        The folder of real data.
    say : callable
        Takes a text for each step.
    """
    say("  patient_b against its report")
    out: dict[str, Any] = {"reported": _reported(data / "planning/patient_b")}
    say("  hand-drawn masks")
    out["body"] = _body(data / "planning/l3")
    out["pedicles"] = [p for stem, file in _HAND_DRAWN for p in _pedicles(data, stem, file)]
    say("  vertebrae of known size")
    out["synthetic_vertebrae"] = _synthetic_vertebrae()
    say("  a leg of known angles")
    out["synthetic_leg"] = _synthetic_leg()
    say("  femoral heads of patient_b")
    out["heads"] = _heads(data / "planning/patient_b")
    say("  chest")
    chest, seconds, cpu = _case(data / "chest/labels.nii.gz", data / "chest/ct.nii.gz", "totalsegmentator")
    out["chest"] = {
        "measured": len(chest.items),
        "refused": len(chest.refused),
        "flags": {f.what: f.text for f in chest.flags},
        "seconds": round(seconds, 1),
        "cpu_seconds": round(cpu, 1),
    }
    return out


def table(result: dict[str, Any]) -> str:
    """What was measured, for people."""
    r = result["reported"]
    off, body, s, leg = r["height_mm"], result["body"], result["synthetic_vertebrae"], result["synthetic_leg"]
    width = [p["width_mm"] - p["bottleneck_mm"] for p in result["pedicles"] if p["width_mm"] is not None]
    missed = sum(p["width_mm"] is None for p in result["pedicles"])
    heads = result["heads"]
    lines = [
        "measurements",
        *(
            f"  {k} height of patient_b less reported: mean {v['mean']:+.1f}, worst {v['worst']:+.1f} mm"
            for k, v in off.items()
        ),
        f"  body volume less reported: mean {r['volume_percent']:+.0f} %",
        f"  body of L3 by hand: Dice {body['dice']:.3f}; {body['ours_cm3']:.1f} against {body['drawn_cm3']:.1f} cm3",
        f"  hand-drawn pedicles: width less largest ball that passes: median {np.median(width):+.1f}, worst "
        f"{max(width, key=abs):+.1f} mm ({len(width)} measured, {missed} refused)",
        f"  synthetic vertebrae: endplates {s['tilt_rms_deg']:.2f} deg rms, worst {s['tilt_worst_deg']:.2f}; heights "
        f"{s['height_rms_mm']:.2f} mm rms; pedicles {s['pedicle_rms_mm']:.2f} mm rms",
        f"  their errors within 1 and 2 standard deviations: {s['within_1']:.0%}, {s['within_2']:.0%}",
        "  synthetic leg, error: " + ", ".join(f"{k} {v:+.2f}" for k, v in leg["error"].items()),
        f"  femoral heads: radii {heads['left_mm']:.1f} (prosthesis) and {heads['right_mm']:.1f} mm; moved by "
        f"{heads['eroded_mm']:.2f} mm when eroded by a voxel, {heads['thinned_mm']:.2f} mm with a third of the points",
        f"  chest: {result['chest']['measured']} measured, {result['chest']['refused']} refused, "
        f"{len(result['chest']['flags'])} flags, {result['chest']['cpu_seconds']:.0f} s of CPU",
    ]
    return "\n".join(lines)


def _case(labels: Path, ct: Path, scheme: Scheme) -> tuple[Results, float, float]:
    names = {value: s.name for value, s in labels_of_scheme(scheme).items()}
    images = sitk.ReadImage(str(labels)), sitk.ReadImage(str(ct))
    wall, cpu = time.perf_counter(), time.process_time()
    results = measured(images[0], names, images[1])
    return results, time.perf_counter() - wall, time.process_time() - cpu


def _reported(folder: Path) -> dict[str, Any]:
    """Heights and body volumes of patient_b less those of TotalSegmentator's spine report."""
    reported = json.loads((folder / "vertebrae_reported.json").read_text())["results"]
    results, seconds, _ = _case(folder / "labels.nii.gz", folder / "ct.nii.gz", "totalsegmentator")
    found = {(m.structure, m.name): m.value for m in results.items}
    height = {}
    for name in _HEIGHTS:
        off = [found[s, f"height_{name}"] - reported[f"{s}_height_{name}_mm"] for s in _levels(reported)]
        height[name] = {"mean": float(np.mean(off)), "worst": float(max(off, key=abs)), "all": off}
    volume = [100 * (found[s, "body_volume"] / reported[f"{s}_volume_ml"] - 1) for s in _levels(reported)]
    hu = {s: [found[s, "trabecular_hu"], reported[f"{s}_intensity_median"]] for s in _levels(reported)}
    return {"height_mm": height, "volume_percent": float(np.mean(volume)), "hu": hu, "seconds": seconds}


def _levels(reported: dict[str, float]) -> list[str]:
    return sorted({key.split("_height")[0] for key in reported if "_height_anterior" in key})


def _body_of(mask: StructureMask, up: np.ndarray) -> Body:
    return body_of(mask, mask.level(), start_frame(mask, up))


def _body(folder: Path) -> dict[str, float]:
    """The body of L3 against the sub-regions that were drawn by hand."""
    vertebra = sitk.ReadImage(str(folder / "sub-ct_seg-vert_label-22_msk.nii.gz"))
    regions = sitk.GetArrayFromImage(sitk.ReadImage(str(folder / "sub-ct_seg-subreg_label-22_msk.nii.gz")))
    mask = masks_of(vertebra, [(22, "vertebrae_L3")])["vertebrae_L3"]
    drawn = np.isin(regions, (49, 50)) & (sitk.GetArrayFromImage(vertebra) == 22)
    inside = body_voxels(mask, _body_of(mask, np.array([0.0, 0.0, 1.0])))
    first = np.array(vertebra.TransformPhysicalPointToIndex(mask.T_ct_index[:3, 3].tolist()))[::-1]
    ours = np.zeros_like(drawn)
    ours[tuple((np.argwhere(inside) + first).T)] = True
    dice = 2 * np.count_nonzero(ours & drawn) / (np.count_nonzero(ours) + np.count_nonzero(drawn))
    cm3 = mask.voxel_mm3 / 1000
    return {"dice": float(dice), "ours_cm3": float(ours.sum() * cm3), "drawn_cm3": float(drawn.sum() * cm3)}


def _pedicles(data: Path, stem: str, file: str) -> Iterator[dict[str, Any]]:
    """Pedicles of a hand-drawn spine, with the largest ball that passes through each."""
    image = sitk.ReadImage(str(data / f"planning/masks/{file}.nii.gz"))
    names = {v: s.name for v, s in labels_of_scheme("verse").items() if level_of(s.name)[:1] in ("T", "L")}  # type: ignore[index]
    masks = masks_of(image, names.items())
    ends = [m.points_ct().mean(0) for m in (next(iter(masks.values())), list(masks.values())[-1])]
    up = ends[0] - ends[1] if ends[0][2] > ends[1][2] else ends[1] - ends[0]
    for name, mask in masks.items():
        body = _body_of(mask, up)
        for side in ("left", "right"):
            began = time.process_time()
            try:
                found = pedicle_of(mask, mask.level(), body, side)
                sizes = {"width_mm": found.width_mm, "height_mm": found.height_mm}
            except ValueError as error:
                sizes = {"width_mm": None, "height_mm": None, "refused": str(error)}
            spent = time.process_time() - began
            ball = bottleneck_mm(mask, body, side)
            yield {
                "subject": stem,
                "vertebra": name,
                "side": side,
                **sizes,
                "bottleneck_mm": ball,
                "cpu_seconds": spent,
            }


def _synthetic_vertebrae() -> dict[str, Any]:
    """Errors on vertebrae of known size in random poses, and how far the stated deviations hold."""
    rng = np.random.default_rng(7)
    made = SyntheticVertebra(height_front=27.0, height_back=27.0)
    tilt, height, pedicle, off = [], [], [], []
    for _ in range(_TURNS):
        turn = turned(1, rng.uniform(-15, 15)) @ turned(0, rng.uniform(-20, 20)) @ turned(2, rng.uniform(-8, 8))
        shift = rng.uniform(-0.5, 0.5, 3)
        solid = {29: lambda p, turn=turn, shift=shift: made.inside((p - shift) @ turn)}
        image = label_map(solid, np.array([-65.0, -55, -60]), np.array([65.0, 90, 60]), (0.9, 0.9, 1.25))
        mask = masks_of(image, [(29, "vertebrae_L3")])["vertebrae_L3"]
        body = _body_of(mask, np.array([0.0, 0.0, 1.0]))
        sd = spread(mask, lambda field, mask=mask, body=body: body_of(mask, field, body.frame, 1).numbers())
        up = turn @ [0, 0, 1]
        truth = np.array([27.0] * 3 + [*np.degrees(np.arctan2(up[:2], up[2]))] * 2)
        error = body.numbers() - truth
        height += list(error[:3])
        tilt += list(error[3:])
        off += list(error / sd)
        for side in ("left", "right"):
            found = pedicle_of(mask, mask.level(), body, side)
            pedicle += [found.width_mm - made.pedicle_width, found.height_mm - made.pedicle_height]
    within = np.abs(off)
    return {
        "tilt_rms_deg": _rms(tilt), "tilt_worst_deg": float(np.abs(tilt).max()), "height_rms_mm": _rms(height),
        "pedicle_rms_mm": _rms(pedicle), "within_1": float((within < 1).mean()), "within_2": float((within < 2).mean()),
    }  # fmt: skip


def _synthetic_leg() -> dict[str, Any]:
    made = SyntheticLeg(version=_LEG["version"], mldfa=_LEG["mldfa"], mpta=_LEG["mpta"], hka=_LEG["hka"])
    hip = np.array([90.0, 0.0, 800.0])
    solids = made.solids("left", hip)
    labels = {75: solids["femur_left"], 130: solids["tibia_left"]}
    image = label_map(labels, hip + [-110, -60, -860], hip + [110, 60, 45], (1.2, 1.2, 1.2))
    began = time.process_time()
    results = measured(image, {75: "femur_left", 130: "tibia_left"})
    found = {m.name: m for m in results.items if m.unit == "deg" and m.name in _LEG}
    head = next(m for m in results.items if m.name == "head_radius")
    error = {name: m.value - _LEG[name] for name, m in found.items()}
    error["head_mm"] = float(np.linalg.norm(np.array(head.points_ct[0]) - hip))
    sd = {name: m.uncertainty for name, m in found.items()}
    return {"error": error, "deviation": sd, "cpu_seconds": time.process_time() - began}


def _heads(folder: Path) -> dict[str, float]:
    """Femoral heads of patient_b, and how far they move when the bone is eroded or its points are thinned."""
    masks = masks_of(sitk.ReadImage(str(folder / "labels.nii.gz")), [(75, "femur_left"), (76, "femur_right")])
    left, right = masks["femur_left"], masks["femur_right"]
    boundary = right.surface(right.level())
    whole = head_of(right, boundary, "right")
    thin = type(boundary)(boundary.points[::3], boundary.normals[::3], boundary.voxel_mm[::3])
    smaller = sitk.GetArrayFromImage(sitk.BinaryErode(sitk.GetImageFromArray(right.inside.astype(np.uint8)), [1, 1, 1]))
    eroded = StructureMask(right.name, smaller > 0, right.T_ct_index)
    inner = head_of(eroded, eroded.surface(eroded.level()), "right")
    return {
        "left_mm": head_of(left, left.surface(left.level()), "left").radius_mm,
        "right_mm": whole.radius_mm,
        "thinned_mm": float(np.linalg.norm(head_of(right, thin, "right").centre - whole.centre)),
        "eroded_mm": float(np.linalg.norm(inner.centre - whole.centre)),
    }


def _rms(values: list[float]) -> float:
    return float(np.sqrt(np.mean(np.square(values))))
