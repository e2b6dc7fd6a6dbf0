"""The engine that runs the networks, chosen in the launch file."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Engine = Literal["cpu", "openvino", "cuda", "tensorrt", "tensorrt-rtx"]
Precision = Literal["fp32", "fp16"]
# Engines that `auto` tries, in this order; without a GPU the first three fail at once.
AUTO_ORDER: tuple[Engine, ...] = ("tensorrt-rtx", "tensorrt", "cuda", "openvino", "cpu")


class Unavailable(RuntimeError):
    """An engine that this computer lacks; the text says what is missing."""


class InferenceSettings(BaseModel):
    """``inference`` in a launch file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    engine: Literal[Engine, "auto"] = Field(default="cpu", description="what runs the networks")
    fallback: Literal["allow", "warn", "refuse"] = Field(
        default="warn", description="when that cannot be had, or fails in the stream: use the CPU, say so, or stop"
    )
    precision: Precision = Field(
        default="fp32", description="of the networks on a GPU; other engines compute as they always do"
    )
    cpu_precision: Literal["auto", "fp32", "int8"] = Field(
        default="auto",
        description="of networks that ship in 8 bits, too, by ONNX Runtime on a CPU; auto takes 8 bits where the CPU "
        "is faster so (AVX2, VNNI) and they are right there",
    )
    threads: int = Field(default=2, ge=1, le=64, description="of the CPU")
    denoiser: Literal["auto", "filter", "network"] = Field(
        default="auto",
        description="of the display's picture: a local filter, or a network, which on a CPU holds pictures back; "
        "auto takes the network on a GPU",
    )
    registration: Literal["kernel", "graph"] = Field(
        default="kernel", description="tracking by the CPU's kernel, or by the same step as a graph on `engine`"
    )
