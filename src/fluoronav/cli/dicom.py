"""`fluoronav dicom`: what is read in DICOM files, and results written as DICOM objects."""

from __future__ import annotations

import argparse
from pathlib import Path

from fluoronav.cli import dicom_objects
from fluoronav.cli.arguments import add_family, add_verb, at_least_one
from fluoronav.paths import write_json


def add_verbs(verbs: argparse._SubParsersAction) -> None:
    dicom = add_family(
        verbs,
        "dicom",
        "look into DICOM files, and write results as DICOM objects in the patient's study",
        "fluoronav dicom show ap.dcm",
        "fluoronav dicom seg cases/mine --out seg.dcm",
    )
    show = add_verb(
        dicom,
        "show",
        "print what fluoronav reads in a DICOM file, a folder or a DICOMDIR (kind, geometry in mm and degrees, "
        "intensity, field of view, transfer syntax) and what it refuses and why; never who the patient is",
        _show,
        "fluoronav dicom show ap.dcm --frame 12",
        "fluoronav dicom show /media/cdrom/DICOMDIR --json medium.json",
    )
    show.add_argument("path", type=Path, help="DICOM file, folder (without its sub-folders), or DICOMDIR of a medium")
    show.add_argument("--frame", type=at_least_one, default=1, help="frame of X-ray images of several frames, from 1")
    show.add_argument("--json", type=Path, metavar="FILE", help="write the same to this JSON file")
    dicom_objects.add_verbs(dicom)


def _show(options: argparse.Namespace) -> None:
    from fluoronav.dicom.summary import as_lines, summarise

    if not options.path.exists():
        raise FileNotFoundError(f"{options.path}: no such file or folder")
    summary = summarise(options.path, options.frame)
    print("\n".join(as_lines(summary)))
    if options.json is not None:
        write_json(summary, options.json)
