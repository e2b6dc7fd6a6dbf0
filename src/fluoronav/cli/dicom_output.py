"""Options and output that the verbs of `fluoronav dicom` share that write an object."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from fluoronav.cli.reporting import missing_extra
from fluoronav.paths import write_json


def add_output(parser: argparse.ArgumentParser, source: str, *, required: bool = True) -> None:
    """``--source``, ``--out`` and who accepted it."""
    parser.add_argument("--source", type=Path, required=required, metavar="PATH", help=source)
    parser.add_argument(
        "--out", type=Path, required=True, metavar="FILE", help="DICOM file to write; must not exist yet"
    )
    person = parser.add_argument_group("provenance")
    person.add_argument(
        "--accepted-by",
        metavar="NAME",
        help="person who has accepted the content, FAMILY^GIVEN; without it the object is labelled DRAFT",
    )
    person.add_argument("--organization", default="", metavar="NAME", help="that person's organization")
    person.add_argument("--device", default="none", metavar="NAME", help="name of this installation, as serial number")
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="write what was written, with its UIDs, to this JSON file"
    )


def provenance(options: argparse.Namespace, models: Mapping[str, str] | None = None) -> Any:
    """The provenance that the options describe.

    Raises
    ------
    RuntimeError
        The extra is not installed.
    """
    objects = dicom_objects()
    now = datetime.now().astimezone()
    approval = objects.Approval(options.accepted_by, options.organization, now) if options.accepted_by else None
    producer = objects.Producer(serial=options.device, models=dict(models or {}))
    return objects.Provenance(producer, now, approval)


def dicom_objects() -> Any:
    """The package of objects; raises RuntimeError where its extra is not installed."""
    try:
        from fluoronav.dicom import objects
    except ImportError as error:
        raise missing_extra("pacs", error) from error
    return objects


def write(options: argparse.Namespace, dataset: Any, kind: str, more: Mapping[str, Any] | None = None) -> None:
    """Writes an object, prints what it is, and writes the same as JSON where the options name a file."""
    dicom_objects().write_object(dataset, options.out)
    written = {
        "file": str(options.out),
        "kind": kind,
        "sop_class": str(dataset.SOPClassUID),
        "sop_instance_uid": str(dataset.SOPInstanceUID),
        "series_instance_uid": str(dataset.SeriesInstanceUID),
        "study_instance_uid": str(dataset.StudyInstanceUID),
        "draft": not options.accepted_by,
        "bytes": options.out.stat().st_size,
        **(more or {}),
    }
    state = "draft" if written["draft"] else "accepted"
    print(f"{options.out}: {dataset.SOPClassUID.name}, {state}, {written['bytes'] / 1e6:.2f} MB")
    print(f"instance {written['sop_instance_uid']}")
    if options.json is not None:
        write_json(written, options.json)
