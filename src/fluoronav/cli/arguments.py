"""Argument types, options and help format that verbs share."""

from __future__ import annotations

import argparse
import os
import re
import textwrap
from collections.abc import Callable
from pathlib import Path

from fluoronav.paths import shipped
from fluoronav.validation import checked_endpoint

Handler = Callable[[argparse.Namespace], int | None]
CASE_HELP = "`embedded`, a case.yaml or its folder"
_HELP_WIDTH = 100


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Keeps descriptions and examples as written; adds a default to the help of each option that has one."""

    def _get_help_string(self, action: argparse.Action) -> str:
        text = action.help or ""
        if action.default in (None, False, [], argparse.SUPPRESS) or "%(default)" in text:
            return text
        if isinstance(action.default, list):
            return f"{text} (default: {' '.join(map(str, action.default))})"
        return f"{text} (default: %(default)s)"


def add_verb(
    verbs: argparse._SubParsersAction, name: str, text: str, handler: Handler, *examples: str
) -> argparse.ArgumentParser:
    """Adds a verb with its help text and examples.

    Parameters
    ----------
    verbs : subparsers
        Of the whole command, or of a family.
    name, text : str
    handler : callable
        Takes the parsed options; returns the exit status, None for 0.
    *examples : str
        Whole command lines.
    """
    parser = verbs.add_parser(
        name,
        help=text.replace("%", "%%"),
        description=textwrap.fill(text[0].upper() + text[1:] + ".", _HELP_WIDTH),
        epilog=_examples(examples),
        formatter_class=HelpFormatter,
    )
    parser.set_defaults(run=handler)
    return parser


def add_family(verbs: argparse._SubParsersAction, name: str, text: str, *examples: str) -> argparse._SubParsersAction:
    """Adds a name under which several verbs stand, such as `bench`; returns their subparsers."""
    parser = verbs.add_parser(
        name,
        help=text.replace("%", "%%"),
        description=text[0].upper() + text[1:] + ".",
        epilog=_examples(examples),
        formatter_class=HelpFormatter,
    )
    return parser.add_subparsers(dest="what", required=True, metavar="verb")


def _examples(lines: tuple[str, ...]) -> str:
    return "\n".join(["examples:" if len(lines) > 1 else "example:", *(f"  {line}" for line in lines)])


def positive(text: str) -> float:
    value = float(text)
    if not 0 < value < 1e6:
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return value


def not_negative(text: str) -> float:
    value = float(text)
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not 0 or more")
    return value


def count(text: str) -> int:
    value = int(text)
    if not 0 <= value <= 10_000_000:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 10,000,000")
    return value


def at_least_one(text: str) -> int:
    value = count(text)
    if value == 0:
        raise argparse.ArgumentTypeError("0 is too few: give 1 or more")
    return value


def image_size(text: str) -> int:
    value = int(text)
    if not 128 <= value <= 4096:
        raise argparse.ArgumentTypeError(f"{text} is not between 128 and 4096")
    return value


def page_size(text: str) -> tuple[int, int]:
    """A page's width and height, px, as in 3840x2160."""
    found = re.fullmatch(r"(\d{3,4})x(\d{3,4})", text)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text} is not WIDTHxHEIGHT in pixels, such as 1920x1080")
    return int(found[1]), int(found[2])


def host_and_port(text: str) -> tuple[str, int]:
    host, _, number = text.rpartition(":")
    if not host or not number.isdigit() or not 0 < int(number) < 65536:
        raise argparse.ArgumentTypeError(f"{text} is not HOST:PORT")
    return host, int(number)


def port(text: str) -> int:
    if not text.isdigit() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text} is not a port, 0 to 65535")
    return int(text)


def folder_to_write(text: str) -> Path:
    """A folder that is there and may be written to, or that can be made."""
    path = Path(text)
    there = next(p for p in (path.absolute(), *path.absolute().parents) if p.exists())
    if not there.is_dir():
        raise argparse.ArgumentTypeError(f"{path}: {there} is a file, not a folder")
    if not os.access(there, os.W_OK | os.X_OK):
        raise argparse.ArgumentTypeError(f"{path}: {there} may not be written to: name another folder")
    return path


def file_to_write(text: str) -> Path:
    """A file whose folder may be written to; it is checked before the work whose result it takes."""
    path = Path(text)
    if path.is_dir():
        raise argparse.ArgumentTypeError(f"{path}: is a folder; name a file in it")
    folder_to_write(str(path.parent))
    return path


def endpoint(text: str) -> str:
    """A ZeroMQ endpoint, ``tcp://host:port`` or ``ipc://path``."""
    try:
        return checked_endpoint(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def label_or_file(text: str) -> int | Path:
    return count(text) if text.isdigit() else Path(text)


def add_json(parser: argparse._ActionsContainer, default: str | None = None, what: str = "the figures") -> None:
    """``--json FILE``, which every verb has that measures; required where there is no default."""
    parser.add_argument(
        "--json",
        type=file_to_write,
        required=default is None,
        default=default and Path(default),
        metavar="FILE",
        help=f"write {what} to this JSON file",
    )


def add_data(parser: argparse._ActionsContainer, holds: str) -> None:
    """``--data FOLDER``: the patients that a bench measures on."""
    parser.add_argument(
        "--data", type=Path, default=Path("../shared/data"), metavar="FOLDER", help=f"folder that holds {holds}"
    )


def add_launch(parser: argparse._ActionsContainer, *, positional: bool = False) -> None:
    """The launch file of the pipeline, by default that of the demo."""
    text = "launch file of the pipeline (YAML)"
    default = shipped("launch/demo.yaml")
    if positional:
        parser.add_argument("launch", nargs="?", type=Path, default=default, help=text)
    else:
        parser.add_argument("--launch", type=Path, default=default, metavar="FILE", help=text)


def add_serving(parser: argparse._ActionsContainer, default_port: int) -> None:
    """``--host``, ``--port`` and ``--allowed-host`` of what serves a page."""
    parser.add_argument("--host", default="127.0.0.1", help="address to serve at; 0.0.0.0 serves other computers too")
    parser.add_argument("--port", type=port, default=default_port, help="port to serve at; 0 takes any free port")
    parser.add_argument(
        "--allowed-host",
        action="append",
        default=[],
        metavar="NAME",
        help="host name under which browsers may request the page, besides its addresses and localhost; may be "
        "repeated",
    )


def add_endpoints(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """The endpoints that a stand-in for C-arm and tracker binds."""
    group = parser.add_argument_group("endpoints")
    group.add_argument(
        "--frames-endpoint",
        type=endpoint,
        default="tcp://127.0.0.1:5550",
        metavar="ENDPOINT",
        help="ZeroMQ endpoint of the frames",
    )
    group.add_argument(
        "--tools-endpoint",
        type=endpoint,
        default="tcp://127.0.0.1:5553",
        metavar="ENDPOINT",
        help="ZeroMQ endpoint of the tracker's tool poses",
    )
    return group


def add_field(parser: argparse.ArgumentParser) -> None:
    """The collimation of the simulated C-arm."""
    field = parser.add_argument_group("collimation")
    field.add_argument(
        "--aperture",
        type=positive,
        default=0.98,
        metavar="FRACTION",
        help="diameter of the round aperture, as a fraction of the image width; above 1.42 it hides nothing",
    )
    field.add_argument(
        "--blades",
        type=positive,
        default=0.9,
        metavar="FRACTION",
        help="distance between the two lateral blades, as a fraction of the image width; 0.45 leaves two fifths of "
        "the image",
    )
