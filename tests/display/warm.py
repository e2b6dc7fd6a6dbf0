"""`fluoronav display`, forked from a process that has its modules and the embedded case already.

Each test has a server of its own, started by the command's arguments, and no start costs seconds of imports. The
command itself is started by tests/display/test_with_pipeline.py.
"""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

from tests.warm import FORKS


class WarmDisplay:
    """The display's server at a free port.

    Attributes
    ----------
    process : multiprocessing.Process
    watch, control : str
        The printed addresses.
    """

    def __init__(self, launch: Path) -> None:
        reader, writer = FORKS.Pipe(duplex=False)
        arguments = ["display", str(launch), "--port", "0"]
        self.process = FORKS.Process(target=_run, args=(arguments, writer), daemon=True)
        self.process.start()
        writer.close()
        with os.fdopen(os.dup(reader.fileno())) as said, reader:
            self.watch, self.control = (said.readline().split()[1] for _ in range(2))

    def close(self) -> None:
        self.process.terminate()
        self.process.join(5)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()


def _run(arguments: list[str], output) -> None:
    """In the fork: the command, with its output where the test reads it."""
    from fluoronav.cli import main

    os.dup2(output.fileno(), 1)
    sys.stdout = os.fdopen(1, "w")
    with contextlib.suppress(BrokenPipeError):
        sys.exit(main(arguments))
