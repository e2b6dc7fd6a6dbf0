"""Scratch memory on the stack for Numba kernels.

LLVM turns a loop over neighbouring rays into vector gathers only if it can prove that the loop's own stores never
touch the volume that it gathers from. For two heap arrays it cannot (the addresses of a gather are unknown before it
happens); for memory that was allocated on the function's own stack and never left it, it can. Measured on one AVX-512
core: the same Joseph loop ran at 235 million samples a second with heap accumulators and at 760 with these.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic


def stack_float32(count: int) -> Any:
    """Makes a function, callable inside Numba code, that returns a pointer to ``count`` float32 on the stack.

    The memory is uninitialised, 64-byte aligned, lives until the calling kernel returns, and is the same each time
    one call site is reached. View it with ``numba.carray(pointer, count)``.
    """

    @intrinsic
    def allocate(typing_context):
        signature = types.CPointer(types.float32)()

        def codegen(context, builder, signature, args):
            with builder.goto_entry_block():
                memory = builder.alloca(ir.ArrayType(ir.FloatType(), count))
                memory.align = 64
            return builder.bitcast(memory, ir.FloatType().as_pointer())

        return signature, codegen

    return allocate
