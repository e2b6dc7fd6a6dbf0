"""The protocol page says what the schemas say."""

import re
from pathlib import Path

import msgspec

from fluoronav.wire import tables

PAGE = Path(__file__).parents[2] / "docs" / "wire-protocol.md"
COMMAND = "python -m fluoronav.wire.tables docs/wire-protocol.md"


def test_the_tables_of_the_page_are_those_of_the_schemas():
    page = PAGE.read_text(encoding="utf-8")
    assert tables.renewed(page) == page, f"docs/wire-protocol.md is stale; renew it with `{COMMAND}`"


def test_the_page_has_a_table_of_every_message():
    assert set(re.findall(r"<!-- fields of (\w+) -->", PAGE.read_text(encoding="utf-8"))) == set(tables.TABLES)


def test_every_key_is_described():
    structs, left = set(), list(tables.TABLES.values())
    while left:
        struct = left.pop()
        structs.add(struct)
        fields = msgspec.inspect.type_info(struct).fields
        left += [s for s in tables._structs([f.type for f in fields]) if s not in structs]
        undescribed = [f.name for f in fields if not tables._said(f.type, "description")]
        assert not undescribed, (struct.__name__, undescribed)
    assert len(structs) > len(tables.TABLES)


def test_a_stale_table_is_written_anew_and_the_prose_stays():
    page = "# Tools\n<!-- fields of tool -->\nold\n<!-- end -->\nprose\n"
    renewed = tables.renewed(page)
    assert renewed.startswith("# Tools\n<!-- fields of tool -->\n| key |") and renewed.endswith("<!-- end -->\nprose\n")
    assert "old" not in renewed and "| `t_acq` | time |" in renewed and "*ToolPose*" in renewed
    assert tables.renewed(renewed) == renewed
