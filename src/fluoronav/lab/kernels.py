"""For which instruction set Numba compiles our kernels, and how a process is started that has them for another."""

from __future__ import annotations

import os
from functools import cache
from typing import Any

# By the option of benches: a processor of LLVM that has this instruction set and none above it.
PROCESSORS = {"avx2": "haswell"}
NETWORKS = "ONNX Runtime uses what the processor has: it has no such switch"

# Addition of 16 integers. LLVM writes it with the widest registers that it may use.
_PROBE = """
define void @probe(ptr %p) {
  %a = load <16 x i32>, ptr %p
  %b = add <16 x i32> %a, %a
  store <16 x i32> %b, ptr %p
  ret void
}
"""


def compiled_for() -> dict[str, str]:
    """For what Numba compiles in this process.

    Returns
    -------
    dict
        ``cpu``, by LLVM's name, and ``instruction_set``: ``avx512f``, ``avx2``, or ``other``.
    """
    from llvmlite import binding as llvm
    from numba.core.codegen import get_host_cpu_features

    from fluoronav.kernels.target import config

    cpu, changes = config.CPU_NAME, config.CPU_FEATURES
    cpu = cpu or llvm.get_host_cpu_name()
    features = get_host_cpu_features() if changes is None else changes
    return {"cpu": cpu, "instruction_set": widest(cpu, features)}


@cache
def widest(cpu: str, features: str) -> str:
    """The instruction set that LLVM uses for vectors: ``avx512f``, ``avx2``, or ``other``.

    Parameters
    ----------
    cpu : str
        A processor, by LLVM's name.
    features : str
        Changes to its instruction sets, as LLVM writes them: ``-avx512f,+fma``.
    """
    from llvmlite import binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    # LLVM uses half of AVX-512's width on processors that are said to prefer it, x86-64-v4 among them.
    features = ",".join(filter(None, (features, "-prefer-256-bit")))
    machine = llvm.Target.from_default_triple().create_target_machine(cpu=cpu, features=features)
    code = machine.emit_assembly(llvm.parse_assembly(_PROBE))
    if "zmm" in code:
        return "avx512f"
    # Without AVX2 there are wide registers for floating point, but no addition of integers in them.
    added = [line for line in code.splitlines() if "vpaddd" in line]
    return "avx2" if any("ymm" in line for line in added) else "other"


def environment_for(instruction_set: str) -> dict[str, str]:
    """The environment of a process whose code is that for another instruction set.

    Numba, NumPy, OpenCV and OpenBLAS have a switch; ONNX Runtime has none.

    Parameters
    ----------
    instruction_set : str
        One of `PROCESSORS`.

    Raises
    ------
    ValueError
        This processor does not have it.
    """
    import cv2
    import numpy as np
    from llvmlite import binding as llvm

    from fluoronav.paths import cache_folder

    if not llvm.get_host_cpu_features().get(instruction_set, False):
        raise ValueError(f"this processor ({llvm.get_host_cpu_name()}) has no {instruction_set}: leave the option out")
    found: Any = np.show_config(mode="dicts")
    numpy_has = found["SIMD Extensions"].get("found", [])
    opencv_has = [name.strip("*?") for name in cv2.getCPUFeaturesLine().split()]
    return dict(os.environ) | {
        "NUMBA_CPU_NAME": PROCESSORS[instruction_set],
        # With the name alone Numba goes on using every instruction set of this processor.
        "NUMBA_CPU_FEATURES": "-avx512f",
        "NUMBA_CACHE_DIR": str(cache_folder(f"kernels-{instruction_set}")),
        "NPY_DISABLE_CPU_FEATURES": " ".join(n for n in numpy_has if n.startswith("AVX512") or n == "X86_V4"),
        "OPENCV_CPU_DISABLE": ",".join(n for n in opencv_has if n.startswith("AVX512")),
        "OPENBLAS_CORETYPE": "Haswell",
    }
