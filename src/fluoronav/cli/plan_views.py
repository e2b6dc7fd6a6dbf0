"""`fluoronav plan views`."""

from __future__ import annotations

import argparse
import getpass
from pathlib import Path
from typing import Any

from fluoronav.cli.arguments import add_verb, positive
from fluoronav.cli.plan_options import add_json_option, add_plan, plan_and_case, told
from fluoronav.cli.reporting import say
from fluoronav.paths import shipped


def add_verbs(family: argparse._SubParsersAction) -> None:
    """Adds the verb to its family."""
    views = add_verb(
        family,
        "views",
        "find the one or two C-arm angles (degrees) at which the predicted error of a screw's tip towards the spinal "
        "canal is smallest (mm, 95 %), by the registration's own covariance, within the arm's limits and without a "
        "collision with the table; and the probability that the screw stays in the bone with that error",
        _views,
        "fluoronav plan views cases/P2KQX7/plan.yaml --write",
        "fluoronav plan views plan.yaml --case embedded --choose --json out/views.json",
    )
    add_plan(views)
    views.add_argument(
        "--camera", type=Path, default=shipped("calibration/demo-carm.yaml"), metavar="FILE",
        help="camera file of the C-arm (YAML)",
    )  # fmt: skip
    views.add_argument("--step", type=positive, default=10.0, metavar="DEG", help="step of the grid of angles, degrees")
    views.add_argument(
        "--photons", type=positive, default=80.0, help="dose: mean detected photons per pixel of the full image"
    )
    views.add_argument(
        "--choose", action="store_true",
        help="also look for the trajectory of the same diameter that maximises the probability of no breach",
    )  # fmt: skip
    views.add_argument("--catalogue", type=Path, metavar="FILE", help="sizes of screws (YAML, mm) for --choose")
    views.add_argument(
        "--write", action="store_true", help="write the views, and what was chosen, into a new revision, as a draft"
    )
    add_json_option(views, "the views")


def _views(options: argparse.Namespace) -> int:
    from fluoronav.case import load_case
    from fluoronav.geometry import Camera
    from fluoronav.planning.plan.file import read_plan
    from fluoronav.planning.plan.source import read_source, whole_numbers
    from fluoronav.planning.screws.catalogue import read_catalogue
    from fluoronav.planning.screws.spine import spine_of_names
    from fluoronav.planning.views.plan_views import plan_views

    plan_file, case_file = plan_and_case(options)
    plan = read_plan(plan_file)
    source = read_source(case_file)
    if source.labels is None:
        raise ValueError(f"{case_file}: has no label map: run `fluoronav plan segment` first")
    if plan.ct_hash != source.ct_hash:
        raise ValueError(
            f"{plan_file}: was made on another CT than {source.ct.path.name}: `fluoronav plan check` says more"
        )
    case = load_case(case_file, progress=say)
    spine = spine_of_names(whole_numbers(source.labels), {s.label: s.name for s in source.file.structures})
    found = plan_views(
        plan, case, spine, Camera.load(options.camera), step_deg=options.step, photons=options.photons,
        choose=read_catalogue(options.catalogue) if options.choose else None, progress=say,
    )  # fmt: skip
    result = found.result()
    if options.write:
        result["plan"] = _written(plan_file, plan, found, result["notes"])
    told(options, _table(result), result)
    return 0


def _written(plan_file: Path, plan, found, notes: list[str]) -> str:
    from fluoronav.planning.plan.planned import case_file_of_plan
    from fluoronav.planning.plan.revisions import PlanRevisions
    from fluoronav.planning.views.plan_views import with_views
    from fluoronav.site.case_trail import CaseTrail

    folder, user = case_file_of_plan(plan_file).parent, getpass.getuser()
    number = CaseTrail(folder).add(
        "plan.views", user=user, program="fluoronav plan views", screws=[s.screw.id for s in found.screws]
    )
    changed, kept = with_views(plan.model_copy(update={"author": user}), found, str(number))
    notes += [f"{name}: a person placed it; the better trajectory was not written" for name in kept]
    revisions = PlanRevisions(folder)
    added = revisions.add(changed, parent=plan.revision)
    return str(revisions.path(added.revision))


def _table(result: dict[str, Any]) -> str:
    lines = [
        f"{'screw':12}{'views (orbital, angular)':34}{'error':>10}{'bound':>10}{'across':>10}{'clearance':>11}"
        f"{'no breach':>11}"
    ]
    for s in result["screws"]:
        for choice in (s["one"], s["pair"]):
            if choice is None:
                continue
            angles = " and ".join(f"{v['orbital_deg']:g}, {v['angular_deg']:g}" for v in choice["views"])
            lines.append(
                f"{s['id']:12}{angles + ' degrees':34}{choice['error_mm']:7.2f} mm{choice['bound_mm']:7.2f} mm"
                f"{choice['across_mm']:7.2f} mm{s['clearance_mm']:8.2f} mm{choice['no_breach']:11.1%}"
            )
        if s["chosen"]:
            c = s["chosen"]
            lines.append(
                f"{s['id']:12}another trajectory: no breach {c['no_breach']:.1%}, clearance "
                f"{c['clearance_mm']:.2f} mm, {c['diameter_mm']:g} x {c['length_mm']:g} mm"
            )
    lines += [
        "error: expected of the tip towards the spinal canal, 95 %; bound: what the guidance will state for it;",
        "across: that bound in the worst direction across the screw; no breach: with the bound's covariance",
    ]
    lines += [f"note: {n}" for n in result["notes"]]
    if result["refused_angles"]:
        refused = ", ".join(f"{n} for {why}" for why, n in result["refused_angles"].items())
        lines.append(f"angles left out: {refused}")
    if "plan" in result:
        lines.append(f"written: {result['plan']}, a draft")
    return "\n".join(lines)
