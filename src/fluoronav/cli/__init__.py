"""``fluoronav <verb>``: one module per verb, or per family of verbs."""

from __future__ import annotations

import argparse
import errno
import logging
import os
import sys
from collections.abc import Sequence

from fluoronav import __version__
from fluoronav.cli import (
    audit,
    bench,
    bridge,
    calibrate,
    case,
    check,
    demo,
    dicom,
    display,
    engines,
    kernels,
    pacs,
    plan,
    recording,
    register,
    report,
    run,
    simulate,
    site,
    status,
    workspace,
)
from fluoronav.cli.arguments import HelpFormatter

_DESCRIPTION = """\
Live fluoroscopy in, surgical guidance out, inside one frame period.

  fluoronav demo                               the whole loop on a real CT, with a picture and a report
  fluoronav run launch/demo.yaml               the pipeline, until SIGTERM or Ctrl-C
  fluoronav simulate embedded --fps 30         a simulated C-arm that feeds it
  fluoronav bench latency --fps 30             exposure to overlay, measured

Lengths are in mm, angles in degrees, times in the unit that their name ends with.
"""
_EPILOG = "`fluoronav VERB --help` describes the options of a verb and gives examples."
# In the order of the help text.
_MODULES = (
    demo, run, simulate, case, plan, workspace, report, dicom, register, calibrate, check, display, recording, audit,
    bridge, pacs, site, engines, kernels, status, bench,
)  # fmt: skip


def build_parser() -> argparse.ArgumentParser:
    """The parser of all verbs."""
    parser = argparse.ArgumentParser(
        prog="fluoronav", description=_DESCRIPTION, epilog=_EPILOG, formatter_class=HelpFormatter
    )
    parser.add_argument("--version", action="version", version=f"fluoronav {__version__}")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="verb")
    for module in _MODULES:
        module.add_verbs(verbs)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one verb; returns the exit status."""
    options = build_parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        return options.run(options) or 0
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        return 141
    except (ValueError, OSError, RuntimeError) as error:
        # The text of these errors tells the user what to do; the traceback is for developers.
        if os.environ.get("FLUORONAV_TRACE"):
            raise
        print(f"fluoronav {options.verb}: {_in_words(error)}", file=sys.stderr)
        return 1


_FAULTS = {
    errno.ENOENT: "no such file or folder",
    errno.EEXIST: "is there already",
    errno.EISDIR: "is a folder; name a file",
    errno.ENOTDIR: "a file stands where a folder is needed",
    errno.EACCES: "access is denied: ask who owns it, or name another place",
    errno.EROFS: "the disk is read-only; name another place",
    errno.ENOSPC: "the disk is full",
}


def _in_words(error: Exception) -> str:
    """An error's text; of a bare one of the operating system, the file first and no number."""
    if isinstance(error, OSError) and error.filename is not None and error.errno in _FAULTS:
        return f"{os.fsdecode(error.filename)}: {_FAULTS[error.errno]}"
    return str(error)
