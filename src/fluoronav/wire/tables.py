"""The tables of the protocol page, from the schemas: ``python -m fluoronav.wire.tables docs/wire-protocol.md``."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, get_args, get_origin, get_type_hints

import msgspec
from msgspec import inspect

from fluoronav.wire import marks, messages, requests

# What the page has a table of; what is nested in them comes along.
TABLES: MappingProxyType[str, type[msgspec.Struct]] = MappingProxyType(
    {
        "frame": messages.FrameHeader,
        "view": messages.ViewHeader,
        "overlay": messages.Overlay,
        "alert": messages.Alert,
        "health": messages.Health,
        "tool": messages.ToolsMessage,
        "request": requests.Request,
        "reply": requests.Reply,
        "mark": marks.MarkRequest,
        "marked": marks.MarkReply,
    }
)
_BLOCK = re.compile(r"(<!-- fields of (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def renewed(page: str) -> str:
    """A page in which every table between ``<!-- fields of frame -->`` and ``<!-- end -->`` is written anew.

    A nested map has its table after the first message that holds it.

    Raises
    ------
    KeyError
        The page asks for a table that there is not.
    """
    written: set[type] = set()

    def block(match: re.Match[str]) -> str:
        return f"{match[1]}{_tables(TABLES[match[2]], written)}\n{match[3]}"

    return _BLOCK.sub(block, page)


def _tables(struct: type[msgspec.Struct], written: set[type]) -> str:
    written.add(struct)
    info = inspect.type_info(struct)
    assert isinstance(info, inspect.StructType)
    order = _declared_order(struct)
    rows = [
        f"| `{f.name}`{'' if f.required else ' (optional)'} | {_type(f.type, order)} | {_said(f.type, 'description')} |"
        for f in info.fields
    ]
    parts = ["\n".join(["| key | type | meaning |", "| --- | --- | --- |", *rows])]
    parts += [
        f"*{nested.__name__}*: {(nested.__doc__ or '').strip()}\n\n{_tables(nested, written)}"
        for nested in _structs([f.type for f in info.fields])
        if nested not in written
    ]
    return "\n\n".join(parts)


def _said(kind: inspect.Type, what: str) -> str:
    """The title or the description that a type was given; empty without one."""
    extra: dict[str, Any] = getattr(kind, "extra_json_schema", None) or {}
    return extra.get(what, "")


def _type(kind: inspect.Type, order: dict[frozenset[Any], tuple[Any, ...]]) -> str:
    """A type in the page's words."""
    if isinstance(kind, inspect.Metadata):
        return _said(kind, "title") or _type(kind.type, order)
    if isinstance(kind, inspect.UnionType):
        known = [t for t in kind.types if not isinstance(t, inspect.NoneType)]
        null = ["null"] if len(known) < len(kind.types) else []
        return " or ".join([_type(t, order) for t in known] + null)
    if isinstance(kind, inspect.LiteralType):
        values = order.get(frozenset(kind.values), kind.values)
        return ", ".join(f'"{v}"' if isinstance(v, str) else str(v) for v in values)
    if isinstance(kind, inspect.ListType):
        exactly = kind.min_length == kind.max_length
        many = f"{'' if exactly else 'at most '}{kind.max_length} " if kind.max_length else ""
        return f"list of {many}{_type(kind.item_type, order)}"
    if isinstance(kind, inspect.DictType):
        return f"map of str to {_type(kind.value_type, order)}"
    if isinstance(kind, inspect.StructType):
        return f"map *{kind.cls.__name__}*"
    if isinstance(kind, inspect.IntType | inspect.FloatType):
        return (("int" if isinstance(kind, inspect.IntType) else "float") + _range(kind)).strip()
    if isinstance(kind, inspect.StrType):
        return "str" + (f", at most {kind.max_length} characters" if kind.max_length else "")
    return {"BoolType": "bool", "AnyType": "any"}[type(kind).__name__]


def _range(kind: inspect.IntType | inspect.FloatType) -> str:
    if kind.ge is not None and kind.le is not None:
        return f" {kind.ge:.10g}..{kind.le:.10g}"
    limits = ((">", kind.gt), (">=", kind.ge), ("<", kind.lt), ("<=", kind.le))
    return " " + ", ".join(f"{sign} {limit:.10g}" for sign, limit in limits if limit is not None)


def _structs(kinds: list[inspect.Type]) -> list[type[msgspec.Struct]]:
    """The maps that stand directly in these types."""
    found: list[type[msgspec.Struct]] = []
    for kind in kinds:
        if isinstance(kind, inspect.StructType):
            found.append(kind.cls)
        elif isinstance(kind, inspect.Metadata):
            found += _structs([kind.type])
        elif isinstance(kind, inspect.UnionType):
            found += _structs(list(kind.types))
        elif isinstance(kind, inspect.ListType):
            found += _structs([kind.item_type])
    return found


def _declared_order(struct: type[msgspec.Struct]) -> dict[frozenset[Any], tuple[Any, ...]]:
    """The values of each literal as they are declared, which msgspec sorts."""
    found: dict[frozenset[Any], tuple[Any, ...]] = {}
    left: list[Any] = list(get_type_hints(struct).values())
    while left:
        hint = left.pop()
        if get_origin(hint) is Literal:
            found[frozenset(get_args(hint))] = get_args(hint)
        else:
            left += [a for a in get_args(hint) if get_origin(a) is not None]
    return found


if __name__ == "__main__":
    for name in sys.argv[1:]:
        Path(name).write_text(renewed(Path(name).read_text(encoding="utf-8")), encoding="utf-8")
