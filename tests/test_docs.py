"""What the documentation names exists: files, links, headings, commands and their options."""

import argparse
import re
from pathlib import Path

import pytest

from fluoronav.cli import build_parser
from tests.conftest import ROOT

PAGES = [*sorted((ROOT / "docs").glob("*.md")), ROOT / "README.md", ROOT / "CHANGELOG.md", ROOT / "engines/README.md"]
# A path in backticks may be given from the checkout, from the page, or from these folders.
STARTS = ("", "src/fluoronav", "src/fluoronav/stream")
TOP = {p.name for start in STARTS for p in (ROOT / start).iterdir() if p.is_dir()} - {"docs"}
ENDINGS = "py|md|json|jsonl|yaml|yml|onnx|npz|js|css|html|sh|png|jpg|toml|nrrd"
# Files that a user or a program writes.
WRITTEN = {
    "SITE.yaml",
    "case.yaml",
    "plan.yaml",
    "launch.yaml",
    "start.json",
    "pose.json",
    "still.png",
    "pose.png",
    "carm.yaml",
    "demo.png",
    "plan/NNNN.yaml",
    "provenance.jsonl",
    "questions.json",
    "live/acceptance.json",
    "feedback.jsonl",
}


def without_blocks(text):
    return re.sub(r"^\s*```.*?^\s*```", "", text, flags=re.M | re.S)


def names_a_path(code):
    """Whether code in backticks is a path of the repository: it begins with one of its folders, or ends as files do."""
    if not re.fullmatch(r"[\w.*/-]+", code) or code.startswith((".", "/")) or "out/" in code:
        return False
    first, slash, _ = code.partition("/")
    return (bool(slash) and first in TOP and "*/" not in code) or bool(re.fullmatch(rf"[\w./*-]+\.({ENDINGS})", code))


def exists(code, page):
    places = [ROOT / start for start in STARTS] + [page.parent]
    if any(any(place.glob(code)) for place in places):
        return True
    return "/" not in code and any((ROOT / "src").rglob(code))


def slug(heading):
    """The anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def verbs(parser, before=()):
    """Every command of the parser, as words, with the options that it takes."""
    yield before, {o for a in parser._actions for o in a.option_strings}
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, under in action.choices.items():
                yield from verbs(under, (*before, name))


COMMANDS = dict(verbs(build_parser()))


def quoted(text):
    """Commands of fluoronav in blocks and in backticks, as lists of words."""
    text = re.sub(r"\\\n\s*", " ", text)
    inline = [m[1] for m in re.finditer(r"`(fluoronav [^`\n]+)`", text)]
    blocks = "\n".join(re.findall(r"^\s*```\w*\n(.*?)^\s*```", text, re.M | re.S))
    lines = [m[1] for m in re.finditer(r"^\s*(?:until )?(?:\S*/)?(fluoronav [^#\n|;&]+)", blocks, re.M)]
    for command in inline + lines:
        yield [w.strip("[]") for w in command.split()[1:]]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_every_path_in_backticks_exists(page):
    found = {c for c in re.findall(r"`([^`\n]+)`", without_blocks(page.read_text())) if names_a_path(c)}
    assert {c for c in found - WRITTEN if not exists(c, page)} == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_every_relative_link_and_its_heading_exist(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", without_blocks(page.read_text())):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path) if path else page
        assert file.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", without_blocks(Path(file).read_text()), re.M)
            assert anchor in {slug(h) for h in headings}, target


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_every_command_that_is_quoted_exists_with_its_options(page):
    for words in quoted(page.read_text()):
        verb = tuple(words[:2]) if tuple(words[:2]) in COMMANDS else tuple(words[:1])
        if words[0].startswith(("-", "<")):
            continue
        assert verb in COMMANDS, f"fluoronav {' '.join(words)}"
        options = {w.split("=")[0] for w in words if w.startswith("--")}
        assert options <= COMMANDS[verb], f"fluoronav {' '.join(words)}"


def test_readme_and_the_bench_page_stay_short():
    for name, most in {"README.md": 120, "docs/benches.md": 150, "CHANGELOG.md": 120}.items():
        assert len((ROOT / name).read_text().splitlines()) <= most, name


def test_a_file_that_is_not_there_would_be_found():
    assert names_a_path("imaging/nothing.py") and not exists("imaging/nothing.py", ROOT / "README.md")
    assert names_a_path("enhancement/x.py") and not exists("enhancement/x.py", ROOT / "README.md")
    assert not names_a_path("overlay/*") and not names_a_path("tool/<tracker>")
