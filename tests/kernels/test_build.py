"""Kernels compiled ahead: the list is whole, a start compiles nothing, and a build that is killed does no harm."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from numba.core import config

from fluoronav.cli import main
from fluoronav.kernels.build import KernelError, build
from fluoronav.kernels.cache import read_kernel
from fluoronav.kernels.signatures import kernel_of, signatures_by_kernel, spelled, types_of
from fluoronav.kernels.target import LEVELS, level_of
from fluoronav.stream.pipeline.start import StartTimes, kernels_beside

CALLS_ALL_PARTS = """
import json
from fluoronav.lab.kernel_signatures import PARTS, compiled_here
found = {}
for name, part in PARTS.items():
    with compiled_here() as compiled:
        part()
    found[name] = sorted(kernel for kernel, _ in compiled.found)
print(json.dumps(found))
"""


def run_python(code, **environment):
    return subprocess.run(
        [sys.executable, "-c", code], env=os.environ | environment, capture_output=True, text=True, check=True
    ).stdout


def test_after_a_build_no_part_of_the_program_compiles_anything():
    build()
    found = json.loads(run_python(CALLS_ALL_PARTS).splitlines()[-1])
    assert found.keys() >= {"attenuation", "registration", "detection", "instruments", "guidance", "view", "simulate"}
    # What is missing is written by `python -m fluoronav.lab.kernel_signatures`.
    assert all(kernels == [] for kernels in found.values()), found
    assert build() == 0


def test_every_signature_is_of_a_kernel_and_reads_as_it_was_written():
    for name, signatures in signatures_by_kernel().items():
        assert hasattr(kernel_of(name), "py_func")
        for signature in signatures:
            types = types_of(signature)
            assert f"({', '.join(map(spelled, types))},)" == signature


def test_a_part_has_its_kernels_alone():
    assert signatures_by_kernel(["guidance"]).keys() == {"fluoronav.case.distance:sample_distances"}
    assert signatures_by_kernel(["instruments"]) == {}


def test_a_build_that_is_killed_leaves_whole_files_and_no_process(tmp_path):
    built = subprocess.Popen(
        [sys.executable, "-m", "fluoronav", "kernels", "build"],
        env=os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    until = time.monotonic() + 120
    while not list(tmp_path.glob("*.kernel")) and time.monotonic() < until:
        time.sleep(0.05)
    built.kill()
    built.wait()
    # Its processes see that it has gone, also where one is inside LLVM.
    until = time.monotonic() + 60
    while time.monotonic() < until:
        try:
            os.killpg(built.pid, 0)
        except ProcessLookupError:
            break
        time.sleep(0.1)
    else:
        os.killpg(built.pid, signal.SIGKILL)
        pytest.fail("processes that compile outlived the build")
    files = list(tmp_path.glob("*.kernel"))
    assert files and all(read_kernel(path) is not None for path in files)


def test_a_build_into_a_folder_that_cannot_be_says_so_and_fails(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(KernelError, match="could not be kept"):
        build(["openigtlink"], folder=tmp_path / "file", processes=1)


def test_status_counts_what_is_missing_and_names_the_command(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(config, "CACHE_DIR", str(tmp_path))
    assert main(["kernels", "status"]) == 1
    said = capsys.readouterr().out
    assert "0 of " in said and "fluoronav kernels build" in said and "joseph:march" in said


def test_a_start_goes_on_where_nothing_can_be_compiled_ahead(tmp_path, monkeypatch, caplog):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(config, "CACHE_DIR", str(tmp_path / "file"))
    ran, times = [], StartTimes()
    with kernels_beside(["guidance"], lambda text: None, lambda: False, times):
        ran.append(True)
    assert ran and "waiting for kernels" in str(times)
    assert "kernels are compiled one after the other" in caplog.text


def test_a_start_that_fails_or_is_stopped_does_not_wait_for_kernels(tmp_path, monkeypatch):
    monkeypatch.setattr(config, "CACHE_DIR", str(tmp_path / "kernels"))
    with (
        pytest.raises(ValueError, match="no such case"),
        kernels_beside(["detection"], lambda text: None, lambda: False, StartTimes()),
    ):
        raise ValueError("no such case")
    with kernels_beside(["detection"], lambda text: None, lambda: True, StartTimes()):
        pass
    assert len(list((tmp_path / "kernels").glob("*.kernel"))) < 3  # of twenty


@pytest.mark.skipif(level_of(LEVELS["x86-64-v4"]) is None, reason="levels are those of x86-64")
def test_the_level_is_the_highest_whose_instructions_are_all_there():
    assert level_of(set(LEVELS["x86-64-v4"]) | {"avx512vnni"}) == "x86-64-v4"
    assert level_of(set(LEVELS["x86-64-v4"]) - {"avx512vl"}) == "x86-64-v3"
    assert level_of(set(LEVELS["x86-64-v3"]) - {"fma"}) == "x86-64-v2"
    assert level_of(set()) is None


def test_a_processor_that_is_named_gets_its_own_instructions_alone(tmp_path):
    import platform

    if platform.machine() != "x86_64":
        pytest.skip("the processor that is named is an x86-64 one")
    code = (
        "from fluoronav.kernels.signatures import *\n"
        "name = 'fluoronav.imaging.projector.joseph:march'\n"
        "kernel = kernel_of(name)\n"
        "for s in signatures_by_kernel()[name]: kernel.compile(types_of(s))\n"
        "print(*kernel.inspect_asm().values())\n"
    )
    asm = run_python(code, NUMBA_CPU_NAME="haswell", NUMBA_CACHE_DIR=str(tmp_path))
    assert "ymm" in asm and "zmm" not in asm
