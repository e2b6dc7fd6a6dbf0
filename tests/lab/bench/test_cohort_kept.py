"""The cohort's files: exposures are added as they are measured, and files are merged."""

import json

import pytest

from fluoronav.cli import main
from fluoronav.lab.bench.cohort import bench, known_people
from fluoronav.lab.bench.cohort.kept import kept_rows, merged
from fluoronav.lab.bench.cohort.scenes import chosen
from fluoronav.paths import write_json


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    return known_people(tmp_path_factory.mktemp("no-data"))


def row(scene, seed, across_mm):
    bounds = {"bound_mm": 0.3, "bound_space_mm": 1.0, "bound_degrees": None}
    return {
        "scene": scene, "seed": seed, "present": True, "believed": True, "wrong_believed": False, "reason": "",
        "status": "tracking", "across_mm": across_mm, "space_mm": 0.5, "degrees": 0.1, **bounds,
    }  # fmt: skip


def written(path, rows, people=("embedded",)):
    write_json(bench.result_of(rows, list(people)), path)
    return path


def test_what_a_file_has_is_not_measured_again(people, tmp_path, monkeypatch):
    path = written(tmp_path / "cohort.json", [row("chest", 1, 0.125)])
    asked = []

    def measured(scene, seed, _):
        asked.append((scene, seed))
        return row(scene, seed, 0.123456789)

    monkeypatch.setattr(bench, "measured", measured)
    found = bench.bench_cohort(chosen(["chest", "hand"]), 2, 0, people, None, 1, into=path)
    assert asked == [("chest", 0), ("hand", 0), ("hand", 1)]
    assert json.loads(path.read_text())["scenes"] == found["scenes"]
    assert [(r["scene"], r["seed"], r["across_mm"]) for r in found["rows"]] == [
        ("chest", 0, 0.123457), ("chest", 1, 0.125), ("hand", 0, 0.123457), ("hand", 1, 0.123457),
    ]  # fmt: skip
    assert (found["all"]["n"], found["all"]["bound_holds"]) == (4, 1.0)


def test_a_run_that_breaks_off_leaves_what_it_has_measured(people, tmp_path, monkeypatch):
    path = tmp_path / "new" / "cohort.json"

    def measured(scene, seed, _):
        if seed:
            raise MemoryError("no more")
        return row(scene, seed, 0.1)

    monkeypatch.setattr(bench, "measured", measured)
    with pytest.raises(MemoryError):
        bench.bench_cohort(chosen(["chest"]), 2, 0, people, None, 1, into=path)
    assert list(kept_rows(path)) == [("chest", 0)]


def test_files_are_merged_and_of_equal_exposures_the_last_counts(tmp_path, capsys):
    one = written(tmp_path / "one.json", [row("chest", 0, 0.1), row("hand", 0, 0.2)])
    two = written(tmp_path / "two.json", [row("chest", 0, 0.3)])
    out = tmp_path / "both.json"
    assert main(["bench", "cohort", "--merge", str(one), str(two), "--json", str(out)]) == 0
    assert {k: r["across_mm"] for k, r in kept_rows(out).items()} == {("chest", 0): 0.3, ("hand", 0): 0.2}
    assert "hand" in capsys.readouterr().out


def test_other_people_and_other_files_are_refused_by_name(people, tmp_path):
    lee = written(tmp_path / "lee.json", [row("chest", 0, 0.1)], ["lee"])
    with pytest.raises(ValueError, match=r"lee.json: holds exposures of lee, not of embedded; name the same patients"):
        kept_rows(lee, people)
    with pytest.raises(ValueError, match=r"mine.json: holds exposures of embedded, not of lee"):
        merged([lee, written(tmp_path / "mine.json", [row("chest", 0, 0.1)])])
    with pytest.raises(ValueError, match=r"lee.json: holds exposures of `stills`, not of `wrong`"):
        kept_rows(lee, None, "wrong")
    broken = tmp_path / "broken.json"
    broken.write_text('{"rows": [')
    with pytest.raises(ValueError, match=r"broken.json: is no JSON of `bench cohort`"):
        kept_rows(broken)
    with pytest.raises(ValueError, match=r"gone.json: no such file"):
        merged([tmp_path / "gone.json"])
