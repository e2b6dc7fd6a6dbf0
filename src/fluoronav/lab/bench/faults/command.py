"""Runs one of our commands to its end, with a limit of time and memory, and judges how it ended."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fluoronav.lab.bench.faults.row import Outcome


@dataclass(frozen=True)
class CommandLimits:
    """Limits of a command; chosen."""

    most_mb: float = 4000.0  # resident memory above which it is killed, for the computer's other work
    look_every_s: float = 0.02  # memory and output
    last_letters: int = 500  # of its last line: two UIDs of series and their folder


LIMITS = CommandLimits()


@dataclass(frozen=True)
class Ended:
    """How a command ended.

    Attributes
    ----------
    code : int or None
        Its exit status; None if it was killed.
    text : str
        Its output, both streams.
    seconds : float
    peak_mb : float
        Its peak of resident memory; 0 if the system does not tell.
    """

    code: int | None
    text: str
    seconds: float
    peak_mb: float

    @property
    def last(self) -> str:
        """Its last line."""
        return (self.text.strip().splitlines() or ["it said nothing"])[-1].strip()[-LIMITS.last_letters :]


def fluoronav(
    *arguments: object, folder: Path, seconds: float = 60.0, until: str = "", cache: Path | None = None
) -> Ended:
    """Runs a command of ours.

    Parameters
    ----------
    *arguments
        Verb and arguments.
    folder : Path
        Working folder, also for its output.
    seconds : float
        Limit of time.
    until : str, optional
        It is killed once it has printed this.
    cache : Path, optional
        Its cache, in place of the user's, on systems with XDG folders.
    """
    path = folder / f"printed-{time.monotonic_ns()}.txt"
    begin, peak, code = time.monotonic(), 0.0, None
    environment = os.environ | ({} if cache is None else {"XDG_CACHE_HOME": str(cache)})
    with path.open("wb") as out:
        command = [sys.executable, "-m", "fluoronav", *map(str, arguments)]
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, cwd=folder, env=environment
        )
        try:
            while (code := process.poll()) is None and time.monotonic() - begin < seconds:
                peak = max(peak, _peak_mb(process.pid))
                if peak > LIMITS.most_mb or (until and until in path.read_text(errors="replace")):
                    break
                time.sleep(LIMITS.look_every_s)
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()
    return Ended(code, path.read_text(errors="replace"), time.monotonic() - begin, peak)


def refusal(ended: Ended, *words: str, within_s: float = 30.0, most_mb: float = 1500.0) -> Outcome:
    """Judges whether a command refused its input with a reason, in time and with little memory.

    Parameters
    ----------
    ended : Ended
    *words : str
        One of them must be in its output.
    within_s, most_mb : float
    """
    outcome = Outcome(seen=ended.last)
    if ended.code is None and ended.peak_mb <= LIMITS.most_mb:
        outcome.problems.append(f"no end after {ended.seconds:.0f} s")
    elif ended.code == 0:
        outcome.problems.append("accepted")
    elif "Traceback (most recent call last)" in ended.text:
        outcome.problems.append("a traceback")
    elif ended.code is not None and ended.code < 0:
        outcome.problems.append(f"ended by signal {-ended.code}")
    elif ended.code is not None and not any(w in ended.text.lower() for w in words):
        outcome.problems.append(f"refused without a word of {' or '.join(words)}")
    elif ended.code is not None:
        outcome.said_after_ms = ended.seconds * 1000
        if ended.seconds > within_s:
            outcome.problems.append(f"only after {ended.seconds:.0f} s")
    if ended.peak_mb > most_mb:
        outcome.problems.append(f"{ended.peak_mb:.0f} MB of memory")
    return outcome


def named(ended: Ended, *words: str) -> Outcome:
    """Judges whether a command refused its input, or accepted it and reported the oddity, with one of these words."""
    outcome = refusal(ended, *words)
    said = any(w in ended.text.lower() for w in words)
    if ended.code == 0:
        outcome.problems = [] if said else ["accepted without a word"]
        outcome.said_after_ms = ended.seconds * 1000 if said else None
    return outcome


def refused_with(ended: Ended, *words: str) -> Outcome:
    """Judges whether a command refused its input with all of these words."""
    outcome = refusal(ended, *(w.lower() for w in words))
    missing = [w for w in words if w.lower() not in ended.text.lower()]
    if missing and not outcome.problems:
        outcome.problems.append(f"refused without the word {' and '.join(missing)}")
    return outcome


def all_of(parts: Mapping[str, Outcome]) -> Outcome:
    """One outcome of several: all problems with their part's name, and the longest time until a report."""
    said = [o.said_after_ms for o in parts.values() if o.said_after_ms is not None]
    return Outcome(
        problems=[f"{name}: {problem}" for name, o in parts.items() for problem in o.problems],
        said_after_ms=max(said, default=None),
        seen="; ".join(f"{name}: {o.seen}" for name, o in parts.items() if o.seen),
    )


def _peak_mb(pid: int) -> float:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((float(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:")), 0.0)
