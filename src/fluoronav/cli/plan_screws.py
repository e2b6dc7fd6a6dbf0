"""`fluoronav plan screws`."""

from __future__ import annotations

import argparse
import getpass
from pathlib import Path
from typing import Any

from fluoronav.cli.arguments import CASE_HELP, add_verb
from fluoronav.cli.plan_options import add_json_option, case_file_of, told
from fluoronav.cli.reporting import say
from fluoronav.paths import embedded_case


def add_verbs(family: argparse._SubParsersAction) -> None:
    """Adds the verb to its family."""
    screws = add_verb(
        family,
        "screws",
        "propose a pedicle screw for each pedicle (mm, DICOM LPS), grade it (Gertzbein and Robbins), and say where no "
        "screw of the catalogue fits; in a case the screws go into a new revision of its plan.yaml, as a draft",
        _screws,
        "fluoronav plan screws cases/P2KQX7 --levels T8 T9 --png out/screws.png",
        "fluoronav plan screws --labels vertebrae.nii.gz --scheme verse --levels L1 --json out/screws.json",
    )
    screws.add_argument("case", nargs="?", metavar="CASE", help=CASE_HELP)
    screws.add_argument("--labels", type=Path, metavar="MASK", help="a label map instead of a case; no plan is written")
    screws.add_argument(
        "--ct", type=Path, metavar="PATH",
        help="the CT of MASK (HU): without it, nothing tells whether vertebrae alone are mirrored",
    )  # fmt: skip
    screws.add_argument(
        "--scheme", choices=("totalsegmentator", "verse"), default="totalsegmentator",
        help="how the values of MASK are numbered: as TotalSegmentator 1 does, or VerSe (1 is C1, 20 is L1)",
    )  # fmt: skip
    screws.add_argument(
        "--levels", nargs="+", metavar="LEVEL", help="such as T8 L1; by default all that are in the label map"
    )
    screws.add_argument(
        "--catalogue", type=Path, metavar="FILE", help="sizes of screws (YAML, mm) instead of the demonstration's"
    )
    screws.add_argument("--png", type=Path, metavar="FILE", help="draw each screw here, in three cuts through its axis")
    add_json_option(screws, "the screws")


def _screws(options: argparse.Namespace) -> int:
    from fluoronav.case.volume import read_volume
    from fluoronav.planning.plan.source import Source, read_source, whole_numbers
    from fluoronav.planning.screws.catalogue import read_catalogue
    from fluoronav.planning.screws.proposals import propose
    from fluoronav.planning.screws.spine import spine_of_names, spine_of_scheme

    if (options.case is None) == (options.labels is None):
        raise ValueError("name either a CASE or a label map with --labels MASK")
    if options.ct is not None and options.labels is None:
        raise ValueError("--ct is the CT of --labels MASK; a CASE names its own")
    catalogue = read_catalogue(options.catalogue)
    source: Source | None = None
    notes: list[str] = []
    if options.labels is not None:
        labels = read_volume(options.labels)
        spine = spine_of_scheme(whole_numbers(labels), options.scheme)
        notes += _sides(spine, read_volume(options.ct) if options.ct is not None else None, labels)
    else:
        source = read_source(case_file_of(options.case))
        if source.labels is None:
            raise ValueError(f"{source.path}: has no label map: run `fluoronav plan segment` first")
        notes += source.check_vertebrae()
        spine = spine_of_names(whole_numbers(source.labels), {s.label: s.name for s in source.file.structures})
        notes += _sides(spine, source.widest_ct())
    levels = options.levels or [n for n in spine.values if n == "C7" or n[0] in "TL"]
    if not levels:
        raise ValueError(f"{options.labels or options.case}: the label map has no vertebra from C7 to L6")
    found = propose(spine, levels, catalogue, say)
    result = found.result()
    if source is not None and source.path != embedded_case():
        result["plan"] = _planned(source, found.screws, notes)
    result["notes"] = notes + result["notes"]
    if options.png is not None:
        _draw(options.png, found, source)
    told(options, _table(result), result)
    return 0


def _sides(spine: Any, ct: Any, labels: Any = None) -> list[str]:
    """What speaks for and against a mirrored map; `labels` are checked against the CT, where they are no case's."""
    from fluoronav.planning.plan.source import check_vertebrae
    from fluoronav.planning.sides import evidence_of_sides, question_of_sides

    if ct is None:
        return [
            "left and right are as the file says: vertebrae look the same in a mirror, and no CT was named that could "
            "tell; give --ct, or compare with a study whose sides are known"
        ]
    notes = check_vertebrae(ct, labels, spine.values) if labels is not None else []
    question = question_of_sides(evidence_of_sides(ct.image, list(spine.middles_ct().values())))
    return [*notes, f"CHECK {question}"] if question else notes


def _planned(source, screws, notes: list[str]) -> str:
    """Writes the screws into a new revision of the case's plan; returns its file."""
    from fluoronav.planning.plan.revisions import PlanRevisions
    from fluoronav.planning.plan.schema import Plan
    from fluoronav.planning.screws.proposals import with_proposals
    from fluoronav.site.case_trail import CaseTrail

    folder, user = source.path.parent, getpass.getuser()
    revisions = PlanRevisions(folder)
    before = revisions.newest()
    of_source = {
        "ct_hash": source.ct_hash, "labels_hash": source.labels_hash, "frame_of_reference": source.frame_of_reference,
    }  # fmt: skip
    if before is not None and before.ct_hash != source.ct_hash:
        raise ValueError(
            f"{revisions.file}: was made on another CT than {source.ct.path.name}: move it away, or put that CT back"
        )
    plan = before or Plan(case=source.file.name, revision=1, made="", **of_source)
    what = [f"{s.level} {s.side}" for s in screws if s.fits]
    number = CaseTrail(folder).add("plan.screws", user=user, program="fluoronav plan screws", proposed=what)
    plan, kept = with_proposals(plan.model_copy(update={**of_source, "author": user}), screws, str(number))
    notes += [f"{name}: a person placed it; it was kept, and nothing proposed beside it" for name in kept]
    added = revisions.add(plan, parent=before.revision if before else 0)
    return str(revisions.path(added.revision))


def _draw(path: Path, found, source) -> None:
    import cv2

    from fluoronav.planning.screws.drawing import sheet

    screws = [s for s in found.screws if s.fits]
    if not screws:
        raise ValueError(f"{path}: there is no screw to draw: none fits")
    picture = sheet(screws, found.vertebrae, source.ct.image if source else None)
    path.parent.mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(path), picture):
        raise ValueError(f"{path}: cannot be written as a picture; name it .png or .jpg")


def _table(result: dict[str, Any]) -> str:
    lines = [f"{'screw':10}{'size':>12}{'clearance':>11}{'breach':>9}  grade"]
    for s in result["screws"]:
        name = f"{s['level']} {s['side']}"
        if s["fits"]:
            size = f"{s['diameter_mm']:g} x {s['length_mm']:g} mm"
            lines.append(f"{name:10}{size:>12}{s['clearance_mm']:8.2f} mm{s['breach_mm']:6.2f} mm  {s['grade']}")
        else:
            lines.append(f"{name:10}does not fit: {s['reason'].removeprefix(f'{name}: ')}")
    lines += [f"note: {n}" for n in result["notes"]]
    lines.append(f"{len(result['screws'])} pedicles in {result['seconds']:.1f} s ({result['cpu_s']:.1f} s of CPU)")
    if "plan" in result:
        lines.append(f"written: {result['plan']}, a draft")
    return "\n".join(lines)
