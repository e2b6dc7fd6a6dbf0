"""The documentation's tables are those of the committed JSON."""

import json
import re
import shutil

import pytest

from fluoronav.lab.bench.latency_pairs import summary
from fluoronav.lab.bench.tables import CHECKOUT, PAGES, TABLES, markdown, renewed, stale_pages

BENCH = CHECKOUT / "bench"


def test_no_page_is_stale():
    assert {str(page) for page in stale_pages()} == set(), "python -m fluoronav.lab.bench.tables renews them"


def test_every_table_is_on_a_page():
    shown = re.findall(r"<!-- table: ([\w-]+) -->", "".join((CHECKOUT / page).read_text() for page in PAGES))
    assert sorted(shown) == sorted(TABLES)


@pytest.mark.parametrize("name", TABLES)
def test_every_row_of_a_table_has_as_many_cells_as_its_header(name):
    rows = [len(line.split(" | ")) for line in markdown(TABLES[name](BENCH)).splitlines()]
    assert len(rows) > 2 and len(set(rows)) == 1


def test_what_was_transcribed_from_a_page_says_so():
    for file in BENCH.glob("*/*.json"):
        content = json.loads(file.read_text())
        raw = isinstance(content.get("machine"), dict)  # as a bench describes it
        assert raw or content.get("source") == "transcribed from the published table", file


def test_pairs_of_an_instruction_set_have_a_row_and_columns_of_their_own(tmp_path):
    shutil.copytree(BENCH, tmp_path, dirs_exist_ok=True)
    for file in tmp_path.glob("epyc-zen4/latency-pairs-*.json"):
        file.unlink()
    before = markdown(TABLES["latency"](tmp_path)).splitlines()
    assert "not measured" in markdown(TABLES["latency-pairs"](tmp_path))
    runs = [{"this": latency_run(p50), "against": latency_run(2 * p50)} for p50 in (10.0, 12.0, 11.0)]
    measured = {
        "summary": summary(runs), "pairs": runs, "machine": {"cpu": "AMD EPYC", "cores": 2},
        "settings": {"frames": 900, "stages": ["registration", "detection", "view"]},
    }  # fmt: skip
    (tmp_path / "epyc-zen4" / "latency-pairs-avx2.json").write_text(json.dumps(measured))
    after = markdown(TABLES["latency"](tmp_path)).splitlines()
    assert after[: len(before)] == before
    (row,) = after[len(before) :]
    assert row.startswith("| 2 cores of an AMD EPYC | AVX2 | every stage | 3 x 900 | 11.0 (10.0 to 12.0) |")
    assert row.endswith("| 6 | 3 | 97 % |")
    first = markdown(TABLES["latency-pairs"](tmp_path)).splitlines()[2]
    assert first.endswith("| not measured | 22.0 (20.0 to 24.0) | 11.0 (10.0 to 12.0) | 0.50 |")


def latency_run(p50):
    return {
        "end_to_end_ms": {"p50": p50, "p99": 20.0, "p99_9": 30.0}, "tracking": {"detection_ran": 0.97},
        "frames": {"missed": 2, "dropped": 1, "overlays": 900},
    }  # fmt: skip


def test_a_file_of_pairs_is_named_after_the_instruction_set_that_was_measured():
    for file in BENCH.glob("*/latency-pairs-*.json"):
        measured = json.loads(file.read_text())["machine"]["kernels"]["instruction_set"]
        assert file.stem == f"latency-pairs-{measured}"


def test_a_stale_table_is_made_anew_and_the_text_around_it_stays():
    page = "before\n<!-- table: peers -->\nold\n<!-- end -->\nafter\n"
    new = renewed(page, BENCH)
    assert new.startswith("before\n<!-- table: peers -->\n| DRR |") and new.endswith("|\n<!-- end -->\nafter\n")
    assert renewed(new, BENCH) == new


def test_a_table_that_nobody_makes_is_an_error():
    with pytest.raises(KeyError, match="nothing"):
        renewed("<!-- table: nothing -->\n<!-- end -->\n", BENCH)
