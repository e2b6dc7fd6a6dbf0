"""`fluoronav plan measure`."""

from __future__ import annotations

import argparse
import getpass
from datetime import datetime
from pathlib import Path
from typing import Any

from fluoronav.cli.arguments import CASE_HELP, add_verb
from fluoronav.cli.reporting import missing_extra, say
from fluoronav.paths import write_json


def add_verbs(family: argparse._SubParsersAction) -> None:
    """Adds the verb to its family."""
    verb = add_verb(
        family,
        "measure",
        "measure a case's label map: volumes (cm3), lesions (mm), vertebrae and pedicles (mm), Cobb angles, axes "
        "of the legs (degrees), trabecular bone (HU); each with one standard deviation and points to draw (LPS mm); "
        "measurements and flags go into plan.yaml as a new revision",
        _measure,
        "fluoronav plan measure cases/mine --json out/measured.json",
        "fluoronav plan measure cases/mine --cobb T5 T12 --sr out/measured.dcm",
        "fluoronav plan measure --labels spine.nii.gz --scheme verse --ct ct.nii.gz",
    )
    verb.add_argument("case", nargs="?", help=CASE_HELP.replace("`embedded`, a", "a"))
    verb.add_argument("--labels", type=Path, metavar="FILE", help="label map instead of a case; no plan is written")
    verb.add_argument(
        "--scheme",
        choices=("totalsegmentator", "verse"),
        default="totalsegmentator",
        help="how --labels numbers structures",
    )
    verb.add_argument("--ct", type=Path, metavar="PATH", help="the CT of --labels, for HU and metal")
    verb.add_argument(
        "--name", action="append", default=[], metavar="VALUE=NAME", type=_named,
        help="name of a value of --labels that the scheme does not have, such as 130=tibia_left or 200=lesion_1; may "
        "be repeated",
    )  # fmt: skip
    verb.add_argument(
        "--lesion", action="append", default=[], metavar="NAME",
        help="structure that is a lesion, besides those named lesion, tumor, nodule or metastasis; may be repeated",
    )  # fmt: skip
    verb.add_argument(
        "--cobb", nargs=2, action="append", default=[], metavar=("UPPER", "LOWER"),
        help="angle between the upper endplate of one level and the lower endplate of another; may be repeated",
    )  # fmt: skip
    verb.add_argument("--no-plan", action="store_true", help="do not write into the case's plan")
    verb.add_argument("--sr", type=Path, metavar="FILE", help="write a draft report (DICOM SR, TID 1500)")
    verb.add_argument(
        "--source",
        type=Path,
        metavar="PATH",
        help="the CT as DICOM, for --sr; by default the case's own, where it is DICOM",
    )
    verb.add_argument("--json", type=Path, metavar="FILE", help="write the measurements to this JSON file")


def _named(text: str) -> tuple[int, str]:
    value, _, name = text.partition("=")
    if not value.isdigit() or not 0 < int(value) < 65536 or not 0 < len(name) <= 64:
        raise argparse.ArgumentTypeError(f"{text!r} is not VALUE=NAME, such as 130=tibia_left")
    return int(value), name


def _measure(options: argparse.Namespace) -> int:
    try:
        from fluoronav.planning.measurements.inputs import of_case, of_files
        from fluoronav.planning.measurements.into_plan import write_into_plan
        from fluoronav.planning.measurements.measure import Wanted, measure
        from fluoronav.planning.plan.revisions import PlanRevisions
        from fluoronav.site.case_trail import CaseTrail
    except ImportError as error:
        raise missing_extra("planning", error) from error
    if (options.case is None) == (options.labels is None):
        raise ValueError("name a case, or a label map with --labels")
    if options.case is not None:
        found = of_case(Path(options.case))
    else:
        found = of_files(options.labels, options.scheme, options.ct, dict(options.name))
    for warning in found.warnings:
        say(f"WARNING {warning}")
    plan = PlanRevisions(found.folder).newest() if found.folder is not None else None
    cobb = [(upper.upper(), lower.upper()) for upper, lower in options.cobb]
    wanted = Wanted(cobb, options.lesion, plan.items if plan else ())
    source = _source(options, found)
    ct = found.ct.image if found.ct else None
    results = measure(found.labels.image, found.names, ct, wanted, lambda text, share: say(f"  {text} ({share:.0%})"))
    _print(results)
    items = (*results.items, *results.flags)
    if found.folder is not None and found.case is not None and found.made_on is not None and not options.no_plan:
        plan = write_into_plan(found.folder, found.case.name, found.made_on, results)
        CaseTrail(found.folder).add(
            "plan.measure", user=getpass.getuser(), program="fluoronav plan measure", revision=plan.revision,
            measured=len(results.items), flags=[f.text for f in results.flags],
        )  # fmt: skip
        items = plan.items
        print(f"written: {PlanRevisions(found.folder).file}, revision {plan.revision}, a draft")
    if options.sr is not None:
        _report(options.sr, source, items)
    if options.json is not None:
        write_json(results.as_json(), options.json)
        print(f"written: {options.json}")
    return 0


def _source(options: argparse.Namespace, found: Any) -> Any:
    """The DICOM source of the report, read before anything is measured; None where no report is wanted."""
    if options.sr is None:
        return None
    if options.sr.exists():
        raise ValueError(f"{options.sr}: exists already; a report is never overwritten")
    try:
        from fluoronav.dicom.objects import read_source
    except ImportError as error:
        raise missing_extra("pacs", error) from error
    path, series = options.source, None
    if path is None and found.case is not None:
        path, series = found.folder / found.case.ct, found.case.ct_series
    elif path is None:
        path = options.ct
    if path is None or path.suffix.lower() in (".nrrd", ".nii", ".gz", ".mha", ".mhd"):
        raise ValueError("--sr: the CT is no DICOM; name the series that it was made of with --source")
    return read_source(path, series)


def _report(path: Path, source: Any, items: Any) -> None:
    from fluoronav.dicom.objects import Producer, Provenance, measurement_report, write_object
    from fluoronav.planning.measurements.report import findings_of

    by = Provenance(Producer(serial="none"), datetime.now().astimezone(), None)
    made = measurement_report(source, by, findings_of(items))
    write_object(made, path)
    print(f"written: {path}, a draft report")


def _print(results: Any) -> None:
    for m in results.items:
        sigma = f" ± {m.uncertainty:g}" if m.uncertainty is not None else ""
        print(f"{m.structure or '':28} {m.name:28} {m.value:10g}{sigma} {m.unit}")
    for refusal in results.refused:
        print(f"not measured: {refusal.structure} {refusal.name}: {refusal.reason}")
    for flag in results.flags:
        print(f"CHECK {flag.what}: {flag.text}")
    print(
        f"{len(results.items)} measured, {len(results.refused)} refused, {len(results.flags)} to check, "
        f"{results.seconds:.1f} s"
    )
