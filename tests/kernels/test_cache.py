"""The cache of kernels: what is stale, foreign, damaged or not to be trusted is never run, and a start goes on."""

import logging
import threading

import pytest
from numba.core import config

from fluoronav.kernels import cache, njit
from fluoronav.kernels.build import build, missing, wanted_kernels
from fluoronav.kernels.cache import clear_old, read_kernel, write_kernel
from fluoronav.kernels.target import this_target
from fluoronav.lab.kernel_signatures import compiled_here

SOURCE = """
def inner(x):
    return x + ADDED

inner = njit(cache=True)(inner)

def outer(x):
    return 2 * inner(x)

outer = njit(cache=True)(outer)
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder that is the whole cache."""
    monkeypatch.setattr(config, "CACHE_DIR", str(tmp_path / "kernels"))
    monkeypatch.setattr(cache, "_said", set())
    return tmp_path / "kernels"


def called(added=1.0):
    """What a kernel of a module of this package gives for 3, and the number of kernels that were compiled for that."""
    module = {"__name__": "fluoronav.of_a_test", "njit": njit, "ADDED": added}
    exec(SOURCE, module)
    with compiled_here() as compiled:
        value = module["outer"](3.0)
    return value, len(compiled.found)


def outer_files(folder):
    return sorted(folder.glob("of_a_test.outer-*.kernel"))


def test_a_kernel_is_compiled_once_and_then_read(folder):
    assert called() == (8.0, 1)
    assert called() == (8.0, 0)
    assert len(outer_files(folder)) == 1


def test_a_kernel_is_compiled_anew_when_a_constant_of_a_kernel_that_it_calls_has_changed(folder):
    assert called(1.0) == (8.0, 1)
    assert called(2.0) == (10.0, 1)
    assert called(1.0) == (8.0, 0)  # both are kept


@pytest.mark.parametrize("damage", ["cut", "empty", "changed", "foreign"])
def test_a_damaged_file_is_said_and_compiled_anew(folder, damage, caplog):
    called()
    (path,) = outer_files(folder)
    whole = path.read_bytes()
    changed = whole[:-1] + bytes([whole[-1] ^ 1])
    path.write_bytes(
        {"cut": whole[: len(whole) // 2], "empty": b"", "changed": changed, "foreign": b"x" * 5000}[damage]
    )
    with caplog.at_level(logging.WARNING, "fluoronav"):
        assert called() == (8.0, 1)
    assert f"{path}: is damaged" in caplog.text
    assert read_kernel(path) is not None
    assert called() == (8.0, 0)


def test_a_whole_file_that_holds_something_else_is_said_and_compiled_anew(folder, caplog):
    called()
    (path,) = outer_files(folder)
    write_kernel(path, b"no kernel")
    with caplog.at_level(logging.WARNING, "fluoronav"):
        assert called() == (8.0, 1)
    assert f"{path}: cannot be used" in caplog.text


def test_a_folder_that_cannot_be_written_to_is_said_once_with_what_to_do_and_kernels_run(folder, caplog):
    folder.write_text("a file where the folder should be")
    with caplog.at_level(logging.WARNING, "fluoronav"):
        assert called() == (8.0, 1)
        assert called() == (8.0, 1)
    said = [r.getMessage() for r in caplog.records if "cannot be kept" in r.getMessage()]
    assert len(said) == 1 and str(folder) in said[0] and "kernels build --for-all-users" in said[0]


def test_machine_code_is_not_run_from_a_folder_that_everybody_may_write_to(folder, caplog):
    called()
    folder.chmod(0o777)
    with caplog.at_level(logging.WARNING, "fluoronav"):
        assert called() == (8.0, 1)
    assert "every user may write there" in caplog.text


def test_another_processor_has_other_files(folder):
    names = [{w.file_name for w in wanted_kernels(target)} for target in ("x86-64-v3", "x86-64-v4")]
    assert len(names[0]) == len(names[1]) and not names[0] & names[1]


def test_two_builds_at_once_leave_whole_files_alone(folder):
    def one():
        assert build(["openigtlink"], processes=1) > 0

    builds = [threading.Thread(target=one) for _ in range(2)]
    for b in builds:
        b.start()
    for b in builds:
        b.join()
    assert missing(wanted_kernels(this_target(), ["openigtlink"]), [folder]) == []
    assert {p.suffix for p in folder.iterdir()} == {".kernel"}
    assert build(["openigtlink"]) == 0


def test_old_files_of_other_versions_go_and_those_of_this_one_stay(folder):
    for name in ("old.kernel", "current.kernel", "unfinished.tmp"):
        write_kernel(folder / name, b"")
    write_kernel(folder / "new.kernel", b"")
    import os

    for name in ("old.kernel", "current.kernel", "unfinished.tmp"):
        os.utime(folder / name, (0, 0))
    assert clear_old(folder, {"current.kernel"}) == 2
    assert sorted(p.name for p in folder.iterdir()) == ["current.kernel", "new.kernel"]
