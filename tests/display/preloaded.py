"""What a display of the tests has before it is forked (warm.py): modules, and the embedded case packed for pages."""

from __future__ import annotations

import fluoronav.case
import fluoronav.cli
import fluoronav.display.serving
from fluoronav.case import load_case
from fluoronav.display import server

_pack = server._packed_case
EMBEDDED = load_case("embedded")
PACKED = _pack(lambda name: EMBEDDED, "")


def _load(path, *arguments, **options):
    return (
        EMBEDDED if str(path) == "embedded" and not (arguments or options) else load_case(path, *arguments, **options)
    )


def _packed(load, name):
    return PACKED if load(name) is EMBEDDED else _pack(load, name)


fluoronav.case.load_case = _load
server._packed_case = _packed
