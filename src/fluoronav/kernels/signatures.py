"""Which kernels the program calls, and with which types: what is compiled ahead of time.

`signatures.json` holds them by the part of the program that calls them, those that take longest to compile first.
`python -m fluoronav.lab.kernel_signatures` writes it, and a test holds it against what a start compiles. A kernel that
is missing in it still works: it is compiled when it is first called.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from typing import Any

from numba import types

FILE = Path(__file__).with_name("signatures.json")


def signatures_by_kernel(parts: Iterable[str] | None = None) -> dict[str, tuple[str, ...]]:
    """Signatures of each kernel.

    Parameters
    ----------
    parts : iterable of str, optional
        Stages of the stream by name, `register`, `simulate` or `openigtlink`; all by default.

    Returns
    -------
    dict of str to tuple of str
        By "module:function".
    """
    content: dict[str, dict[str, list[str]]] = json.loads(FILE.read_text())
    found: dict[str, dict[str, None]] = {}
    for part in content if parts is None else [p for p in content if p in set(parts)]:
        for kernel, signatures in content[part].items():
            found.setdefault(kernel, {}).update(dict.fromkeys(signatures))
    return {kernel: tuple(signatures) for kernel, signatures in found.items()}


def kernel_of(name: str) -> Any:
    """The kernel with a name "module:function"; imports its module."""
    module, _, function = name.partition(":")
    return getattr(import_module(module), function)


def spelled(argument: Any) -> str:
    """The type of an argument as text that :func:`types_of` reads.

    Raises
    ------
    ValueError
        It has no such text.
    """
    if isinstance(argument, types.Array) and argument.mutable and argument.aligned and argument.layout == "C":
        text = f"{spelled(argument.dtype)}[{', '.join([':'] * (argument.ndim - 1) + ['::1'])}]"
    elif isinstance(argument, types.Array):
        text = (
            f"Array({spelled(argument.dtype)}, {argument.ndim}, {argument.layout!r}, readonly={not argument.mutable})"
        )
    elif isinstance(argument, types.UniTuple):
        text = f"UniTuple({spelled(argument.dtype)}, {argument.count})"
    else:
        text = "boolean" if argument == types.boolean else str(argument)
    try:
        same = types_of(f"({text},)") == (argument,)
    except (SyntaxError, NameError, TypeError, AttributeError):
        same = False
    if not same:
        raise ValueError(f"the type {argument} cannot be written into {FILE.name}")
    return text


def types_of(signature: str) -> tuple[Any, ...]:
    """The types that a signature of `signatures.json` stands for."""
    return eval(signature, {"__builtins__": {}}, vars(types))  # our own file, which is trusted as our code is
