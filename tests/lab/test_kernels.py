"""For which instruction set kernels are compiled, and that a process is kept to another one."""

import json
import subprocess
import sys

import pytest

from fluoronav.lab import kernels


@pytest.mark.parametrize(
    ("cpu", "features", "set_"),
    [
        ("znver4", "", "avx512f"), ("sapphirerapids", "", "avx512f"), ("haswell", "", "avx2"),
        ("haswell", "+avx512f", "avx512f"), ("znver4", "-avx512f", "avx2"), ("ivybridge", "", "other"),
    ],
)  # fmt: skip
def test_the_widest_set_is_the_one_that_llvm_writes(cpu, features, set_):
    assert kernels.widest(cpu, features) == set_


_CODE = """
import json, numba, numpy as np
from fluoronav.lab import kernels
@numba.njit(fastmath=True)
def dot(a, b):
    total = np.float32(0)
    for i in range(a.size):
        total += a[i] * b[i]
    return total
dot(np.ones(64, np.float32), np.ones(64, np.float32))
(code,) = dot.inspect_asm().values()
print(json.dumps([kernels.compiled_for(), "zmm" in code]))
"""


def test_a_process_for_avx2_compiles_nothing_above_it_and_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    environment = kernels.environment_for("avx2")
    done = subprocess.run([sys.executable, "-c", _CODE], env=environment, capture_output=True, text=True, check=True)
    said, wide = json.loads(done.stdout)
    assert said == {"cpu": "haswell", "instruction_set": "avx2"}
    assert not wide
    assert environment["NUMBA_CACHE_DIR"] != ""
    assert "avx512" not in environment["NUMBA_CACHE_DIR"]


def test_a_processor_without_the_set_is_refused(monkeypatch):
    from llvmlite import binding

    monkeypatch.setattr(binding, "get_host_cpu_features", dict)
    with pytest.raises(ValueError, match="has no avx2"):
        kernels.environment_for("avx2")
