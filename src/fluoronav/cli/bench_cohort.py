"""`fluoronav bench cohort`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fluoronav.cli.arguments import add_data, add_json, add_verb, at_least_one, count, positive
from fluoronav.cli.reporting import missing_extra, report, say

if TYPE_CHECKING:
    from fluoronav.lab.bench.cohort import Scene

_WORST = 5


def add_verbs(verbs: argparse._SubParsersAction) -> None:
    cohort = add_verb(
        verbs,
        "cohort",
        "measure the registration on patients and scenes that it was not tuned on, rendered by an X-ray simulator that "
        "shares no code with the projector: believed, wrong, error (mm, degrees), and whether the bounds hold",
        _cohort,
        "fluoronav bench cohort --frames 4 --json out/cohort.json",
        "fluoronav bench cohort --scenes screws-6 screws-10 --pictures out/cohort",
        "fluoronav bench cohort --ct lee=lee.nii.gz,lee-labels.nii.gz --scheduler tcp://cluster:8786",
        "fluoronav bench cohort --stream 30 --png out/cohort-stream.png",
        "fluoronav bench cohort --wrong 2000 --into out/cohort-wrong.json",
        "fluoronav bench cohort --merge monday.json tuesday.json --json out/cohort.json",
    )
    cohort.add_argument("--scenes", nargs="+", metavar="SCENE", help="measure these scenes only")
    cohort.add_argument("--list", action="store_true", help="print the scenes with what they are, and run none")
    cohort.add_argument("--frames", type=at_least_one, default=8, help="exposures of each scene")
    cohort.add_argument("--seed", type=count, default=0, help="of the first exposure; the others follow")
    cohort.add_argument(
        "--ct", action="append", default=[], metavar="NAME=CT[,LABELS]",
        help="a patient: CT (NRRD, NIfTI or DICOM folder) and label map as of TotalSegmentator 1; may be given several "
        "times; by default those of --data, and without these the embedded case",
    )  # fmt: skip
    add_data(cohort, "chest/, planning/patient_b/, and for --wrong the real frames of knee/ and wrist/")
    cohort.add_argument(
        "--scheduler", metavar="ADDRESS",
        help="Dask scheduler to run on, tcp://HOST:PORT; its workers must see the same files (default: this computer)",
    )  # fmt: skip
    cohort.add_argument("--workers", type=count, default=0, help="processes on this computer; 0: one for each core")
    cohort.add_argument(
        "--pictures", type=Path, metavar="FOLDER",
        help=f"write the {_WORST} worst exposures here, with the target bone where it is (green) and was found (red)",
    )  # fmt: skip
    cohort.add_argument(
        "--stream", type=positive, metavar="S",
        help="instead of stills, show one patient who breathes before a turning C-arm for so many seconds",
    )  # fmt: skip
    cohort.add_argument("--fps", type=positive, default=10.0, help="frames per second of --stream")
    cohort.add_argument(
        "--screws", type=count, default=0, metavar="N",
        help="pedicle screws (10: in five vertebrae) with two rods in the patient of --stream, not in the CT",
    )  # fmt: skip
    cohort.add_argument("--png", type=Path, metavar="FILE", help="draw error and bound over time of --stream here")
    cohort.add_argument(
        "--wrong", type=count, metavar="N",
        help="instead of the scenes, show N small pictures that must not be believed: mirrored, of another patient, of "
        "another region, aimed beside the target, or of nobody, from the number --seed on",
    )  # fmt: skip
    cohort.add_argument(
        "--into",
        type=Path,
        metavar="FILE",
        help="write to this file in place of --json while measuring; exposures that it has are not measured again",
    )
    cohort.add_argument(
        "--merge",
        nargs="+",
        type=Path,
        metavar="FILE",
        help="measure nothing: put the exposures of these files together, of equal ones the last",
    )
    add_json(cohort, "out/cohort.json")


def _cohort(options: argparse.Namespace) -> int:
    from fluoronav.lab.bench.cohort import SCENES, known_people, spec_of
    from fluoronav.lab.bench.cohort.scenes import chosen

    if options.list:
        print("\n".join(f"{s.name:20}{s.what}" for s in SCENES))
        return 0
    if options.merge:
        return _merge(options)
    people = [spec_of(text) for text in options.ct] or known_people(options.data)
    scenes = chosen(options.scenes)
    if options.stream:
        return _stream(options, people)
    try:
        return _wrong(options, people) if options.wrong else _stills(options, scenes, people)
    except ImportError as error:
        raise missing_extra("bench", error) from error


def _workers(options: argparse.Namespace) -> int:
    from fluoronav.lab import machine

    return options.workers or machine.processor_cores()


def _stills(options: argparse.Namespace, scenes: list[Scene], people: list[tuple[str, ...]]) -> int:
    from fluoronav.lab.bench.cohort.bench import bench_cohort
    from fluoronav.lab.bench.cohort.pictures import write_pictures
    from fluoronav.lab.bench.cohort.report import table, worst

    settings = options.frames, options.seed, people, options.scheduler, _workers(options)
    result = bench_cohort(scenes, *settings, say, options.into)
    _report(table(result), result, options)
    if options.pictures:
        paths = write_pictures(worst(result["rows"], _WORST), people, options.pictures)
        print(f"written: {', '.join(map(str, paths))}")
    return 0


def _wrong(options: argparse.Namespace, people: list[tuple[str, ...]]) -> int:
    from fluoronav.lab.bench.cohort.pictures import write_pictures
    from fluoronav.lab.bench.cohort.wrong import exposure_of, real_pictures
    from fluoronav.lab.bench.cohort.wrong_bench import bench_wrong, wrong_table

    real = real_pictures(options.data)
    result = bench_wrong(
        options.wrong, options.seed, people, options.scheduler, _workers(options), say, options.into, real
    )
    _report(wrong_table(result), result, options)
    wrong = [row for row in result["rows"] if row["wrong_believed"]]
    if options.pictures and wrong:
        paths = write_pictures(
            wrong, people, options.pictures, lambda kind, seed, of: exposure_of(kind, seed, of, real)[0]
        )
        print(f"written: {', '.join(map(str, paths))}")
    return 0


def _merge(options: argparse.Namespace) -> int:
    from fluoronav.lab.bench.cohort.bench import result_of
    from fluoronav.lab.bench.cohort.kept import merged, what_of
    from fluoronav.lab.bench.cohort.report import table
    from fluoronav.lab.bench.cohort.wrong_bench import WHAT, wrong_result, wrong_table

    rows, people = merged(options.merge)
    result, text = (wrong_result, wrong_table) if what_of(options.merge[0]) == WHAT else (result_of, table)
    found = result(rows, people)
    _report(text(found), found, options)
    return 0


def _report(table: str, result: dict[str, Any], options: argparse.Namespace) -> None:
    """Prints a table and writes the figures to --into or --json."""
    path = options.into or options.json
    report(table, result, path)
    print(f"written: {path}")


def _stream(options: argparse.Namespace, people: list[tuple[str, ...]]) -> int:
    from fluoronav.lab.bench.cohort.stream import bench_stream, draw, table

    try:
        run, result = bench_stream(people, options.stream, options.fps, options.seed, say, options.screws)
        png = options.png or options.json.with_suffix(".png")
        draw(run, png)
    except ImportError as error:
        raise missing_extra("bench", error) from error
    report(table(result), result, options.json)
    print(f"written: {options.json}, {png}")
    return 0
