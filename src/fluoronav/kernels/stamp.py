"""What a kernel is made of, as a hash: its code, and all code and constants that Numba compiles into it."""

from __future__ import annotations

import dis
import hashlib
from collections.abc import Iterator
from types import CodeType, FunctionType, ModuleType
from typing import Any

import numpy as np
from numba.core.dispatcher import Dispatcher
from numba.extending import _Intrinsic  # pyright: ignore[reportPrivateImportUsage]

_OURS = __name__.split(".")[0]


def stamp(dispatcher: Dispatcher) -> str:
    """Hash of everything of this project that decides what a kernel's machine code does.

    It is taken from the code in memory, which is what is compiled, and not from files, which an upgrade may replace
    meanwhile. Kernels, intrinsics and constants of other modules count where the kernel names them: Numba
    compiles them in, and its own cache looks at the kernel's file alone.

    Parameters
    ----------
    dispatcher : numba.core.dispatcher.Dispatcher

    Returns
    -------
    str
        Hexadecimal.
    """
    digest = hashlib.sha256()
    for part in _parts(dispatcher, set()):
        digest.update(part.encode())
        digest.update(b"\0")
    return digest.hexdigest()


def _parts(value: Any, seen: set[int]) -> Iterator[str]:
    """Everything that a value brings into a kernel, as texts that are the same in every process."""
    if isinstance(value, Dispatcher):
        yield from _of_kernel(value, seen)
    elif isinstance(value, _Intrinsic):
        yield from _parts(value._defn, seen)
    elif isinstance(value, FunctionType):
        yield from _of_function(value, seen)
    elif isinstance(value, CodeType):
        yield f"code {value.co_code.hex()} {value.co_names} {value.co_varnames} {value.co_flags}"
        yield from _parts(value.co_consts, seen)
    elif isinstance(value, tuple | list):
        yield f"{len(value)} of"
        for one in value:
            yield from _parts(one, seen)
    else:
        yield _constant(value)


def _of_kernel(kernel: Dispatcher, seen: set[int]) -> Iterator[str]:
    function = kernel.py_func
    yield f"kernel {function.__module__}.{function.__qualname__}"
    if id(kernel) not in seen and function.__module__.startswith(f"{_OURS}."):
        seen.add(id(kernel))
        yield f"options {sorted((name, repr(option)) for name, option in kernel.targetoptions.items())}"
        yield from _parts(function, seen)


def _constant(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"array {value.dtype} {value.shape} {value.tobytes().hex()}"
    if isinstance(value, frozenset):
        return f"set {sorted(map(repr, value))}"
    if isinstance(value, type):
        return f"type {value.__module__}.{value.__qualname__}"
    if isinstance(value, ModuleType):
        if value.__name__.split(".")[0] == _OURS:
            raise TypeError(f"a kernel names the module {value.__name__}; import by name what it needs from there")
        return f"module {value.__name__}"
    text = f"{type(value).__module__}.{type(value).__qualname__} {value!r}"
    if " at 0x" in text:
        raise TypeError(f"a kernel names {text}, which is another in each process")
    return text


def _of_function(function: FunctionType, seen: set[int]) -> Iterator[str]:
    yield f"function {function.__module__}.{function.__qualname__}"
    if id(function) in seen or not function.__module__.startswith(f"{_OURS}."):
        return
    seen.add(id(function))
    yield from _parts(function.__code__, seen)
    yield from _parts(function.__defaults__ or (), seen)
    for cell in function.__closure__ or ():
        yield from _parts(cell.cell_contents, seen)
    for name in sorted(_names(function.__code__) & function.__globals__.keys()):
        yield name
        yield from _parts(function.__globals__[name], seen)


def _names(code: CodeType) -> set[str]:
    """Global names that code and the functions inside it look up."""
    inner = [c for c in code.co_consts if isinstance(c, CodeType)]
    own = {i.argval for i in dis.get_instructions(code) if i.opname in ("LOAD_GLOBAL", "LOAD_NAME")}
    return own.union(*map(_names, inner))
