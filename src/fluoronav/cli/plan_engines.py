"""The engines of `fluoronav plan segment`: what each takes on the command line, and how it is made of that."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fluoronav.cli.arguments import positive

if TYPE_CHECKING:
    from fluoronav.planning.segmentation.engine import Engine

Click = tuple[str, tuple[float, float, float]]
_NUMBER = r"\s*(-?\d+(?:\.\d*)?)\s*"
_CLICK = re.compile(rf"(?:([A-Za-z]\d+)=)?{_NUMBER},{_NUMBER},{_NUMBER}")


@dataclass(frozen=True)
class EngineEntry:
    """One engine.

    Attributes
    ----------
    add_options : callable
        Adds its options to a group of the parser.
    make : callable
        Makes the engine of the parsed options; imports what it needs.
    text : str
        What it is, for the help.
    """

    add_options: Callable[[argparse._ArgumentGroup], None]
    make: Callable[[argparse.Namespace], Engine]
    text: str


def click(text: str) -> Click:
    """A point, with the vertebra that it lies in: "T12=x,y,z" or "x,y,z", LPS mm."""
    found = _CLICK.fullmatch(text)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not LEVEL=x,y,z, such as T12=12.5,-80,310 (LPS mm)")
    return (found[1] or "").upper(), (float(found[2]), float(found[3]), float(found[4]))


def levels(text: str) -> tuple[str, str]:
    """ "T12=L1": what the draft calls a vertebra, and which it is."""
    drafted, sign, true = text.upper().partition("=")
    if not sign or not drafted.strip() or not true.strip():
        raise argparse.ArgumentTypeError(f"{text!r} is not DRAFTED=TRUE, such as T12=L1")
    return drafted.strip(), true.strip()


def _atlas_options(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--level-of",
        type=levels,
        metavar="DRAFTED=TRUE",
        help="answers the question of the level: what the draft calls T12 is L1 (T12=L1), or it is right (T12=T12)",
    )
    group.add_argument("--spine-only", action="store_true", help="vertebrae alone; leave out ribs, organs and vessels")


def _make_atlas(options: argparse.Namespace) -> Engine:
    from fluoronav.planning.segmentation.atlas.engine import AtlasEngine, AtlasOptions

    if options.at is not None and not options.at[0]:
        raise ValueError("--at: say which vertebra the point lies in, such as T12=12.5,-80,310")
    return AtlasEngine(AtlasOptions(options.at, options.level_of, not options.spine_only))


def _network_options(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--model", type=Path, metavar="FOLDER", help="folder of the network with its card; see `plan model`"
    )
    group.add_argument(
        "--mirror", action="store_true", help="also run on mirrored windows and average: slower, a little smoother"
    )


def _make_network(options: argparse.Namespace) -> Engine:
    from fluoronav.planning.segmentation.network import NetworkEngine

    if options.model is None:
        raise ValueError("--engine network needs --model FOLDER, which holds the network and its card")
    return NetworkEngine(options.model, options.mirror)


def _import_options(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--from",
        dest="files",
        nargs="+",
        type=Path,
        default=[],
        metavar="FILE",
        help="label maps (NIfTI, NRRD, MetaImage), DICOM segmentations (SEG), or closed surfaces (STL, mm)",
    )
    group.add_argument(
        "--scheme",
        choices=("totalsegmentator", "totalsegmentator1", "totalsegmentator2", "verse"),
        help="what the values of label maps mean: this project's numbers, those of TotalSegmentator 1 or 2, or "
        "VerSe's; by default as the file or a .json or .csv beside it says",
    )
    group.add_argument("--names", type=Path, metavar="FILE", help="JSON or CSV that names the values of label maps")
    group.add_argument("--name", metavar="NAME", help="of the structure, for a mask of one, an STL, or a region")
    group.add_argument(
        "--coordinates", choices=("lps", "ras"), help="of STL files; by default as their header says, else LPS"
    )


def _make_import(options: argparse.Namespace) -> Engine:
    from fluoronav.planning.segmentation.imported.engine import ImportEngine, ImportOptions

    return ImportEngine(
        ImportOptions(tuple(options.files), options.scheme, options.names, options.name, options.coordinates)
    )


def _threshold_options(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--low-hu", type=float, metavar="HU", help="lowest value of the range; metal has 2500 and more")
    group.add_argument("--high-hu", type=float, default=float("inf"), metavar="HU", help="highest value of the range")
    group.add_argument(
        "--radius-mm", type=positive, metavar="MM", help="nothing farther from the point of --at is taken"
    )
    group.add_argument(
        "--opening-mm",
        type=float,
        default=0.0,
        metavar="MM",
        help="bridges thinner than twice this are cut before regions are told apart",
    )


def _make_threshold(options: argparse.Namespace) -> Engine:
    from fluoronav.planning.segmentation.threshold import Region, ThresholdEngine

    if options.low_hu is None or options.name is None:
        raise ValueError("--engine threshold needs --low-hu HU and --name NAME")
    seed = options.at[1] if options.at is not None else None
    radius = options.radius_mm if options.radius_mm is not None else float("inf")
    return ThresholdEngine(Region(options.name, options.low_hu, options.high_hu, seed, radius, options.opening_mm))


# In the order of the help text.
ENGINES: dict[str, EngineEntry] = {
    "atlas": EngineEntry(
        _atlas_options, _make_atlas, "registers a labelled chest CT: T1 to L2, and L3 with the shape of L2"
    ),
    "network": EngineEntry(_network_options, _make_network, "runs a network that a hospital brings"),
    "import": EngineEntry(_import_options, _make_import, "takes a segmentation that another program or a person made"),
    "threshold": EngineEntry(_threshold_options, _make_threshold, "takes a range of HU around a point"),
}


def add_engines(parser: argparse.ArgumentParser) -> None:
    """Adds `--engine` and the options of every engine."""
    names = "; ".join(f"{name}: {entry.text}" for name, entry in ENGINES.items())
    parser.add_argument("--engine", choices=list(ENGINES), default="atlas", help=names)
    parser.add_argument(
        "--at",
        type=click,
        metavar="LEVEL=X,Y,Z",
        help="a point, LPS mm: in the body of that vertebra for `atlas`, in the lesion or implant for `threshold` "
        "(there without LEVEL=)",
    )
    for name, entry in ENGINES.items():
        entry.add_options(parser.add_argument_group(f"--engine {name}"))


def make_engine(options: argparse.Namespace) -> Engine:
    """The engine that the options name.

    Raises
    ------
    ValueError
        An option is missing.
    """
    return ENGINES[options.engine].make(options)
