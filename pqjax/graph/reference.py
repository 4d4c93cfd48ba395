"""The plaintext meaning of a graph: exact integers, node by node, jittable.

Every step computes in its ring: what leaves a format wraps around, the rounding addition before a
shift too. `validate` sees to it that this happens only behind what may overflow (`graph.overflow`).

This is the yardstick of every private run: `reconstruct(execute(plan, x)) == reference(graph, x)`.
"""

import functools
import typing

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer
from jaxtyping import Int

from pqjax.errors import GraphError, InputError
from pqjax.graph import ir
from pqjax.graph.ir import Graph, Node, TensorType, Weights
from pqjax.graph.tensor import Rounding, rounding_half

Array = np.ndarray | jax.Array


def _dtype(out: TensorType) -> np.dtype:
    return np.dtype(np.int32 if out.bits + (not out.signed) <= 32 else np.int64)


def _wrapped(x: jax.Array, out: TensorType) -> jax.Array:
    """Reduces to the format's ring and reads it back as the format says."""
    spare = 8 * x.dtype.itemsize - out.bits
    if spare <= 0:
        return x
    if out.signed:
        return (x << spare) >> spare
    return x & x.dtype.type((1 << out.bits) - 1)


def _product_dtype(node: ir.Conv | ir.Dense, source: TensorType, terms: int) -> np.dtype:
    """The cheapest type in which every partial sum is exact."""
    need = source.bits + (not source.signed) + node.weight_bits + max(1, terms - 1).bit_length()
    if need <= 24:
        return np.dtype(np.float32)
    return np.dtype(np.float64 if need <= 53 else np.int64)


def _conv(node: ir.Conv, source: TensorType, x, weights):
    weight, bias = weights[f"{node.name}/weight"], weights[f"{node.name}/bias"]
    dtype = _product_dtype(node, source, int(np.prod(weight.shape[:3])))
    y = _correlate(node, x.astype(dtype), weight.astype(dtype))
    return _accumulator(node, y, bias)


def _accumulator(node: ir.Conv | ir.Dense, y, bias):
    """Sums plus bias in the node's ring; a float beyond 32 bits must not meet a 32-bit integer."""
    wide = np.dtype(np.int64) if y.dtype != np.float32 else _wider(node.out)
    return _wrapped(y.astype(wide) + bias.astype(wide).reshape(*[1] * (y.ndim - 1), -1), node.out)


def _correlate(node: ir.Conv, x, weight):
    """The products' sums. XLA's convolution is slow for single channels and pixels (10x, 2x)."""
    if node.groups > 1 and weight.shape[2] == 1:
        return _depthwise(node, x, weight)
    if node.kernel == node.stride == (1, 1) and node.groups == 1 and not np.any(node.padding):
        y = jnp.dot(x.reshape(-1, x.shape[3]), weight[0, 0], precision=lax.Precision.HIGHEST)
        return y.reshape(*x.shape[:3], -1)
    geometry = node.stride, node.padding, None, node.dilation
    return _convolve(x, weight, *geometry, feature_group_count=node.groups)


_convolve = functools.partial(
    lax.conv_general_dilated,
    dimension_numbers=("NHWC", "HWIO", "NHWC"),
    precision=lax.Precision.HIGHEST,
)


def _depthwise(node: ir.Conv, x, weight):
    """One input channel per output channel: element-wise, tap by tap."""
    x = jnp.pad(x, ((0, 0), *node.padding, (0, 0)))
    x = jnp.repeat(x, node.out.shape[2] // node.groups, axis=3)
    (high, wide), (down, right) = node.out.shape[:2], node.stride
    rows, cols = (high - 1) * down + 1, (wide - 1) * right + 1
    total = jnp.zeros((), x.dtype)
    for i in range(node.kernel[0]):
        for j in range(node.kernel[1]):
            at, to = i * node.dilation[0], j * node.dilation[1]
            read = x[:, at : at + rows : down, to : to + cols : right]
            total = total + read * weight[i, j, 0][None, None, None]
    return total


def _dense(node: ir.Dense, source: TensorType, x, weights):
    weight, bias = weights[f"{node.name}/weight"], weights[f"{node.name}/bias"]
    dtype = _product_dtype(node, source, weight.shape[0])
    y = jnp.dot(x.astype(dtype), weight.astype(dtype), precision=lax.Precision.HIGHEST)
    return _accumulator(node, y, bias)


def _product(node: ir.Product, a: TensorType, b: TensorType, x, y):
    terms = node.terms(a)
    need = sum(t.bits + (not t.signed) for t in (a, b)) + max(1, terms - 1).bit_length()
    dtype = np.dtype(np.float32 if need <= 24 else np.float64 if need <= 53 else np.int64)
    x, y = (
        each.astype(dtype).reshape(len(each), -1, node.heads, each.shape[3] // node.heads)
        for each in (x, y)
    )
    equation = "bmhk,bnhk->bmhn" if node.transposed else "bmhk,bkhn->bmhn"
    sums = jnp.einsum(equation, x, y, precision=lax.Precision.HIGHEST)
    return _wrapped(sums.astype(np.int64), node.out).reshape(len(x), *node.out.shape)


def _wider(out: TensorType) -> np.dtype:
    """A type in which one addition to a value of this format cannot overflow."""
    return np.dtype(np.int32 if out.bits < 31 else np.int64)


def _rounded(source: TensorType, x, shift: int, rounding: Rounding):
    """Shifted right, what is added before to round wrapping around in the source's ring."""
    half = rounding_half(shift, rounding)
    if half:
        x = _wrapped(x.astype(_wider(source)) + half, source)
    return x >> shift


def _shifted(node: ir.Truncate | ir.TruncateReduce, source: TensorType, x):
    x = _rounded(source, x, node.shift, node.rounding)
    return _wrapped(x.astype(_wider(node.out)), node.out)


def _requantize(node: ir.Requantize, source: TensorType, x):
    shift = source.scale - node.out.scale
    need = max(source.bits, source.bits - shift, node.out.bits)
    wide = np.dtype(np.int32 if need < 31 else np.int64)
    if shift > 0:
        x = _rounded(source, x, shift, node.rounding).astype(wide)
    else:
        x = x.astype(wide) << -shift
    if node.rule == "saturate":
        return jnp.clip(x, node.out.low, node.out.high)
    return _wrapped(x, node.out)


def _windows(node: ir.MaxPool | ir.AvgPool, x, start, reducer, padding=((0, 0), (0, 0))):
    window, stride = (1, *node.window, 1), (1, *node.stride, 1)
    around = ((0, 0), *padding, (0, 0))
    return lax.reduce_window(x, x.dtype.type(start), reducer, window, stride, around)


def _average(node: ir.AvgPool, x):
    """The factor of every window from the ones that it sums of an image of ones."""
    total = _windows(node, x.astype(np.int64), 0, lax.add, node.padding)
    if not np.any(node.padding):
        return _wrapped(total * node.multiplier, node.out)
    ones = _windows(node, jnp.ones((1, *x.shape[1:3], 1), np.int64), 0, lax.add, node.padding)
    whole = node.multiplier * node.window[0] * node.window[1]
    return _wrapped(total * ((whole + ones // 2) // ones), node.out)


def _step(graph: Graph, node: Node, values: dict[str, jax.Array], weights) -> jax.Array:
    x = values[node.sources[0]]
    source = graph.source(node)
    if isinstance(node, ir.Conv):
        return _conv(node, source, x, weights)
    if isinstance(node, ir.Dense):
        return _dense(node, source, x, weights)
    if isinstance(node, ir.Product):
        other = graph.source(node, 1)
        return _product(node, source, other, x, values[node.sources[1]])
    if isinstance(node, ir.Relu):
        return jnp.maximum(x, 0)
    if isinstance(node, ir.Requantize):
        return _requantize(node, source, x)
    if isinstance(node, ir.Add):
        wide = _wider(node.out)
        return _wrapped(x.astype(wide) + values[node.sources[1]].astype(wide), node.out)
    if isinstance(node, ir.MaxPool):
        return _windows(node, x, np.iinfo(x.dtype).min, lax.max)
    if isinstance(node, ir.AvgPool):
        return _average(node, x)
    if isinstance(node, ir.Flatten):
        return x.reshape(x.shape[0], -1)
    if isinstance(node, ir.Concat):
        return jnp.concatenate([values[source] for source in node.sources], axis=-1)
    if isinstance(node, ir.Subsample):
        return x[:, :: node.stride[0], :: node.stride[1]]
    if isinstance(node, ir.Pad):
        return jnp.pad(x, ((0, 0), *node.margins), "edge" if node.edge else "constant")
    if isinstance(node, ir.Take):
        return jnp.take(x, np.array(node.channels), axis=-1)
    if isinstance(node, (ir.Extend, ir.Narrow, ir.Unguard)):
        return _wrapped(x.astype(_wider(node.out)), node.out)
    if isinstance(node, ir.ScaleUp):
        return _wrapped(x.astype(_wider(node.out)) << node.shift, node.out)
    if isinstance(node, (ir.Truncate, ir.TruncateReduce)):
        return _shifted(node, source, x)
    if isinstance(node, ir.Clamp):
        return jnp.clip(x.astype(_wider(source)), node.low, node.high)
    if isinstance(node, ir.Saturate):
        wide = x.astype(_wider(source))
        if node.shift:
            half = rounding_half(node.shift, node.rounding)
            wide = _wrapped(wide + wide.dtype.type(half), source) >> node.shift
        return jnp.clip(wide, node.low, node.high)
    if isinstance(node, ir.ArgMax):
        return lax.argmax(x, 1, np.int32)[:, None]
    raise GraphError(f"{node.name}: the reference has no rule for {node.kind}")


def _run(graph: Graph, weights, x, every: bool) -> typing.Any:
    values = {graph.input.name: x}
    for node in graph.nodes[1:]:
        values[node.name] = _step(graph, node, values, weights).astype(_dtype(node.out))
    return values if every else values[graph.output.name]


_compiled = functools.partial(jax.jit, static_argnames=("graph", "every"))(_run)


def check_input(graph: Graph, x: Int[Array, "..."]) -> Int[np.ndarray, "..."]:
    """Checks one input or a batch of them; returns it with a batch axis.

    Raises:
      InputError: wrong shape, not integers, or a value the input's format does not hold.
    """
    x, name, out = np.asarray(x), graph.input.name, graph.input.out
    if x.dtype.kind not in "iu":
        raise InputError(f"{name}: integers expected, got dtype {x.dtype}; quantize first")
    batch = x[None] if x.shape == out.shape else x
    if batch.ndim != len(out.shape) + 1 or batch.shape[1:] != out.shape:
        raise InputError(f"{name}: shape {out.shape} expected, got {x.shape}")
    if batch.size and (int(batch.min()) < out.low or int(batch.max()) > out.high):
        raise InputError(
            f"{name}: values must lie in [{out.low}, {out.high}] ({out.bits} bits), and some do not"
        )
    return batch


def reference(graph: Graph, weights: Weights, x: Int[Array, "..."]) -> Int[Array, "..."]:
    """The network's exact answer.

    From integers of the input's shape, or a batch of them (under an outer jit a traced array), to
    integers of the output's, with x's batch axis if it had one; numpy unless traced.
    """
    if isinstance(x, Tracer):
        single = x.ndim == len(graph.input.out.shape)
        with jax.enable_x64(True):
            y = _run(graph, weights, x[None] if single else x, False)
        return y[0] if single else y
    batch = check_input(graph, x).astype(_dtype(graph.input.out))
    with jax.enable_x64(True):
        y = np.asarray(_compiled(graph, dict(weights), batch, False))
    return y[0] if np.ndim(x) == len(graph.input.out.shape) else y


def every_value(
    graph: Graph, weights: Weights, x: Int[np.ndarray, "..."]
) -> dict[str, Int[np.ndarray, "..."]]:
    """Like `reference`, but every node's tensor by name, with a batch axis."""
    batch = check_input(graph, x).astype(_dtype(graph.input.out))
    with jax.enable_x64(True):
        values = _compiled(graph, dict(weights), batch, True)
    return {name: np.asarray(value) for name, value in values.items()}
