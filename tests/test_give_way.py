"""Work that may wait takes no core from anybody."""

import os
import subprocess
import sys

import pytest


@pytest.mark.skipif(not hasattr(os, "SCHED_IDLE"), reason="this system has no idle class")
def test_a_process_that_gives_way_and_its_children_are_of_the_idle_class():
    told = subprocess.run(
        [
            sys.executable,
            "-c",
            "import os, subprocess, sys\n"
            "from fluoronav.give_way import give_way\n"
            "give_way()\n"
            "print(os.sched_getscheduler(0) == os.SCHED_IDLE, flush=True)\n"
            "subprocess.run([sys.executable, '-c', 'import os; print(os.sched_getscheduler(0) == os.SCHED_IDLE)'])\n",
        ],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert told.stdout.split() == ["True", "True"], told.stderr
