"""Does a graph make sense, and can every width in it hold the values that reach it?

Interval arithmetic over the nodes: from the input's format forwards, with actual weights where they
are at hand (the server), else with what the node declares (the client, who trusts the public width).
"""

from __future__ import annotations

import numpy as np

from pqjax.errors import GraphError, listed
from pqjax.graph.ir import (
    Add,
    ArgMax,
    AvgPool,
    Clamp,
    Conv,
    Dense,
    Extend,
    Flatten,
    Graph,
    Input,
    MaxPool,
    Narrow,
    Node,
    Pad,
    Relu,
    Requantize,
    Rounding,
    ScaleUp,
    Subsample,
    TensorType,
    Truncate,
    TruncateReduce,
    Weights,
    rounding_half,
)

Interval = tuple[int, int]


def width_for(low: int, high: int, signed: bool = True) -> int:
    """Bits that hold every integer in [low, high]."""
    if not signed:
        return max(1, high.bit_length())
    return 1 + max(high.bit_length(), (-low - 1).bit_length() if low < 0 else 0)


def reach(node: Conv | Dense, source: Interval, weights: Weights) -> Interval:
    """The smallest and largest accumulator that any input in `source` can produce, bias included."""
    weight = np.asarray(weights[f"{node.name}/weight"]).astype(np.int64)
    bias = np.asarray(weights[f"{node.name}/bias"]).astype(np.int64)
    flat = weight.reshape(-1, weight.shape[-1])
    positive, negative = flat.clip(min=0).sum(0), flat.clip(max=0).sum(0)
    # Zero padding puts 0 in the place of an operand, so 0 is reachable in every term.
    low, high = min(source[0], 0), max(source[1], 0)
    lows = positive * low + negative * high + bias
    highs = positive * high + negative * low + bias
    return int(lows.min()), int(highs.max())


def _worst(node: Conv | Dense, source: Interval, terms: int) -> Interval:
    """What weights of the declared width could produce, the bias aside."""
    largest = max(abs(source[0]), abs(source[1])) * (1 << (node.weight_bits - 1)) * terms
    return -largest, largest


def _fail(node: Node, text: str) -> GraphError:
    return GraphError(f"{node.name} ({node.kind}): {text}")


def _hold(node: Node, interval: Interval, what: str) -> None:
    out = node.out
    if interval[0] < out.low or interval[1] > out.high:
        need = width_for(*interval, out.signed)
        raise _fail(
            node,
            f"{what} can be anything in [{interval[0]}, {interval[1]}], which takes {need} bits, but "
            f"its format holds [{out.low}, {out.high}] ({out.bits} bits): widen out.bits to {need} "
            "or requantize before",
        )


def _pooled(node: MaxPool | AvgPool, shape: tuple[int, ...]) -> tuple[int, ...]:
    if len(shape) != 3 or shape[0] < node.window[0] or shape[1] < node.window[1]:
        raise _fail(node, f"a window of {node.window} does not fit an input of shape {shape}")
    return (
        (shape[0] - node.window[0]) // node.stride[0] + 1,
        (shape[1] - node.window[1]) // node.stride[1] + 1,
        shape[2],
    )


def _shape(graph: Graph, node: Node) -> tuple[int, ...]:
    source = graph.source(node)
    if isinstance(node, Conv):
        if len(source.shape) != 3:
            raise _fail(node, f"needs an (H, W, C) input, got shape {source.shape}")
        c, k = source.shape[2], node.out.shape[-1]
        if c % node.groups or k % node.groups:
            raise _fail(node, f"{node.groups} groups do not divide {c} and {k} channels")
        sides = [
            (source.shape[i] + sum(node.padding[i]) - node.kernel[i]) // node.stride[i] + 1
            for i in (0, 1)
        ]
        return (*sides, k)
    if isinstance(node, Dense):
        if len(source.shape) != 1:
            raise _fail(node, f"needs a flat input, got shape {source.shape}; flatten first")
        return node.out.shape[:1]
    if isinstance(node, (MaxPool, AvgPool)):
        return _pooled(node, source.shape)
    if isinstance(node, Flatten):
        return (source.n,)
    if isinstance(node, ArgMax):
        return (1,)
    if isinstance(node, (Subsample, Pad)):
        if len(source.shape) != 3:
            raise _fail(node, f"needs an (H, W, C) input, got shape {source.shape}")
        if isinstance(node, Pad):
            return tuple(d + sum(m) for d, m in zip(source.shape, node.margins, strict=True))
        h, w, c = source.shape
        return (-(-h // node.stride[0]), -(-w // node.stride[1]), c)
    return source.shape


def _check_format(node: Node) -> None:
    out = node.out
    if not 1 <= out.bits <= 64 or any(d < 1 for d in out.shape):
        raise _fail(node, f"width in 1..64 and positive sides expected, got {out}")
    if out.nonnegative and not out.signed:
        raise _fail(node, "nonnegative is a fact about signed formats; this one is unsigned")
    for field in ("kernel", "window", "stride"):
        sides = getattr(node, field, (1, 1))
        if len(sides) != 2 or any(side < 1 for side in sides):
            raise _fail(node, f"{field} takes two sides of at least 1, got {sides}")
    if isinstance(node, Conv) and (
        len(node.padding) != 2 or any(len(p) != 2 or min(p) < 0 for p in node.padding)
    ):
        raise _fail(node, f"padding takes two pairs of at least 0, got {node.padding}")
    if isinstance(node, (Conv, Dense)) and not 1 <= node.weight_bits <= 64:
        raise _fail(node, f"weight_bits in 1..64 expected, got {node.weight_bits}")
    if isinstance(node, AvgPool) and node.multiplier < 1:
        raise _fail(node, f"a multiplier of at least 1 expected, got {node.multiplier}")
    if isinstance(node, Requantize) and node.rule not in ("wrap", "saturate"):
        raise _fail(node, f"the rule is wrap or saturate, got {node.rule!r}")
    if getattr(node, "rounding", "floor") not in ("nearest", "floor"):
        raise _fail(node, f"rounding is nearest or floor, got {getattr(node, 'rounding')!r}")  # noqa: B009
    if isinstance(node, Pad) and (
        len(node.margins) != 3 or any(len(m) != 2 or min(m) < 0 for m in node.margins)
    ):
        raise _fail(node, f"three pairs of at least 0 expected, got {node.margins}")
    if isinstance(node, (ScaleUp, Truncate, TruncateReduce)) and node.shift < 1:
        raise _fail(node, f"a shift of at least 1 expected, got {node.shift}")
    if isinstance(node, Clamp) and not node.low <= 0 <= node.high:
        raise _fail(node, f"limits around 0 expected, got [{node.low}, {node.high}]")


def _same(node: Node, one: TensorType, other: TensorType, fields: tuple[str, ...]) -> None:
    for field in fields:
        a, b = getattr(one, field), getattr(other, field)
        if a != b:
            raise _fail(node, f"{field} must agree, got {a} and {b}: requantize one of them")


def validate(graph: Graph, weights: Weights | None = None) -> dict[str, Interval]:
    """Checks a graph, with its weights if given; the interval every node's values lie in.

    Raises:
      GraphError: names the node, what is wrong, and the width it needs.
    """
    known: dict[str, Interval] = {}
    trusted: set[str] = (
        set()
    )  # accumulators whose interval only the weights would tell, and readers
    if weights is not None:
        _check_weights(graph, weights)
    for node in graph:
        _check_format(node)
        if isinstance(node, Input):
            known[node.name] = (node.out.low, node.out.high)
            continue
        source = graph.source(node)
        shape = _shape(graph, node)
        if node.out.shape != shape:
            raise _fail(node, f"makes a tensor of shape {shape}, but declares {node.out.shape}")
        if isinstance(node, (Conv, Dense)):
            if weights is None or node.widths == "empirical":
                trusted.add(node.name)
        elif not isinstance(node, (Requantize, Clamp, ArgMax)) and trusted & set(node.sources):
            trusted.add(node.name)
        known[node.name] = _interval(graph, node, source, known, trusted, weights)
    return known


def _interval(
    graph: Graph,
    node: Node,
    source: TensorType,
    known: dict[str, Interval],
    trusted: set[str],
    weights: Weights | None,
) -> Interval:
    low, high = known[node.sources[0]]
    out = node.out
    if isinstance(node, (Conv, Dense)):
        if out.scale != source.scale + node.weight_scale:
            raise _fail(
                node,
                f"scale must be {source.scale} + {node.weight_scale} (input + weights), got {out.scale}",
            )
        if not out.signed or out.nonnegative:
            raise _fail(node, "an accumulator is signed, and nothing is known about its sign")
        if node.widths == "worst":
            terms = source.n if isinstance(node, Dense) else (
                node.kernel[0] * node.kernel[1] * source.shape[2] // node.groups
            )  # fmt: skip
            _hold(node, _worst(node, (low, high), terms), "the sum of products")
        if weights is None or node.widths == "empirical":
            return out.low, out.high  # as wide as declared; the server, who has weights, checks
        interval = reach(node, (low, high), weights)
        _hold(node, interval, "the sum of products and bias")
        return interval
    if isinstance(node, Requantize):
        return _requantized(node, source, (low, high), node.sources[0] in trusted)
    if isinstance(node, Narrow):
        return _narrowed(node, source, (low, high))
    if isinstance(node, Add):
        other = graph.source(node, 1)
        _same(node, source, other, ("shape", "bits", "scale", "signed"))
        _same(node, source, out, ("bits", "scale", "signed"))
        more = known[node.sources[1]]
        interval = (low + more[0], high + more[1])
    elif isinstance(node, AvgPool):
        area = node.window[0] * node.window[1] * node.multiplier
        interval = (low * area, high * area)
        _same(node, source, out, ("bits", "signed"))
    elif isinstance(node, ArgMax):
        interval = (0, source.n - 1)
    elif isinstance(node, Relu):
        interval = (max(low, 0), max(high, 0))
        _same(node, source, out, ("bits", "scale", "signed"))
    elif isinstance(node, (Extend, ScaleUp, Truncate, TruncateReduce, Clamp)):
        interval = _resized(node, source, (low, high), node.sources[0] in trusted)
    elif isinstance(node, Pad):
        interval = (min(low, 0), max(high, 0))
        _same(node, source, out, ("bits", "scale", "signed"))
    else:
        interval = (low, high)
        _same(node, source, out, ("bits", "scale", "signed"))
    if isinstance(node, (MaxPool, ArgMax)) and node.headroom and not trusted & set(node.sources):
        if high - low >= 1 << (source.bits - 1):
            raise _fail(
                node,
                f"has no headroom: values in [{low}, {high}] differ by more than {source.bits} bits "
                "hold",
            )
    if node.name in trusted:
        return max(interval[0], out.low), min(interval[1], out.high)
    _hold(node, interval, "a value")
    return interval


def _resized(
    node: Extend | ScaleUp | Truncate | TruncateReduce | Clamp,
    source: TensorType,
    interval: Interval,
    trusted: bool,
) -> Interval:
    """Checks width and scale of a requantization's step; where its values then lie."""
    out = node.out
    low, high = interval
    if isinstance(node, (Truncate, TruncateReduce)):
        if node.shift >= source.bits:
            raise _fail(node, f"shifts {source.bits} bits by {node.shift}: nothing would be left")
        _check_rounding(node, source, high, node.shift, node.rounding, trusted)
        bits = source.bits
        if isinstance(node, TruncateReduce):
            bits = min(out.bits, source.bits - node.shift)
        wanted = (bits, source.scale - node.shift)
        half = rounding_half(node.shift, node.rounding)
        low, high = (low + half) >> node.shift, (high + half) >> node.shift
        if bits < source.bits - node.shift:
            low, high = _low_bits(node, (low, high))
    elif isinstance(node, ScaleUp):
        wanted = (source.bits + node.shift, source.scale + node.shift)
        low, high = low << node.shift, high << node.shift
    elif isinstance(node, Clamp):
        if not source.signed:
            raise _fail(node, "clamps signed values; extend its source to a signed format first")
        wanted = (min(out.bits, source.bits), source.scale)
        low, high = (min(max(end, node.low), node.high) for end in (low, high))
    else:
        wanted = (max(out.bits, source.bits), source.scale)
    if (out.bits, out.scale) != wanted:
        raise _fail(
            node,
            f"{wanted[0]} bits at scale {wanted[1]} follow from its source, but it declares "
            f"{out.bits} at {out.scale}",
        )
    return low, high


def _narrowed(node: Narrow, source: TensorType, interval: Interval) -> Interval:
    out = node.out
    _same(node, source, out, ("scale",))
    if out.bits > source.bits:
        raise _fail(node, f"keeps low bits, but {source.bits} bits do not have {out.bits}")
    return _low_bits(node, interval)


def _low_bits(node: Node, interval: Interval) -> Interval:
    """Where values lie of which only the low bits are kept."""
    out = node.out
    if interval[0] >= out.low and interval[1] <= out.high:
        return interval
    if out.nonnegative:
        raise _fail(node, f"wraps {list(interval)}: its sign bit cannot be known to be 0")
    return out.low, out.high


def _check_rounding(
    node: Node, source: TensorType, high: int, shift: int, rounding: Rounding, trusted: bool
) -> None:
    half = rounding_half(shift, rounding)
    if half and not trusted and high + half > source.high:
        need = width_for(0, high + half, source.signed)
        raise _fail(
            node,
            f"rounding adds {half} to values up to {high}, which needs a source of {need} "
            f"bits, got {source.bits}: widen {node.sources[0]!r} to {need}",
        )


def _requantized(
    node: Requantize, source: TensorType, interval: Interval, trusted: bool
) -> Interval:
    out, shift = node.out, source.scale - node.out.scale
    low, high = interval
    if shift >= source.bits:
        raise _fail(node, f"shifts {source.bits} bits right by {shift}: nothing would be left")
    _check_rounding(node, source, high, shift, node.rounding, trusted)
    half = rounding_half(shift, node.rounding)
    low, high = ((end + half) >> shift if shift >= 0 else end << -shift for end in (low, high))
    if node.rule == "saturate":
        return min(max(low, out.low), out.high), min(max(high, out.low), out.high)
    if low < out.low or high > out.high:
        if out.nonnegative:
            raise _fail(node, f"wraps [{low}, {high}]: its sign bit cannot be known to be 0")
        return out.low, out.high
    return low, high


def _check_weights(graph: Graph, weights: Weights) -> None:
    wanted = graph.parameters()
    if set(wanted) != set(weights):
        missing, extra = sorted(set(wanted) - set(weights)), sorted(set(weights) - set(wanted))
        raise GraphError(
            f"weights do not match the graph: missing {listed(missing) or 'none'}, not in it "
            f"{listed(extra) or 'none'}"
        )
    for name, (shape, bits) in wanted.items():
        value = np.asarray(weights[name])
        if value.shape != shape or value.dtype.kind not in "iu":
            raise GraphError(
                f"{name}: integers of shape {shape} expected, got {value.dtype} of {value.shape}"
            )
        need = width_for(int(value.min()), int(value.max()))
        if need > bits:
            raise GraphError(f"{name}: values take {need} bits, the graph says {bits}")


def wrap_rates(graph: Graph, values: dict[str, np.ndarray]) -> dict[str, float]:
    """Share of values that leave the range at each Requantize, from `every_value`'s tensors."""
    rates = {}
    for node in graph:
        if isinstance(node, Requantize):
            source = graph.source(node)
            shift = source.scale - node.out.scale
            x = values[node.sources[0]].astype(np.int64)
            half = rounding_half(shift, node.rounding)
            x = x << -shift if shift < 0 else (x + half) >> shift
            rates[node.name] = float(((x < node.out.low) | (x > node.out.high)).mean())
    return rates
