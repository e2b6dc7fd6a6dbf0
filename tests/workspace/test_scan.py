"""Unpacking of a case's CT."""

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

from tests.workspace.conftest import make_case

from fluoronav.workspace.scan import unpacked_scan


def test_two_processes_that_unpack_the_same_scan_do_not_disturb_each_other(tmp_path):
    folders = [make_case(tmp_path, f"case{k}", shape=(60, 128, 128)) for k in range(4)]
    with ProcessPoolExecutor(4, get_context("spawn")) as pool:
        pending = [pool.submit(unpacked_scan, folder) for folder in folders for _ in range(4)]
        scans = [p.result() for p in pending]
    assert all(s.path.stat().st_size == 2 * s.voxels for s in scans)
