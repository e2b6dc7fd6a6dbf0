"""The Dockerfile, as far as it can be read without a container engine; docs/gpu.md says what was built with one."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
INSTRUCTIONS = [
    line.split(maxsplit=1)
    for line in re.sub(r"\\\n", " ", (ROOT / "Dockerfile").read_text()).splitlines()
    if line.strip() and not line.startswith("#")
]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def stages():
    """Of each stage by name: its instructions, in order."""
    found = {}
    for word, rest in INSTRUCTIONS:
        if word == "FROM":
            found[rest.split()[-1]] = current = []
        elif found:
            current.append((word, rest))
    return found


def test_what_is_copied_is_there_and_reaches_the_build():
    ignored = [line.rstrip("/") for line in (ROOT / ".dockerignore").read_text().split() if not line.startswith("#")]
    copied = [source for word, rest in stages()["wheels"] if word == "COPY" for source in rest.split()[:-1]]
    assert {"pyproject.toml", "src", "engines"} <= set(copied)
    for source in copied:
        assert (ROOT / source).exists() and source not in ignored


@pytest.mark.parametrize("target", ["cpu", "gpu"])
def test_a_target_ends_as_nobody_special_says_how_it_is_and_has_extras_that_exist(target):
    stage = stages()[target]
    words = [word for word, _ in stage]
    assert dict(stage)["USER"] == "fluoronav" and "COPY" not in words[words.index("USER") :]
    assert dict(stage)["HEALTHCHECK"].endswith('CMD ["fluoronav", "status"]')
    installed = next(rest for word, rest in stage if word == "RUN" and "pip install" in rest)
    extras = re.search(r"whl\)\[([^]]+)\]", installed)[1].split(",")
    assert set(extras) <= set(PROJECT["project"]["optional-dependencies"])
    for word, rest in stage:
        assert word != "RUN" or not re.search(r"\b(gcc|g\+\+|build-essential)\b", rest)


def test_the_launch_file_that_it_runs_is_in_the_wheel():
    inside = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    for stage in ("cpu", "gpu"):
        started = dict(stages()[stage])["CMD"]
        path = re.search(r"site-packages/(fluoronav/.*)\"", started)[1]
        source, target = next((s, t) for s, t in inside.items() if path.startswith(t))
        assert (ROOT / source / path[len(target) + 1 :]).is_file()
