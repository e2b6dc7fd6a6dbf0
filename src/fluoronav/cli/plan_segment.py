"""`fluoronav plan segment`."""

from __future__ import annotations

import argparse
import getpass
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fluoronav.cli.arguments import add_verb
from fluoronav.cli.plan_engines import add_engines, make_engine
from fluoronav.cli.reporting import missing_extra, say
from fluoronav.paths import write_json

if TYPE_CHECKING:
    from fluoronav.planning.segmentation.engine import Segmentation


def add_verbs(family: argparse._SubParsersAction) -> None:
    """Adds the verb to its family."""
    segment = add_verb(
        family,
        "segment",
        "draw the structures of a CT as a draft case: a label map on its grid, how sure each structure is, and "
        "questions that a person has to answer",
        _segment,
        "fluoronav plan segment ct/ --engine atlas --out case/",
        "fluoronav plan segment ct.nii.gz --engine atlas --at T12=3,-120,410 --out case/ --json out/segment.json",
    )
    segment.add_argument("ct", type=Path, help="the CT: a DICOM folder, or a NIfTI, NRRD or MetaImage file (HU)")
    segment.add_argument("--series", metavar="UID", help="SeriesInstanceUID, where the folder holds several")
    add_engines(segment)
    segment.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder of the case; in one that is there a revision is added, and nothing is overwritten",
    )
    segment.add_argument(
        "--copy-ct", action="store_true", help="copy the CT into a new case; else the case names it where it is"
    )
    segment.add_argument(
        "--json",
        nargs="?",
        const="-",
        metavar="FILE",
        help="write structures, seconds, questions and warnings as JSON: to this file, or to standard output",
    )


def _segment(options: argparse.Namespace) -> int:
    from tqdm import tqdm

    try:
        from fluoronav.case.volume import read_volume
        from fluoronav.planning.draft import write_draft
        from fluoronav.site.case_trail import CaseTrail

        engine = make_engine(options)
        ct = read_volume(options.ct, options.series)
        with tqdm(
            total=100, desc=engine.name, unit="%", bar_format="{desc}: {percentage:3.0f}%|{bar}| {elapsed}"
        ) as bar:

            def progress(text: str, done: float) -> None:
                bar.set_description(f"{engine.name}: {text}")
                bar.update(max(0, round(100 * done) - bar.n))

            found = engine.segment(ct, progress)
        revision = write_draft(found, ct, options.out, series=options.series, copy_ct=options.copy_ct)
        CaseTrail(options.out).add(
            "segmented", user=getpass.getuser(), program="fluoronav plan segment", engine=found.engine,
            revision=revision.number, branch="", structures=len(found.structures),
            questions=[q.text for q in found.questions],
        )  # fmt: skip
    except ImportError as error:
        raise missing_extra("planning", error) from error
    result = {**_as_json(found), "case": str(options.out), "revision": revision.number}
    if options.json == "-":
        print(json.dumps(result, indent=1))
    else:
        print(_table(found))
        if options.json:
            write_json(result, Path(options.json))
    for warning in found.warnings:
        say(f"WARNING {warning}")
    for question in found.questions:
        say(f"QUESTION {question.text} {' or '.join(question.choices)}? ({question.evidence})")
        if question.key == "level":
            say(f"  answer: fluoronav plan level {options.out} --level-of {question.choices[0]}=LEVEL")
    say(f"written: {options.out}, revision {revision.number}; a draft until a person has looked at it")
    sys.stdout.flush()
    return 0


def _as_json(found: Segmentation) -> dict[str, Any]:
    """What `--json` holds."""
    from dataclasses import asdict

    keys = ("name", "engine", "confidence", "voxels", "volume_cm3", "state")
    return {
        "structures": [{key: getattr(s, key) for key in keys} for s in found.structures],
        "seconds": round(found.seconds, 1),
        "questions": [asdict(q) for q in found.questions],
        "warnings": list(found.warnings),
    }


def _table(found: Segmentation) -> str:
    lines = [f"{'structure':32} {'confidence':>10} {'volume (cm3)':>13}"]
    lines += [f"{s.name:32} {s.confidence:10.2f} {s.volume_cm3:13.1f}" for s in found.structures]
    return "\n".join([*lines, f"{len(found.structures)} structures by {found.engine} in {found.seconds:.1f} s"])
