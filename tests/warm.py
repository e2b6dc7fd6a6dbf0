"""`fluoronav` commands, forked from a process that has their modules already: no start costs seconds of imports.

Tests that are about the start or the end of a process start the command as a program instead.
"""

from __future__ import annotations

import atexit
import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["tests.display.preloaded", "tests.pacs.preloaded", "tests.live.preloaded"])
_RUNNING: set[WarmCommand] = set()


class WarmCommand:
    """A command that runs, with what tests use of `subprocess.Popen`.

    Parameters
    ----------
    arguments : sequence of str
        Without the program's name.
    stdout, stderr : Path
        Files that the command appends to; may be the same.
    """

    def __init__(self, arguments: Sequence[str], stdout: Path, stderr: Path) -> None:
        self.arguments = list(arguments)
        self._process = FORKS.Process(
            target=_run, args=(self.arguments, str(stdout), str(stderr), os.getcwd(), dict(os.environ))
        )
        self._process.start()
        self.pid = self._process.pid
        _RUNNING.add(self)

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired(self.arguments, timeout)
        _RUNNING.discard(self)
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def run(arguments: Sequence[str], timeout: float) -> subprocess.CompletedProcess[str]:
    """Runs a command to its end; what it printed is in the result, as text."""
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder) / "out", Path(folder) / "err"
        command = WarmCommand(arguments, out, err)
        try:
            code = command.wait(timeout)
        except subprocess.TimeoutExpired:
            command.kill()
            command.wait()
            raise
        return subprocess.CompletedProcess(command.arguments, code, out.read_text(), err.read_text())


def _run(arguments: list[str], stdout: str, stderr: str, folder: str, environment: dict[str, str]) -> None:
    """In the fork: the command, in the folder and with the environment that the test has now."""
    from fluoronav.cli import main

    for number, path in ((1, stdout), (2, stderr)):
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(file, number)
        os.close(file)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.exit(main(arguments))


@atexit.register
def _end_all() -> None:
    """Python waits at its end for every process that it started; one that a failed test left would hold it."""
    for command in list(_RUNNING):
        with contextlib.suppress(ProcessLookupError):
            command.kill()
