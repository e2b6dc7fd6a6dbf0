"""Two checkouts in turns: their order, their figures and ratios, and checkouts that are none."""

import json
from pathlib import Path

import pytest

from fluoronav.cli import main
from fluoronav.lab.bench import latency_pairs
from fluoronav.lab.bench.latency_pairs import (
    MEASURES,
    PairError,
    Side,
    bench_pairs,
    other_checkout,
    run_bench,
    spread,
    summary,
    table,
    this_checkout,
)

MACHINE = {
    "cpu": "A Processor", "cores": 2, "instruction_sets": ["avx2", "avx512f"],
    "kernels": {"cpu": "haswell", "instruction_set": "avx2"}, "networks": "as they are",
}  # fmt: skip


def run(p50=10.0, missed=0, failed="", **more):
    return {
        "end_to_end_ms": {"p50": p50, "p99": 2 * p50}, "frames": {"missed": missed, "overlays": 200, "dropped": 0},
        "failed": failed, "machine": MACHINE, "versions": {"fluoronav": "0.1.0"}, "settings": {"fps": 30.0},
    } | more  # fmt: skip


SIDES = Side("this", Path("/a/src"), "abc"), Side("against", Path("/b/src"), "def")


@pytest.fixture
def measured(monkeypatch):
    """Replaces the runs, which take a minute each; keeps (side, options)."""
    calls = []

    def answer(side, arguments, environment):
        calls.append((side.name, list(arguments)))
        return run(8.0 if side.name == "this" else 16.0)

    monkeypatch.setattr(latency_pairs, "run_bench", answer)
    return calls


def test_checkouts_are_warmed_once_and_then_measured_in_turns(measured):
    said = []
    result = bench_pairs(SIDES, ["--frames", "900"], 3, {}, said.append)
    warm, turns = measured[:2], measured[2:]
    assert [name for name, _ in warm] == ["this", "against"]
    assert all(options[-2:] == ["--frames", str(latency_pairs._WARM_FRAMES)] for _, options in warm)
    assert [name for name, _ in turns] == ["this", "against", "against", "this", "this", "against"]
    assert all(options == ["--frames", "900"] for _, options in turns)
    assert result["summary"]["p50_ms"]["ratio"] == {"median": 0.5, "lowest": 0.5, "highest": 0.5}
    assert result["machine"] == MACHINE
    assert "pair 3 of 3: against (def)" in said


def test_a_run_without_a_result_ends_the_pairs_with_its_reason(monkeypatch):
    monkeypatch.setattr(latency_pairs, "run_bench", lambda *_: run(failed="no frame of 90 got a pose"))
    with pytest.raises(PairError, match=r"this \(abc\): no frame of 90 got a pose"):
        bench_pairs(SIDES, [], 1, {}, lambda text: None)


def test_the_ratio_is_taken_pair_by_pair_and_counts_have_none():
    turns = [{"this": run(8.0, missed=1), "against": run(16.0)}, {"this": run(30.0), "against": run(40.0, missed=4)}]
    found = summary(turns)
    assert found["p50_ms"]["ratio"] == {"median": 0.625, "lowest": 0.5, "highest": 0.75}
    assert found["late_percent"] == {"this": [0.5, 0.0], "against": [0.0, 2.0], "ratio": None}


def test_shares_are_percentages():
    shares = {
        "frames": {"missed": 3, "overlays": 200, "dropped": 0},
        "tracking": {"with_pose": 150, "detection_ran": 0.95},
    }
    found = summary([{"this": run() | shares, "against": run() | shares}])
    percent = {name: found[name]["this"] for name in ("late_percent", "with_pose_percent", "detection_ran")}
    assert percent == {"late_percent": [1.5], "with_pose_percent": [75.0], "detection_ran": [95.0]}


def test_an_older_checkout_that_does_not_say_a_figure_leaves_its_cell_empty():
    found = summary([{"this": run(start_s={"first_pose": 1.5}), "against": run()}])
    assert found["first_pose_s"] == {"this": [1.5], "against": [None], "ratio": None}
    sides = {name: {"version": "0.1.0", "revision": name} for name in ("this", "against")}
    text = table({**sides, "summary": found, "machine": MACHINE})
    (line,) = [line for line in text.splitlines() if line.startswith(MEASURES["first_pose_s"].label)]
    assert line.split()[-3:] == ["1.50", "-", "-"]
    assert "kernels: compiled for AVX2 (haswell); networks: as they are" in text


def test_one_value_has_no_range():
    assert spread([1.0, 1.0], 1) == "1.0"
    assert spread([1.0, 3.0, 2.0], 1) == "2.0 (1.0 to 3.0)"
    assert spread([None], 1) == "-"


def test_a_folder_without_the_package_is_refused_with_what_to_name(tmp_path, capsys):
    with pytest.raises(PairError, match="name the folder of a source checkout"):
        other_checkout(tmp_path)
    assert main(["bench", "latency", "--against", str(tmp_path)]) == 1
    assert "no src/fluoronav there" in capsys.readouterr().err


def test_each_checkout_runs_its_own_code(tmp_path):
    package = tmp_path / "src" / "fluoronav"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "__main__.py").write_text(
        "import json, sys\n"
        "at = sys.argv.index('--json') + 1\n"
        "open(sys.argv[at], 'w').write(json.dumps({'options': sys.argv[1:at - 1], 'of': 'the other'}))\n"
    )
    result = run_bench(other_checkout(tmp_path), ["--frames", "9"], {})
    assert result == {"options": ["bench", "latency", "--frames", "9"], "of": "the other"}


def test_a_checkout_that_writes_nothing_is_named_with_what_it_said(tmp_path):
    package = tmp_path / "src" / "fluoronav"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "__main__.py").write_text("print('broken'); raise SystemExit(3)")
    with pytest.raises(PairError, match="against: `bench latency` ended with 3: broken"):
        run_bench(other_checkout(tmp_path), [], {})


def test_this_checkout_is_the_code_that_runs():
    assert (this_checkout().source / "fluoronav" / "lab" / "bench" / "latency_pairs.py").exists()
    json.dumps(this_checkout().revision)
