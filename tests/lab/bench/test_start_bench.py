"""The bench of the start: phases as the log says them, and the table."""

import time

from fluoronav.lab.bench.start import COMPUTERS, phases_of, table
from fluoronav.stream.pipeline.start import IN_TURN, StartTimes


def test_the_phases_that_the_log_says_are_read_back():
    times = StartTimes()
    for name in IN_TURN:
        with times.phase(name):
            time.sleep(0.02)
    times.note({"stage registration": 1.25})
    phases = phases_of(["  reading ct.nrrd", f"  start: {times}", "  ready after 1.9 s: case x, process 1"])
    assert list(phases) == [*IN_TURN, "stage registration"]
    assert phases["stage registration"] == 1.25 and all(phases[name] > 0 for name in IN_TURN)
    assert phases_of([]) == {}


def test_the_table_has_a_column_for_each_computer_and_medians():
    row = {"ready": 2.0, "first_overlay": 2.5, "phases": {"case": 0.3}}
    late = row | {"first_overlay": 4.5, "phases": {"case": 0.5}}
    result = {c: [row, late, late] for c in COMPUTERS} | {"kernels_build_s": 21.0, "kernels_for": "x86-64-v3"}
    lines = table(result).splitlines()
    assert lines[0].split()[-3:] == list(COMPUTERS)
    assert lines[1].split() == ["first", "overlay", "4.50", "4.50", "4.50"]
    assert any(line.split() == ["case", "0.50", "0.50", "0.50"] for line in lines)
    assert lines[-1] == "kernels are for x86-64-v3 (AVX2); built ahead in 21.0 s"
