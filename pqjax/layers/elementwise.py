"""Steps of requantizations and ReLU: what n elements cost, and the protocol, of each kind."""

from pqjax.graph.ir import (
    Clamp,
    Extend,
    Relu,
    Saturate,
    TensorType,
    Truncate,
    TruncateReduce,
    Unguard,
)
from pqjax.graph.tensor import rounding_half
from pqjax.layers.rule import Elementwise, Setting, Share
from pqjax.protocols import clamp as clamping
from pqjax.protocols import nonlinear, resize
from pqjax.protocols.party import Party
from pqjax.protocols.saturate import saturate, saturate_cost
from pqjax.ring import Ring
from pqjax.wire.cost import Cost


def _relu_price(at: Setting, node: Relu, x: TensorType, n: int) -> Cost:
    if x.guard > node.out.guard:
        limits = x.guard, 0, x.high, Ring(node.out.bits)
        return saturate_cost(at.source, n, x.share_bits, *limits, at.forms)
    return nonlinear.relu_cost(at.source, n, x.share_bits, at.forms)


def _relu(party: Party, at: Setting, node: Relu, x: TensorType, share: Share) -> Share:
    if x.guard > node.out.guard:
        limits = x.guard, 0, x.high, Ring(node.out.bits)
        return saturate(party, share, x.share_bits, *limits, at.forms)
    return nonlinear.relu(party, share, x.share_bits, at.forms)


def _extend_price(at: Setting, node: Extend, x: TensorType, n: int) -> Cost:
    known = x.signed, x.nonnegative
    return resize.extend_cost(at.source, n, x.bits, node.out.bits, *known, at.forms)


def _extend(party: Party, at: Setting, node: Extend, x: TensorType, share: Share) -> Share:
    known = x.signed, x.nonnegative
    return resize.extend(party, share, x.bits, node.out.bits, *known, at.forms)


def _truncate_price(at: Setting, node: Truncate, x: TensorType, n: int) -> Cost:
    known = x.signed, x.nonnegative
    return resize.truncate_cost(at.source, n, x.bits, node.shift, *known, at.forms)


def _truncate(party: Party, at: Setting, node: Truncate, x: TensorType, share: Share) -> Share:
    share, known = _rounded(party, node, x, share), (x.signed, x.nonnegative)
    return resize.truncate(party, share, x.bits, node.shift, *known, at.forms)


def _reduce_price(at: Setting, node: TruncateReduce, x: TensorType, n: int) -> Cost:
    shift = node.shift + x.guard
    return resize.truncate_reduce_cost(at.source, n, x.share_bits, shift, node.out.bits, at.forms)


def _reduce(party: Party, at: Setting, node: TruncateReduce, x: TensorType, share: Share) -> Share:
    share = _rounded(party, node, x, share)
    shift = node.shift + x.guard
    return resize.truncate_reduce(party, share, x.share_bits, shift, node.out.bits, at.forms)


def _unguard_price(at: Setting, node: Unguard, x: TensorType, n: int) -> Cost:
    return resize.truncate_reduce_cost(at.source, n, x.share_bits, x.guard, node.out.bits, at.forms)


def _unguard(party: Party, at: Setting, node: Unguard, x: TensorType, share: Share) -> Share:
    return resize.truncate_reduce(party, share, x.share_bits, x.guard, node.out.bits, at.forms)


def _rounded(
    party: Party, node: Truncate | TruncateReduce | Saturate, x: TensorType, share: Share
) -> Share:
    """What rounds is public, so one party adds it to its share."""
    ring, half = Ring(x.share_bits), rounding_half(node.shift, node.rounding) << x.guard
    return share if party.rank else ring.add(share, ring.reduce(half))


def _clamp_price(at: Setting, node: Clamp, x: TensorType, n: int) -> Cost:
    out = Ring(node.out.bits)
    return clamping.clamp_cost(at.source, n, x.bits, node.low, out, x.nonnegative, at.forms)


def _clamp(party: Party, at: Setting, node: Clamp, x: TensorType, share: Share) -> Share:
    out, limits = Ring(node.out.bits), (node.low, node.high)
    return clamping.clamp(party, share, x.bits, *limits, out, x.nonnegative, at.forms)


def _saturate_price(at: Setting, node: Saturate, x: TensorType, n: int) -> Cost:
    cut, limits, out = node.shift + x.guard, (node.low, node.high), Ring(node.out.bits)
    return saturate_cost(at.source, n, x.share_bits, cut, *limits, out, at.forms)


def _saturate(party: Party, at: Setting, node: Saturate, x: TensorType, share: Share) -> Share:
    share, out = _rounded(party, node, x, share), Ring(node.out.bits)
    cut, limits = node.shift + x.guard, (node.low, node.high)
    return saturate(party, share, x.share_bits, cut, *limits, out, at.forms)


RELU = Elementwise(_relu_price, _relu)
EXTEND = Elementwise(_extend_price, _extend)
TRUNCATE = Elementwise(_truncate_price, _truncate)
TRUNCATE_REDUCE = Elementwise(_reduce_price, _reduce)
UNGUARD = Elementwise(_unguard_price, _unguard)
CLAMP = Elementwise(_clamp_price, _clamp)
SATURATE = Elementwise(_saturate_price, _saturate)
