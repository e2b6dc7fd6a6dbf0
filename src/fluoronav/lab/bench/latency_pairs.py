"""`bench latency` of one or two checkouts, each run in a process of its own; two checkouts are measured in turns."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import fluoronav

Say = Callable[[str], None]
_PYTHON = (sys.executable, "-m", "fluoronav")
# Of the run before the measurement, which compiles kernels and renders the frames; chosen: a search takes 6 s at most.
_WARM_FRAMES = 240


class PairError(RuntimeError):
    """A checkout cannot be measured; the text says which, and why."""


@dataclass(frozen=True)
class Measure:
    """A figure of a run.

    Attributes
    ----------
    label : str
        With its unit.
    path : tuple of str
        Keys that lead to it in the JSON of `bench latency`.
    decimals : int
    percent_of : tuple of str
        It is shown as a percentage of this figure; empty where it is shown as it is.
    ratio : bool
        Whether the ratio of two checkouts says something; it does not for counts that may be 0.
    factor : float
        From the JSON's unit to the label's.
    """

    label: str
    path: tuple[str, ...]
    decimals: int = 1
    percent_of: tuple[str, ...] = ()
    ratio: bool = True
    factor: float = 1.0

    def of(self, result: Mapping[str, Any]) -> float | None:
        """Its value in a run; None where the run does not say it, as older checkouts do not."""
        value = _at(result, self.path)
        if value is None or not self.percent_of:
            return value if value is None else self.factor * value
        whole = _at(result, self.percent_of)
        return 100 * value / whole if whole else None


MEASURES = {
    "p50_ms": Measure("end to end, p50, ms", ("end_to_end_ms", "p50")),
    "p99_ms": Measure("end to end, p99, ms", ("end_to_end_ms", "p99")),
    "p99_9_ms": Measure("end to end, p99.9, ms", ("end_to_end_ms", "p99_9")),
    "late_percent": Measure("late, %", ("frames", "missed"), 2, ("frames", "overlays"), False),
    "dropped": Measure("dropped, frames", ("frames", "dropped"), 0, (), False),
    "registration_p50_ms": Measure("registration, p50, ms", ("stages_ms", "registration", "p50")),
    "registration_p99_ms": Measure("registration, p99, ms", ("stages_ms", "registration", "p99")),
    "detection_p50_ms": Measure("detection, p50, ms", ("stages_ms", "detection", "p50")),
    "detection_ran": Measure("detection looked in, %", ("tracking", "detection_ran"), 0, (), False, 100.0),
    "with_pose_percent": Measure("with a pose, %", ("tracking", "with_pose"), 1, ("frames", "overlays"), False),
    "first_pose_s": Measure("first frame to first pose, s", ("start_s", "first_pose"), 2),
    "first_overlay_s": Measure("start to first overlay, s", ("start_s", "first_overlay"), 2),
    "cpu_percent": Measure("load, % of a core", ("cpu_percent",), 0),
    "across_mm": Measure("error across the ray, median, mm", ("tracking", "across_mm", "p50"), 3),
    "across_95_mm": Measure("error across the ray, 95 %, mm", ("tracking", "across_mm", "p95"), 3),
}


@dataclass(frozen=True)
class Side:
    """A checkout to measure.

    Attributes
    ----------
    name : {"this", "against"}
    source : Path
        Folder that holds the package `fluoronav`.
    revision : str
        Its commit, `+ changes` where files differ from it; empty outside git.
    """

    name: str
    source: Path
    revision: str


def this_checkout() -> Side:
    """The code that runs now."""
    source = Path(fluoronav.__file__).resolve().parents[1]
    return Side("this", source, _revision(source))


def other_checkout(folder: Path) -> Side:
    """Another checkout.

    Raises
    ------
    PairError
        There is no package in it.
    """
    source = folder.resolve() / "src"
    if not (source / "fluoronav" / "__init__.py").is_file():
        raise PairError(f"{folder}: no src/fluoronav there; name the folder of a source checkout (git worktree add)")
    return Side("against", source, _revision(source))


def bench_pairs(
    sides: tuple[Side, Side], arguments: Sequence[str], pairs: int, environment: Mapping[str, str], say: Say
) -> dict[str, Any]:
    """Measures two checkouts in turns: A B, B A, A B, so that what drifts on the computer meets both.

    Parameters
    ----------
    sides : tuple of Side
    arguments : sequence of str
        Further options of `bench latency`, which both checkouts must know.
    pairs : int
        At least 1.
    environment : mapping
        Of every process.
    say : callable

    Returns
    -------
    dict
        ``this`` and ``against`` (revision, version), ``pairs`` (the runs in their order), ``summary`` (by measure: the
        values of both, and the ratio's median, lowest and highest), ``machine`` and ``versions``.

    Raises
    ------
    PairError
    """
    for side in sides:
        say(f"{_named(side)}: a short run first, which compiles kernels (once for each checkout: up to two minutes)")
        run_bench(side, [*arguments, "--frames", str(_WARM_FRAMES)], environment)
    turns = []
    for k in range(pairs):
        runs: dict[str, Any] = {}
        for side in sides if k % 2 == 0 else sides[::-1]:
            say(f"pair {k + 1} of {pairs}: {_named(side)}")
            result = runs[side.name] = run_bench(side, arguments, environment)
            if result.get("failed"):
                raise PairError(f"{_named(side)}: {result['failed']}")
        turns.append(runs)
    last = turns[-1]["this"]
    return {
        **{s.name: {"revision": s.revision, "version": turns[-1][s.name]["versions"]["fluoronav"]} for s in sides},
        "pairs": turns,
        "summary": summary(turns),
        "settings": last["settings"],
        "machine": last["machine"],
        "versions": last["versions"],
    }


def run_bench(side: Side, arguments: Sequence[str], environment: Mapping[str, str]) -> dict[str, Any]:
    """Runs `bench latency` of a checkout; returns its JSON, whose ``failed`` says why there is no result.

    Raises
    ------
    PairError
        It wrote no JSON, or another copy of the package was imported.
    """
    own = _with_source(side, environment)
    with tempfile.TemporaryDirectory() as folder:
        imported = subprocess.run(
            [sys.executable, "-c", "import fluoronav; print(fluoronav.__file__)"],
            env=own, cwd=folder, capture_output=True, text=True, check=False,
        )  # fmt: skip
        if not Path(imported.stdout.strip()).is_relative_to(side.source):
            raise PairError(f"{_named(side)}: Python imports {imported.stdout or imported.stderr} and not its src/")
        result = Path(folder) / "latency.json"
        done = subprocess.run(
            [*_PYTHON, "bench", "latency", *arguments, "--json", str(result)],
            env=own, cwd=folder, stdout=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
        if not result.exists():
            raise PairError(f"{_named(side)}: `bench latency` ended with {done.returncode}: {_last(done.stdout)}")
        return json.loads(result.read_text())


def run_alone(arguments: Sequence[str], where: Sequence[str], environment: Mapping[str, str], say: Say) -> int:
    """Runs this checkout's `bench latency` in another environment, after a short run that compiles its kernels.

    Parameters
    ----------
    arguments : sequence of str
        Options of `bench latency`.
    where : sequence of str
        Those that say where its files are written.
    environment : mapping
    say : callable

    Returns
    -------
    int
        Exit status of the run.

    Raises
    ------
    PairError
        The short run failed.
    """
    side = this_checkout()
    say("a short run first, which compiles the kernels (the first time up to two minutes) and is not measured")
    run_bench(side, [*arguments, "--frames", str(_WARM_FRAMES)], environment)
    say("measuring")
    return subprocess.run(
        [*_PYTHON, "bench", "latency", *arguments, *where], env=_with_source(side, environment), check=False
    ).returncode


def summary(turns: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """By measure: the values of ``this`` and ``against`` in every pair, and the ``ratio`` of the first to the second.

    Parameters
    ----------
    turns : sequence of mapping
        From ``this`` and ``against`` to the JSON of `bench latency`.
    """
    found = {}
    for name, measure in MEASURES.items():
        values = [(measure.of(runs["this"]), measure.of(runs["against"])) for runs in turns]
        ratios = [a / b for a, b in values if a is not None and b] if measure.ratio else []
        found[name] = {
            "this": [a for a, _ in values],
            "against": [b for _, b in values],
            "ratio": {"median": median(ratios), "lowest": min(ratios), "highest": max(ratios)} if ratios else None,
        }
    return found


def table(result: Mapping[str, Any]) -> str:
    """The pairs as text."""
    from fluoronav.lab import machine

    lines = [*(machine.words(result["machine"])), ""]
    lines += [f"{name:8} {result[name]['version']} {result[name]['revision']}" for name in ("this", "against")]
    lines += ["", f"{'median (lowest to highest)':36}{'this':>26}{'against':>26}{'this / against':>26}"]
    for name, found in result["summary"].items():
        measure = MEASURES[name]
        both = (spread(found[side], measure.decimals) for side in ("this", "against"))
        lines.append(f"{measure.label:36}" + "".join(f"{text:>26}" for text in (*both, ratio_words(found["ratio"]))))
    return "\n".join(lines)


def spread(values: Sequence[float | None], decimals: int) -> str:
    """Median, and the range in brackets where there are several values; `-` without any."""
    known = [v for v in values if v is not None]
    if not known:
        return "-"
    middle, low, high = (f"{v:.{decimals}f}" for v in (median(known), min(known), max(known)))
    return middle if low == high else f"{middle} ({low} to {high})"


def ratio_words(ratio: Mapping[str, float] | None) -> str:
    """Median and range of a ratio; `-` where there is none."""
    return "-" if ratio is None else spread([ratio["lowest"], ratio["median"], ratio["highest"]], 2)


def _with_source(side: Side, environment: Mapping[str, str]) -> dict[str, str]:
    """The environment in which Python imports a checkout's package."""
    path = [str(side.source), *filter(None, [environment.get("PYTHONPATH")])]
    return {**environment, "PYTHONPATH": os.pathsep.join(path)}


def _at(result: Any, path: Sequence[str]) -> Any:
    for key in path:
        result = result.get(key) if isinstance(result, Mapping) else None
    return result


def _named(side: Side) -> str:
    return f"{side.name} ({side.revision})" if side.revision else side.name


def _last(text: str) -> str:
    return next((line for line in reversed(text.splitlines()) if line.strip()), "it said nothing; see above")


def _revision(source: Path) -> str:
    def git(*words: str) -> str:
        done = subprocess.run(["git", "-C", str(source), *words], capture_output=True, text=True, check=False)
        return done.stdout.strip() if done.returncode == 0 else ""

    try:
        commit = git("rev-parse", "--short=10", "HEAD")
        return f"{commit} + changes" if commit and git("status", "--porcelain", "--untracked-files=no", ".") else commit
    except OSError:
        return ""
