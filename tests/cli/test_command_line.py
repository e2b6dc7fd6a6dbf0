"""The command line: help of every verb, a fast start, and the form of its modules."""

import argparse
import importlib
import pkgutil
import subprocess
import sys

import pytest

import fluoronav.cli
from fluoronav.cli import build_parser, main

# Modules that verbs share.
SHARED = {"arguments", "dicom_output", "plan_engines", "plan_options", "reporting"}


def verbs(parser, path=()):
    """Every verb below a parser as (names, parser), families included."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, below in action.choices.items():
                yield (*path, name), below
                yield from verbs(below, (*path, name))


VERBS = dict(verbs(build_parser()))
EXAMPLES = [
    line.strip()
    for parser in VERBS.values()
    for line in parser.format_help().splitlines()
    if line.startswith("  fluoronav")
]


@pytest.mark.parametrize("names", VERBS, ids=" ".join)
def test_every_verb_has_help_with_an_example_of_itself(names):
    parser = VERBS[names]
    assert parser.description
    _, _, examples = parser.format_help().partition("\nexample")
    assert f"  fluoronav {' '.join(names)}" in examples


@pytest.mark.parametrize("names", VERBS, ids=" ".join)
def test_every_option_has_help_and_no_default_that_says_nothing(names):
    for action in VERBS[names]._actions:
        assert action.help or isinstance(action, argparse._SubParsersAction), action.dest
    text = VERBS[names].format_help()
    assert "(default: None)" not in text and "(default: [])" not in text and "(default: False)" not in text


@pytest.mark.parametrize("example", EXAMPLES)
def test_every_example_is_a_command_line_that_is_understood(example):
    build_parser().parse_args(example.split()[1:])


def test_the_verbs_are_those_that_scripts_and_documents_name():
    leaves = {" ".join(n) for n, parser in VERBS.items() if not list(verbs(parser))}
    bench = {"latency", "registration", "instruments", "enhancement", "display", "engines", "faults", "peers", "start"}
    bench |= {"pacs"}
    assert leaves >= {f"bench {b}" for b in bench} | {
        "demo", "run", "simulate", "case build", "register", "calibrate pivot", "calibrate detector", "display",
        "record", "replay", "dicom seg", "dicom sr", "dicom stl", "dicom pdf", "dicom xa", "dicom gsps", "dicom sc",
        "dicom reg", "dicom ko", "audit verify", "bridge igtl", "engines build", "engines verify", "kernels build",
        "kernels status", "status", "report briefing",
    }  # fmt: skip


def test_help_imports_no_heavy_library():
    code = (
        "import sys, fluoronav.cli\n"
        "try: fluoronav.cli.main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'numba', 'cv2', 'numpy', 'zmq', 'SimpleITK', 'onnxruntime'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "fluoronav demo" in done.stdout


def test_each_module_adds_verbs_and_has_no_other_public_function():
    names = {m.name for m in pkgutil.iter_modules(fluoronav.cli.__path__)}
    assert names >= SHARED
    for name in names - SHARED:
        module = importlib.import_module(f"fluoronav.cli.{name}")
        own = {
            n
            for n, v in vars(module).items()
            if getattr(v, "__module__", "") == module.__name__ and not n.startswith("_")
        }
        assert own == {"add_verbs"}, name


def test_an_error_that_a_user_can_mend_is_one_line_with_the_verb(tmp_path, capsys):
    assert main(["case", "build", str(tmp_path / "none.yaml")]) == 1
    error = capsys.readouterr().err.strip()
    assert error.startswith("fluoronav case: ") and "none.yaml" in error and "Traceback" not in error
