"""Several threads call kernels for the first time: Numba is whole by then, and nothing of it is loaded in a thread."""

import subprocess
import sys

import pytest

# Says which parts of Numba are imported outside of the main thread.
WATCH = """
import importlib.abc, sys, threading

class Watch(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.startswith("numba.") and threading.current_thread() is not threading.main_thread():
            print(name)

sys.meta_path.insert(0, Watch())
"""
CALLS = """
import numpy as np
from concurrent.futures import ThreadPoolExecutor
from fluoronav.kernels import load_numba, njit

@njit()
def least(values, start):
    return min(values[0], start[0])

if LOAD:
    load_numba()
with ThreadPoolExecutor(2) as pool:
    for dtype in (np.float32, np.float64):
        pool.submit(least, np.ones(3, dtype), (np.float64(2), 1)).result()
"""
STAGES = """
from fluoronav.stream.pipeline.chain import Chain

class Calls:
    name, reads, writes = "calls", set(), set()

    def prepare(self, case, camera, progress):
        from numba import njit, typeof
        njit(lambda x: x + 1)(1.0)

Chain([Calls(), Calls()]).prepare(None, None, print, at_once=True)
"""


def loaded_in_threads(program):
    done = subprocess.run([sys.executable, "-c", WATCH + program], capture_output=True, text=True, check=True)
    return done.stdout.split()


@pytest.mark.parametrize("load", [True, False])
def test_a_first_call_loads_nothing_where_numba_was_loaded_before(load):
    """Regression: a start failed with "dictionary changed size during iteration": types came while others read them."""
    assert bool(loaded_in_threads(f"LOAD = {load}\n{CALLS}")) is not load


def test_stages_are_prepared_at_once_with_numba_whole():
    assert loaded_in_threads(STAGES) == []
