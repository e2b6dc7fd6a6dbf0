"""The registration step as an ONNX graph: the computation of the kernels, for engines that run on a GPU.

Joseph's method (:mod:`fluoronav.imaging.projector.joseph`): the point at which a ray crosses a slice of the volume is
linear in the slice number. One GridSample of all slices therefore gives the samples of all rays; their sums are the
line integrals. Two more GridSamples, of the differences of neighbouring voxels, give the in-plane gradients and from
them all six derivatives. The normal equations over patches follow (:mod:`fluoronav.imaging.registration.similarity`).

The slope of a bilinear interpolation along u is constant in u inside a cell: it is the difference of the neighbours,
interpolated along v alone. The differences are therefore sampled at the integer coordinate of the cell, as in the
kernel. Central differences, sampled at the ray, gave pose steps that were a third too long.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fluoronav.imaging.projector.attenuation import AXES, PADDING, AttenuationGrid
from fluoronav.imaging.registration.gauss_newton import SETTINGS as GAUSS_NEWTON
from fluoronav.imaging.registration.similarity import SIMILARITY

Float = NDArray[np.float64]
Float32 = NDArray[np.float32]

OPSET = 17


def slices_of(grid: AttenuationGrid, dominant: int) -> dict[str, Float32]:
    """The volume as input of the graph, for rays that are most parallel to one axis.

    Parameters
    ----------
    grid : AttenuationGrid
    dominant : int
        0, 1 or 2 for x, y or z.

    Returns
    -------
    dict of ndarray of float32, shape (slices, 1, v, u)
        ``volume``, 1/mm; ``slope_u`` and ``slope_v``, the differences from the next voxel, 1/mm per voxel.
    """
    u, v, k = AXES[dominant]
    inner = grid.voxels.transpose(2, 1, 0).transpose(k, v, u)
    shape, middle = [n + 2 * PADDING for n in inner.shape], slice(PADDING, -PADDING)
    values, slope_u, slope_v = (np.zeros(shape, np.float32) for _ in range(3))
    values[middle, middle, middle] = inner
    np.subtract(values[..., 1:], values[..., :-1], out=slope_u[..., :-1])
    np.subtract(values[:, 1:], values[:, :-1], out=slope_v[:, :-1])
    return {"volume": values[:, None], "slope_u": slope_u[:, None], "slope_v": slope_v[:, None]}


def pose_inputs(grid: AttenuationGrid, T_camera_ct: Float, centre_ct: Float, dominant: int) -> dict[str, Float32]:
    """The inputs of the graph that change with the pose.

    Parameters
    ----------
    grid : AttenuationGrid
    T_camera_ct : ndarray, shape (4, 4)
    centre_ct : ndarray, shape (3,)
        Point about which the twist rotates, LPS mm.
    dominant : int
        Axis that the central ray is most parallel to (:func:`fluoronav.imaging.projector.dominant_axis`).

    Returns
    -------
    dict
        ``T_camera_ct`` (4, 4) relative to the grid's origin, ``axes`` (3, 3: x, y, z to u, v, k), ``parity`` (1,),
        ``centre`` (3,) relative to the grid's origin, ``spacing`` (1,).
    """
    axes = np.zeros((3, 3))
    axes[np.arange(3), list(AXES[dominant])] = 1
    # Relative to the grid's corner, coordinates are small enough for single precision.
    T = np.array(T_camera_ct, dtype=np.float64)
    T[:3, 3] += T[:3, :3] @ grid.padded_origin_ct
    return {
        "T_camera_ct": T.astype(np.float32),
        "axes": axes.astype(np.float32),
        "parity": np.array([np.linalg.det(axes)], np.float32),
        "centre": (np.asarray(centre_ct) - grid.padded_origin_ct).astype(np.float32),
        "spacing": np.array([grid.spacing_mm], np.float32),
    }


def step_graph(shape: tuple[int, int, int], patches: int, size: int) -> bytes:
    """Builds the graph for a volume's shape and a number of patches.

    Parameters
    ----------
    shape : tuple of int
        Slices, v and u of :func:`slices_of`.
    patches, size : int
        Number of patches, and side of one, pixels.

    Returns
    -------
    bytes
        An ONNX model. Inputs: those of :func:`slices_of` and :func:`pose_inputs`, ``rays`` (2, patches * size * size;
        camera-frame x and y at z = 1), ``frame_hat`` (patches, size * size; zero mean and unit norm), ``valid``
        (patches,; 1 where a patch is in use). Outputs: ``model`` (7, rays; integral, dI/dw, dI/dv), ``information``
        (6, 6), ``gradient`` (6,), ``ncc`` (patches,), ``weights`` (patches,).
    """
    g = _Graph()
    slices, rows, cols = shape
    pixels = size * size
    n = patches * pixels
    for name, dims in (
        ("volume", (slices, 1, rows, cols)), ("slope_u", (slices, 1, rows, cols)),
        ("slope_v", (slices, 1, rows, cols)), ("T_camera_ct", (4, 4)), ("axes", (3, 3)), ("parity", (1,)),
        ("centre", (3,)), ("spacing", (1,)), ("rays", (2, n)), ("frame_hat", (patches, pixels)), ("valid", (patches,)),
    ):  # fmt: skip
        g.input(name, dims)
    model = _projector(g, slices, rows, cols, n)
    g.output("model", g.name_of(model, "model"), (7, n))
    _equations(g, model, patches, pixels)
    return g.bytes()


def _projector(g: _Graph, slices: int, rows: int, cols: int, n: int) -> str:
    """Line integrals and derivatives, (7, n)."""
    R, t = g.slice("T_camera_ct", (0, 0), (3, 3)), g.slice("T_camera_ct", (0, 3), (3, 4))
    turned = g.op("Transpose", R, perm=[1, 0])
    source = g.op(
        "Div", g.product("axes", g.op("Neg", g.product(turned, t, (3, 3, 1))), (3, 3, 1)), "spacing"
    )  # (3, 1)
    D = g.product("axes", turned, (3, 3, 3))
    ones = g.constant(np.ones((1, n), np.float32))
    d = g.product(
        D, g.op("Concat", "rays", ones, axis=0), (3, 3, n)
    )  # (3, n), per mm along the beam; only ratios matter
    d_u, d_v, d_k = (g.slice(d, (i,), (i + 1,)) for i in range(3))
    du, dv = g.op("Div", d_u, d_k), g.op("Div", d_v, d_k)  # (1, n)
    s_u, s_v, s_k = (g.slice(source, (i,), (i + 1,)) for i in range(3))  # (1, 1)
    k = g.constant(np.arange(slices, dtype=np.float32)[:, None])  # (slices, 1)
    beyond = g.op("Sub", k, s_k)
    u = g.op("Add", s_u, g.op("Mul", beyond, du))  # (slices, n)
    v = g.op("Add", s_v, g.op("Mul", beyond, dv))
    one = g.scalar(1.0)

    def normalised(at: str, count: int) -> str:
        return g.reshape(g.op("Sub", g.op("Mul", at, g.scalar(2 / (count - 1))), one), (slices, n, 1, 1))

    def sample(of: str, x: str, y: str) -> str:
        at = g.op("Concat", x, y, axis=3)
        return g.op("GridSample", of, at, align_corners=1, mode="bilinear", padding_mode="zeros")

    x, y = normalised(u, cols), normalised(v, rows)
    sampled = g.op(
        "Concat",
        sample("volume", x, y),
        sample("slope_u", normalised(g.op("Floor", u), cols), y),
        sample("slope_v", x, normalised(g.op("Floor", v), rows)),
        axis=1,
    )
    # Only slices between source and detector.
    sign = g.op("Sign", g.slice(g.slice(D, (2,), (3,)), (0, 2), (1, 3)))
    ahead = g.op("Cast", g.op("Greater", g.op("Mul", beyond, sign), g.scalar(0.0)), to=1)  # (slices, 1)
    sampled = g.op("Mul", g.reshape(sampled, (slices, 3, n)), g.reshape(ahead, (slices, 1, 1)))
    # Sums over slices, and first moments about the middle slice.
    k_mid = float(slices // 2)
    t = g.constant((np.arange(slices, dtype=np.float32) - np.float32(k_mid))[:, None, None])
    first = g.constant(np.array([0], np.int64))
    sums = g.op("ReduceSum", sampled, first, keepdims=0)  # (3, n)
    moments = g.op("ReduceSum", g.op("Mul", sampled, t), first, keepdims=0)
    mu, g_u, g_v = (g.slice(sums, (i,), (i + 1,)) for i in range(3))
    tg_u, tg_v = (g.slice(moments, (i,), (i + 1,)) for i in (1, 2))
    middle = g.op("Sub", g.scalar(k_mid), s_k)
    c = g.op("Div", g.product("axes", g.reshape("centre", (3, 1)), (3, 3, 1)), "spacing")
    c_u, c_v, c_k = (g.slice(c, (i,), (i + 1,)) for i in range(3))
    a_u = g.op("Sub", g.op("Add", s_u, g.op("Mul", middle, du)), c_u)
    a_v = g.op("Sub", g.op("Add", s_v, g.op("Mul", middle, dv)), c_v)
    a_k = g.op("Sub", g.scalar(k_mid), c_k)
    lean = g.op("Add", g.op("Mul", du, du), g.op("Mul", dv, dv))
    h = g.op("Sqrt", g.op("Add", lean, one))
    # By parts, since the volume is zero at its border: sum g.e = 0 and sum t (g.e) = -sum mu.
    g_k = g.op("Neg", g.op("Add", g.op("Mul", du, g_u), g.op("Mul", dv, g_v)))
    tg_k = g.op("Sub", g.op("Neg", mu), g.op("Add", g.op("Mul", du, tg_u), g.op("Mul", dv, tg_v)))

    def cross(p: str, q: str, r: str, s: str) -> str:
        return g.op("Sub", g.op("Mul", p, q), g.op("Mul", r, s))

    m_u = g.op("Add", cross(a_v, g_k, a_k, g_v), g.op("Sub", g.op("Mul", dv, tg_k), tg_v))
    m_v = g.op("Add", cross(a_k, g_u, a_u, g_k), g.op("Sub", tg_u, g.op("Mul", du, tg_k)))
    m_k = g.op("Add", cross(a_u, g_v, a_v, g_u), g.op("Sub", g.op("Mul", du, tg_v), g.op("Mul", dv, tg_u)))
    back = g.op("Transpose", "axes", perm=[1, 0])
    scale = g.op("Mul", h, "spacing")
    turn = g.op("Mul", g.product(back, g.op("Concat", m_u, m_v, m_k, axis=0), (3, 3, n)), g.op("Mul", scale, "parity"))
    shift = g.op("Mul", g.product(back, g.op("Concat", g_u, g_v, g_k, axis=0), (3, 3, n)), h)
    return g.op("Concat", g.op("Mul", mu, scale), turn, shift, axis=0)


def _equations(g: _Graph, model: str, patches: int, pixels: int) -> None:
    """Adds correlations, weights and normal equations, as the kernels form them."""
    cube = g.reshape(model, (7, patches, pixels))
    mean = g.op("Mul", g.total(cube), g.scalar(1 / pixels))
    centred = g.op("Sub", cube, mean)
    value, J = g.slice(centred, (0,), (1,)), g.slice(centred, (1,), (7,))
    norm = g.op("Sqrt", g.op("Add", g.total(g.op("Mul", value, value)), g.scalar(SIMILARITY.min_power)))
    hat = g.op("Div", value, norm)  # (1, patches, pixels)
    J_hat = g.op("Div", g.op("Sub", J, g.op("Mul", hat, g.total(g.op("Mul", hat, J)))), norm)
    frame = g.reshape("frame_hat", (1, patches, pixels))
    ncc = g.reshape(g.total(g.op("Mul", hat, frame)), (patches,))
    # Weights: the square of the excess over a floor, which follows the median of the patches in use.
    used = g.op("Greater", "valid", g.scalar(0.5))
    sorted_values = g.op("Where", used, ncc, g.scalar(-2.0))
    top, _ = g.ops("TopK", 2, sorted_values, g.constant(np.array([patches], np.int64)), largest=1, sorted=1, axis=0)
    count = g.op("ReduceSum", "valid", g.constant(np.array([0], np.int64)), keepdims=1)  # (1,)
    half = g.op("Mul", count, g.scalar(0.5))
    lower = g.op("Floor", g.op("Sub", half, g.scalar(0.25)))
    upper = g.op("Floor", half)

    def pick(index: str) -> str:
        at = g.op("Cast", g.op("Clip", index, g.scalar(0.0), g.scalar(patches - 1)), to=7)
        return g.op("Gather", top, at, axis=0)

    median = g.op("Mul", g.op("Add", pick(lower), pick(upper)), g.scalar(0.5))
    floor = g.op("Max", g.op("Mul", median, g.scalar(SIMILARITY.min_of_median)), g.scalar(SIMILARITY.min_correlation))
    above = g.op("Max", g.op("Sub", ncc, floor), g.scalar(0.0))
    weights = g.op("Mul", g.op("Mul", above, above), "valid")
    # J^T W J and J^T W F^ over all pixels.
    flat = g.reshape(J_hat, (6, patches * pixels))
    spread = g.op("Expand", g.reshape(weights, (1, patches, 1)), g.constant(np.array([1, patches, pixels], np.int64)))
    weighted = g.op("Mul", flat, g.reshape(spread, (1, patches * pixels)))
    along = g.constant(np.array([2], np.int64))
    rows, cols = (g.reshape(x, shape) for x, shape in ((weighted, (6, 1, -1)), (flat, (1, 6, -1))))
    A = g.op("ReduceSum", g.op("Mul", rows, cols), along, keepdims=0)
    b = g.op("ReduceSum", g.op("Mul", rows, g.reshape("frame_hat", (1, 1, patches * pixels))), along, keepdims=0)
    total = g.op("ReduceSum", weights, g.constant(np.array([0], np.int64)), keepdims=1)
    off = g.op("Mul", weights, g.op("Sub", g.scalar(2.0), g.op("Mul", ncc, g.scalar(2.0))))
    cost = g.op("ReduceSum", off, g.constant(np.array([0], np.int64)), keepdims=1)
    freedom = g.op("Mul", g.op("Max", total, g.scalar(1e-12)), g.scalar(pixels - 2))
    noise = g.op("Max", g.op("Div", cost, freedom), g.scalar(GAUSS_NEWTON.min_noise))
    g.output("information", g.name_of(g.op("Div", A, noise), "information"), (6, 6))
    g.output("gradient", g.name_of(g.reshape(g.op("Div", b, noise), (6,)), "gradient"), (6,))
    g.output("ncc", g.name_of(ncc, "ncc"), (patches,))
    g.output("weights", g.name_of(weights, "weights"), (patches,))


class _Graph:
    """Builds an ONNX graph: each method adds a node and returns the name of its output."""

    def __init__(self) -> None:
        import onnx

        self._onnx = onnx
        self._nodes: list[Any] = []
        self._constants: list[Any] = []
        self._inputs: list[Any] = []
        self._outputs: list[Any] = []
        self._count = 0

    def input(self, name: str, dims: tuple[int, ...]) -> None:
        self._inputs.append(self._onnx.helper.make_tensor_value_info(name, 1, dims))

    def output(self, name: str, value: str, dims: tuple[int, ...]) -> None:
        assert name == value
        self._outputs.append(self._onnx.helper.make_tensor_value_info(name, 1, dims))

    def name_of(self, value: str, name: str) -> str:
        self._nodes.append(self._onnx.helper.make_node("Identity", [value], [name]))
        return name

    def op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        return self.ops(kind, 1, *inputs, **attributes)[0]

    def ops(self, kind: str, outputs: int, *inputs: str, **attributes: Any) -> list[str]:
        names = [self._new() for _ in range(outputs)]
        self._nodes.append(self._onnx.helper.make_node(kind, list(inputs), names, **attributes))
        return names

    def constant(self, value: NDArray[Any]) -> str:
        name = self._new()
        self._constants.append(self._onnx.numpy_helper.from_array(value, name))
        return name

    def scalar(self, value: float) -> str:
        return self.constant(np.array(value, np.float32))

    def reshape(self, value: str, dims: tuple[int, ...]) -> str:
        return self.op("Reshape", value, self.constant(np.array(dims, np.int64)))

    def slice(self, value: str, starts: tuple[int, ...], ends: tuple[int, ...]) -> str:
        """A slice along the first axes."""
        return self.op(
            "Slice", value, *(self.constant(np.array(x, np.int64)) for x in (starts, ends, range(len(starts))))
        )

    def product(self, a: str, b: str, dims: tuple[int, int, int]) -> str:
        """Matrix product of (rows, inner) and (inner, cols), by sums: TensorRT has no FP32 GEMM for Turing."""
        rows, inner, cols = dims
        terms = self.op("Mul", self.reshape(a, (rows, inner, 1)), self.reshape(b, (1, inner, cols)))
        return self.op("ReduceSum", terms, self.constant(np.array([1], np.int64)), keepdims=0)

    def total(self, value: str) -> str:
        """Sum over pixels, the third axis, which is kept."""
        return self.op("ReduceSum", value, self.constant(np.array([2], np.int64)), keepdims=1)

    def bytes(self) -> bytes:
        helper = self._onnx.helper
        graph = helper.make_graph(self._nodes, "registration-step", self._inputs, self._outputs, self._constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=9)
        self._onnx.checker.check_model(model, full_check=True)
        return model.SerializeToString()

    def _new(self) -> str:
        self._count += 1
        return f"x{self._count}"
