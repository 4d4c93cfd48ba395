"""Does a graph make sense, can every width in it hold the values that reach it, do its protocols hold?

Interval arithmetic over the nodes, from the input's format on: with the actual weights where they are
at hand (the server), else with what a linear layer declares (the client, who trusts the public width;
the server checks it). A tensor that may overflow holds any value of its format (`pqjax.graph.overflow`),
so nothing is trusted there. Every protocol states beside it what it needs (its `..._unfit`); every node
asks those that run it, in the graph as written and in the one that passes made of it.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from pqjax.errors import GraphError, listed
from pqjax.graph.ir import Graph, Input, Linear, Node, Requantize, Weights
from pqjax.graph.lower import lower
from pqjax.graph.norms import square_bits
from pqjax.graph.tensor import Interval, Known, TensorType, width_for
from pqjax.protocols.compare import known_sign_unfit


def validate(
    graph: Graph, weights: Weights | None = None, given: Mapping[str, Interval] | None = None
) -> dict[str, Interval]:
    """Checks a graph, with its weights if given; the interval every node's values lie in.

    What holds with weights has to hold without them, too: the client, who plans the same, has none.

    `given` is, of a graph that passes made, what was found on the graph as written: where its input and
    its accumulators lie, whose formats a pass may have widened.

    Raises:
      GraphError: names the node, what is wrong, and the width it needs.
    """
    for node in graph:
        _check_format(node)
        if node.sources:
            shape = _shape(node, graph.types(node))
            if node.out.shape != shape:
                raise node.error(f"makes a tensor of shape {shape}, but declares {node.out.shape}")
    if weights is not None:
        validate(graph, given=given)
        _check_weights(graph, weights)
    known: dict[str, Known] = {}
    for node in graph:
        x = [known[source] for source in node.sources]
        known[node.name] = _known(node, x, weights, given or {})
    return {name: (found.low, found.high) for name, found in known.items()}


def _check_format(node: Node) -> None:
    """What ties fields together; the bounds of each are held when a `Graph` is made."""
    if node.out.bits == 64 and not node.out.signed:
        raise node.error("unsigned formats have at most 63 bits: answers are 64-bit integers")
    if node.out.share_bits > 64:
        raise node.error(f"shares have at most 64 bits, got {node.out.bits} and {node.out.guard}")
    if node.out.nonnegative and not node.out.signed:
        raise node.error("nonnegative is a fact about signed formats; this one is unsigned")


def _shape(node: Node, sources: list[TensorType]) -> tuple[int, ...]:
    for x in sources:
        if node.sides == 3 != len(x.shape):
            raise node.error(f"needs an (H, W, C) input, got shape {x.shape}")
        if node.sides == 1 != len(x.shape):
            raise node.error(f"needs a flat input, got shape {x.shape}; flatten first")
    if isinstance(node, Linear) and len(node.out.shape) != node.sides:
        raise node.error(f"makes a tensor of {node.sides} sides, but declares {node.out.shape}")
    return node.shape(*sources)


def _check_weights(graph: Graph, weights: Weights) -> None:
    wanted = graph.parameters()
    if set(wanted) != set(weights):
        missing = listed(sorted(set(wanted) - set(weights))) or "none"
        extra = listed(sorted(set(weights) - set(wanted))) or "none"
        raise GraphError(f"weights do not match the graph: missing {missing}, not in it {extra}")
    for name, (shape, bits) in wanted.items():
        value = np.asarray(weights[name])
        if value.shape != shape or value.dtype.kind not in "iu":
            raise GraphError(
                f"{name}: integers of shape {shape} expected, got {value.dtype} of {value.shape}"
            )
        need = width_for(int(value.min()), int(value.max()))
        if need > bits:
            raise GraphError(f"{name}: values take {need} bits, the graph says {bits}")
    for node in graph:
        if isinstance(node, Linear) and node.square_bits is not None:
            found = square_bits(np.asarray(weights[f"{node.name}/weight"]))
            if found > node.square_bits:
                raise node.error(
                    f"declares filters whose squares sum to at most 2^{node.square_bits}, but one's "
                    f"take 2^{found}"
                )


def reach(node: Linear, source: Interval, weights: Weights) -> Interval:
    """The smallest and largest accumulator that any input in `source` can produce, bias included."""
    weight = np.asarray(weights[f"{node.name}/weight"]).astype(np.int64)
    bias = np.asarray(weights[f"{node.name}/bias"]).astype(np.int64).astype(object)
    flat = weight.reshape(-1, weight.shape[-1])
    if node.weight_bits + len(flat).bit_length() > 63:
        flat = flat.astype(object)  # sums of Python integers: none is ever cut
    positive = flat.clip(min=0).sum(0).astype(object)
    negative = flat.clip(max=0).sum(0).astype(object)
    # Zero padding puts 0 in the place of an operand, so 0 is reachable in every term.
    low, high = min(source[0], 0), max(source[1], 0)
    lows = positive * low + negative * high + bias
    highs = positive * high + negative * low + bias
    return int(lows.min()), int(highs.max())


def _known(
    node: Node, x: Sequence[Known], weights: Weights | None, given: Mapping[str, Interval]
) -> Known:
    """What is known of a node's tensor; checks widths and scales, and what its protocol needs."""
    loose = node.overflows or (node.hands_on and any(k.loose for k in x))
    trusted = not node.own_range and any(k.trusted for k in x)
    interval = node.reach(*x)
    first, *others = (*(k.out for k in x), node.out)
    for out in others:
        _check_same(node, first, out)
    if isinstance(node, Requantize):
        _check_steps(node, x[0])
    if isinstance(node, Linear):
        trusted = weights is None and not loose
    if isinstance(node, Input) or (isinstance(node, Linear) and trusted):
        interval = given.get(node.name, interval)
    made = Known(node.out, *interval, loose, trusted, _slack(node, x))
    if isinstance(node, Linear) and not loose and weights is not None:
        low, high = reach(node, (x[0].low, x[0].high), weights)
        return _held(node, made._replace(low=low, high=high), "the sum of products and bias")
    return _held(node, made)


def _slack(node: Node, x: Sequence[Known]) -> int:
    """What guard bits may hold; checks that nothing reads them that would be wrong by them."""
    own, most = node.out.guard, max((k.out.guard for k in x), default=0)
    if node.multiplies and not most:
        return min(own, 1)
    if most and not (node.keeps_guard or node.drops_guard):
        raise node.error("reads values with guard bits as they are: an Unguard has to come before")
    kept = 0 if node.drops_guard or (node.may_drop_guard and not own) else most
    if own != kept:
        raise node.error(f"{kept} guard bits follow from its source, but it declares {own}")
    found = node.slack(*(k.slack << most - k.out.guard for k in x)) if kept else 0
    if found >> own:
        raise node.error(f"{own} guard bits do not hold the {found} units that add up in them")
    return found


def _check_same(node: Node, one: TensorType, other: TensorType) -> None:
    for field in node.same:
        a, b = getattr(one, field), getattr(other, field)
        if a != b:
            raise node.error(f"{field} must agree, got {a} and {b}: requantize one of them")


def _check_steps(node: Requantize, x: Known) -> None:
    for step in lower(node, x.out, x.loose):
        bits = step.out.bits + (not step.out.signed)
        if bits > 64:
            raise node.error(
                f"takes {bits} signed bits on the way ({step.kind}), and 64 is the most: narrow "
                f"{node.sources[0]!r} or shift by less"
            )


def _held(node: Node, made: Known, what: str = "a value") -> Known:
    """What a node's format holds of the values it computes."""
    out, low, high = made.out, made.low, made.high
    if out.low <= low and high <= out.high:
        return made
    if made.loose and node.same_ring:  # any value of the ring
        if out.nonnegative:
            known = known_sign_unfit(out.bits, *out.ends)
            raise node.error(f"may overflow, so its sign bit cannot be known to be 0: {known}")
        return made._replace(low=out.low, high=out.high)
    if made.trusted and low <= out.high and high >= out.low:
        return made._replace(low=max(low, out.low), high=min(high, out.high))
    raise node.misfit((low, high), what)
