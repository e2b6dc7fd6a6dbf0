"""`fluoronav` with threads that the system knows by their Python names, as Python itself does from 3.14 on.

``python -m fluoronav.lab.bench.faults.named_threads run LAUNCH``. Nothing else differs.
"""

from __future__ import annotations

import contextlib
import runpy
import sys
import threading
from pathlib import Path

NAMED_THREADS = (sys.executable, "-m", __spec__.name)
_LETTERS = 15  # of a thread's name that Linux keeps
# Of the pools on the frame path; every other pool works in the background.
_FRAME_PATH = ("beside", "prepare")


def threads_of(pid: int) -> dict[int, str]:
    """Names of a process's threads, by their number; empty where the system does not tell."""
    found = {}
    for folder in Path(f"/proc/{pid}/task").glob("*"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            found[int(folder.name)] = (folder / "comm").read_text().strip()
    return found


def background_threads(pid: int) -> dict[int, str]:
    """Threads of the stages' background workers, by their number.

    Parameters
    ----------
    pid : int
        A pipeline that was started with `NAMED_THREADS`.
    """
    return {t: name for t, name in threads_of(pid).items() if is_background(name)}


def is_background(name: str) -> bool:
    """Whether a thread's name is that of a background worker: a pool's, ``search_0``, and not the frame path's."""
    pool, _, number = name.rpartition("_")
    return number.isdigit() and pool not in _FRAME_PATH


def short(name: str) -> str:
    """A thread's name as long as Linux keeps it, with a pool's number at its end."""
    pool, _, number = name.rpartition("_")
    return f"{pool[: _LETTERS - 1 - len(number)]}_{number}" if number.isdigit() else name[:_LETTERS]


def name_new_threads() -> None:
    """Tells the system the name of each thread that begins from now on in this process."""
    run = threading.Thread.run

    def named(thread: threading.Thread) -> None:
        with contextlib.suppress(OSError):
            Path(f"/proc/self/task/{threading.get_native_id()}/comm").write_text(short(thread.name))
        run(thread)

    threading.Thread.run = named  # type: ignore[method-assign]


if __name__ == "__main__":
    name_new_threads()
    runpy.run_module("fluoronav", run_name="__main__", alter_sys=True)
