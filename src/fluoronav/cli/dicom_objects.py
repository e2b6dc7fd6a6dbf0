"""`fluoronav dicom seg|sr|stl|pdf`: objects about a case; those of a run are in `dicom_recorded`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from fluoronav.cli import dicom_recorded
from fluoronav.cli.arguments import CASE_HELP, add_verb
from fluoronav.cli.dicom_output import add_output, dicom_objects, provenance, write
from fluoronav.cli.reporting import missing_extra, say

_CASE_SOURCE = "the CT as DICOM: a folder or a multi-frame file; by default the case's own `ct`, where it is DICOM"


def add_verbs(dicom: argparse._SubParsersAction) -> None:
    """Adds the verbs to the family `dicom`."""
    for add in (_add_seg, _add_sr, _add_stl, _add_pdf):
        add(dicom)
    dicom_recorded.add_verbs(dicom)


def _add_seg(dicom: argparse._SubParsersAction) -> None:
    seg = add_verb(
        dicom,
        "seg",
        "write a case's structures as a segmentation on the CT's grid",
        _seg,
        "fluoronav dicom seg cases/mine --out seg.dcm",
        "fluoronav dicom seg cases/mine --source ct/ --out seg.dcm --labelmap",
    )
    seg.add_argument("case", help=CASE_HELP)
    seg.add_argument(
        "--labelmap", action="store_true", help="write a label map (JPEG-LS) instead of one bit a voxel and structure"
    )
    seg.add_argument(
        "--structure", action="append", default=[], metavar="NAME", help="only this structure; may be repeated"
    )
    seg.add_argument("--drawn-by-hand", action="store_true", help="a person drew the structures, no software")
    _add_series(seg)
    add_output(seg, _CASE_SOURCE, required=False)


def _add_sr(dicom: argparse._SubParsersAction) -> None:
    sr = add_verb(
        dicom,
        "sr",
        "write a measurement report: volumes of structures (mL), planned paths (mm), alerts, the accepted registration",
        _sr,
        "fluoronav dicom sr cases/mine --out sr.dcm --segmentation seg.dcm",
        "fluoronav dicom sr cases/mine --out sr.dcm --recording run.mcap",
    )
    sr.add_argument("case", help=CASE_HELP)
    sr.add_argument(
        "--segmentation", type=Path, metavar="FILE", help="segmentation (DICOM) of the case, to which volumes refer"
    )
    sr.add_argument(
        "--recording", type=Path, metavar="FILE", help="run whose alerts and accepted registration are reported (MCAP)"
    )
    sr.add_argument("--image", type=Path, metavar="FILE", help="X-ray image (DICOM) of the run, to refer to")
    _add_series(sr)
    add_output(sr, _CASE_SOURCE, required=False)


def _add_stl(dicom: argparse._SubParsersAction) -> None:
    stl = add_verb(
        dicom,
        "stl",
        "write the surface of one structure (STL, mm, DICOM LPS)",
        _stl,
        "fluoronav dicom stl cases/mine --structure aorta --out aorta.dcm",
    )
    stl.add_argument("case", help=CASE_HELP)
    stl.add_argument("--structure", required=True, metavar="NAME", help="its name in the case")
    _add_series(stl)
    add_output(stl, _CASE_SOURCE, required=False)


def _add_pdf(dicom: argparse._SubParsersAction) -> None:
    pdf = add_verb(
        dicom,
        "pdf",
        "write a PDF into a study",
        _pdf,
        "fluoronav dicom pdf briefing.pdf --title Briefing --source ct/ --out briefing.dcm",
    )
    pdf.add_argument("pdf", type=Path, help="PDF file")
    pdf.add_argument("--title", required=True, metavar="TEXT", help="title in a viewer's list")
    _add_series(pdf)
    add_output(pdf, "a DICOM image or folder of the study that it goes to")


def _add_series(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--series", metavar="UID", help="SeriesInstanceUID to take of the source, where it holds several"
    )


def _case_and_source(options: argparse.Namespace) -> tuple[Any, Path, Any]:
    """The case file, its folder, and the DICOM source of its CT."""
    from fluoronav.case.file import read_case_file
    from fluoronav.paths import embedded_case

    path = embedded_case() if options.case == "embedded" else Path(options.case)
    path = path / "case.yaml" if path.is_dir() else path
    file = read_case_file(path)
    source, series = options.source, options.series
    if source is None:
        source, series = path.parent / file.ct, series or file.ct_series
        if source.suffix.lower() in (".nrrd", ".nii", ".gz", ".mha", ".mhd"):
            raise ValueError(f"{path}: its CT {file.ct} is no DICOM; name the series that it was made of with --source")
    say(f"reading {source}")
    return file, path.parent, dicom_objects().read_source(source, series)


def _seg(options: argparse.Namespace) -> None:
    made_by = provenance(options)
    objects = dicom_objects()
    from fluoronav.case.findings import labels_on

    file, folder, source = _case_and_source(options)
    known = {s.name for s in file.structures}
    for name in options.structure:
        if name not in known:
            raise ValueError(f"{options.case}: has no structure {name!r}; it has {', '.join(sorted(known))}")
    chosen = [s for s in file.structures if not options.structure or s.name in options.structure]
    software = "" if options.drawn_by_hand else "fluoronav"
    segments = [objects.Segment(s.name, s.label, s.color, software) for s in chosen]
    made = objects.segmentation(
        source,
        made_by,
        labels_on(source, file, folder, say),
        segments,
        encoding="LABELMAP" if options.labelmap else "BINARY",
    )
    write(options, made, "seg", {"segments": {s.name: k + 1 for k, s in enumerate(segments)}})


def _sr(options: argparse.Namespace) -> None:
    import pydicom

    made_by = provenance(options)
    objects = dicom_objects()
    from fluoronav.case.findings import path_findings, volume_findings

    file, folder, source = _case_and_source(options)
    segmentation = pydicom.dcmread(options.segmentation) if options.segmentation else None
    numbers = {str(s.SegmentLabel): int(s.SegmentNumber) for s in segmentation.SegmentSequence} if segmentation else {}
    findings = [*volume_findings(file, folder, numbers), *path_findings(file)]
    if options.recording is not None:
        run, models = _run_findings(objects, options.recording, file.name)
        findings += run
        made_by = provenance(options, models)
    references = [objects.read_source(options.image)] if options.image else []
    made = objects.measurement_report(source, made_by, findings, references=references, segmentation=segmentation)
    write(options, made, "sr", {"findings": [f.name for f in findings]})


def _run_findings(objects: Any, recording: Path, case: str) -> tuple[list[Any], dict[str, str]]:
    """Findings of a run, and the networks that had a part in it."""
    from fluoronav.recording import RecordingError
    from fluoronav.recording.moments import accepted_overlay, alerts_of

    findings = list(objects.alert_findings(alerts_of(recording)))
    try:
        overlay = accepted_overlay(recording)
    except RecordingError as error:
        say(f"{error}; none is reported")
        return findings, {}
    return [*findings, objects.registration_finding(overlay["registration"], case)], overlay["models"]


def _stl(options: argparse.Namespace) -> None:
    try:
        from fluoronav.case.surface import surface
    except ImportError as error:
        raise missing_extra("pacs", error) from error
    from fluoronav.case import load_case

    made_by = provenance(options)
    objects = dicom_objects()
    _, _, source = _case_and_source(options)
    case = load_case(options.case, progress=lambda text: say(f"  {text}"))
    found = next((s for s in case.structures if s.name == options.structure), None)
    if found is None:
        names = ", ".join(s.name for s in case.structures)
        raise ValueError(f"{options.case}: has no structure {options.structure!r}; it has {names}")
    points, triangles = surface(found)
    made = objects.encapsulated_stl(source, made_by, objects.stl_bytes(points, triangles), options.structure)
    write(options, made, "stl", {"triangles": len(triangles)})


def _pdf(options: argparse.Namespace) -> None:
    from fluoronav.paths import regular_file

    made_by = provenance(options)
    objects = dicom_objects()
    source = objects.read_source(options.source, options.series)
    made = objects.encapsulated_pdf(source, made_by, regular_file(options.pdf).read_bytes(), options.title)
    write(options, made, "pdf")
