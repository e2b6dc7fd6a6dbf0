"""The cache of compiled kernels: one file for each kernel and signature, named by everything that it depends on.

A file is never changed: it is written under another name and renamed when complete, so that processes which compile
the same kernel at the same time, or are killed meanwhile, leave whole files only. It begins with the hash of its
content. What is foreign, stale or damaged is therefore not found or not believed, and is compiled anew.
"""

from __future__ import annotations

import hashlib
import logging
import os
import pickle
import platform
import sys
import time
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Any

import llvmlite
import numba
import platformdirs
from numba.core import sigutils
from numba.core.caching import _Cache  # pyright: ignore[reportPrivateUsage]
from numba.core.compiler import CompileResult
from numba.core.serialize import dumps

from fluoronav.kernels.stamp import stamp
from fluoronav.kernels.target import config, described, this_target

log = logging.getLogger("fluoronav")

_ENDING = ".kernel"
_FORMAT = b"fluoronav kernel 1\n"
_DIGEST_BYTES = hashlib.sha256().digest_size
_UNFINISHED_S = 3600.0  # chosen: no kernel is written for that long
_KEPT_DAYS = 60.0  # chosen: kernels of other versions that a user may go back to
# What a kernel's machine code depends on, besides its source, its types and the processor.
_MADE_BY = (sys.implementation.cache_tag, platform.system(), numba.__version__, llvmlite.__version__, config.OPT)

_said: set[str] = set()


def user_folder() -> Path:
    """This user's kernels; not created here."""
    return Path(platformdirs.user_cache_dir("fluoronav")) / "kernels"


def installed_folder() -> Path:
    """Kernels for all users of this installation, inside the package; not created here."""
    return Path(__file__).parent / "compiled"


def folders() -> list[Path]:
    """Where kernels are looked for: `NUMBA_CACHE_DIR` alone where it is set, else this user's, then the installation's.

    What is compiled during a start is kept in the first.
    """
    if config.CACHE_DIR:
        return [Path(config.CACHE_DIR)]
    return [user_folder(), installed_folder()]


class KernelCache(_Cache):
    """The cache of one kernel; Numba asks it before it compiles, and gives it what it has compiled.

    Parameters
    ----------
    dispatcher : numba.core.dispatcher.Dispatcher
    """

    def __init__(self, dispatcher: Any) -> None:
        self._dispatcher = dispatcher
        self._on = True

    @cached_property
    def _stamp(self) -> str:
        # Taken late: kernels name others that are defined after them.
        return stamp(self._dispatcher)

    def file_name(self, arguments: Iterable[Any], target: str) -> str:
        """Name of the file for one signature and target, the same in every process.

        Parameters
        ----------
        arguments : iterable of numba types
        target : str
        """
        function = self._dispatcher.py_func
        name = f"{function.__module__.split('.', 1)[-1]}.{function.__qualname__}"
        key = repr((name, self._stamp, [repr(a) for a in arguments], described(target), _MADE_BY))
        return f"{name}-{hashlib.sha256(key.encode()).hexdigest()[:32]}{_ENDING}"

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """The compiled kernel of a signature; None where no folder has it."""
        if not self._on:
            return None
        target_context.refresh()
        name = self.file_name(sigutils.normalize_signature(sig)[0], this_target())
        for folder in folders():
            content = read_kernel(folder / name)
            if content is None:
                continue
            try:
                return CompileResult._rebuild(target_context, *pickle.loads(content))
            except Exception as error:
                _say_once(f"{folder / name}: cannot be used ({type(error).__name__}: {error}); it is compiled anew")
        return None

    def save_overload(self, sig: Any, data: Any) -> None:
        """Keeps a kernel that has been compiled; a folder that cannot be written to costs a warning."""
        if not self._on or any(not one.can_cache for one in data.lifted) or data.library.has_dynamic_globals:
            return
        name = self.file_name(sigutils.normalize_signature(sig)[0], this_target())
        folder = folders()[0]
        try:
            write_kernel(folder / name, dumps(data._reduce()))
        except OSError as error:
            _say_once(
                f"{folder}: kernels cannot be kept there ({error.strerror or error}), so every start compiles them; "
                "free or open the folder, or have the user who installed run `fluoronav kernels build --for-all-users`"
            )

    @property
    def cache_path(self) -> Any:
        """Where kernels are kept."""
        return str(folders()[0])

    def enable(self) -> None:
        """Has the cache answer again."""
        self._on = True

    def disable(self) -> None:
        """Has the cache answer nothing and keep nothing."""
        self._on = False

    def flush(self) -> None:
        """Nothing: files whose names are not asked for are not read; :func:`clear_old` removes them."""


def write_kernel(path: Path, content: bytes) -> None:
    """Writes a kernel's file; another process that reads it meanwhile sees the old file, the new one, or none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}-{time.monotonic_ns()}.tmp")
    try:
        temporary.write_bytes(_FORMAT + hashlib.sha256(content).digest() + content)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def read_kernel(path: Path) -> bytes | None:
    """Content of a kernel's file; None where there is none, or where it is not whole or not safe to run.

    Files hold machine code, so those in a folder that everybody may write to are left alone.
    """
    try:
        whole = path.read_bytes()
        place = path.parent.stat()
    except FileNotFoundError:
        return None
    except OSError as error:
        _say_once(f"{path}: cannot be read ({error.strerror}); the kernel is compiled anew")
        return None
    if place.st_mode & 0o002 and os.name == "posix":
        _say_once(
            f"{path.parent}: every user may write there, so its kernels are not run; remove that right (chmod o-w)"
        )
        return None
    digest, content = whole[len(_FORMAT) :][:_DIGEST_BYTES], whole[len(_FORMAT) + _DIGEST_BYTES :]
    if not whole.startswith(_FORMAT) or hashlib.sha256(content).digest() != digest:
        _say_once(f"{path}: is damaged; the kernel is compiled anew")
        return None
    return content


def clear_old(folder: Path, current: set[str]) -> int:
    """Removes what was left unfinished, and kernels of other versions that are older than 60 days.

    Parameters
    ----------
    folder : Path
    current : set of str
        Names of files that stay.

    Returns
    -------
    int
        Number of removed files.
    """
    oldest = time.time() - _KEPT_DAYS * 86400
    old = [p for p in folder.glob("*.tmp") if p.stat().st_mtime < time.time() - _UNFINISHED_S]
    old += [p for p in folder.glob(f"*{_ENDING}") if p.name not in current and p.stat().st_mtime < oldest]
    for path in old:
        path.unlink(missing_ok=True)
    return len(old)


def _say_once(text: str) -> None:
    if text not in _said:
        _said.add(text)
        log.warning("%s", text)
