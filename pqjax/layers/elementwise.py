"""Steps of requantizations and ReLU: what n elements cost, and the protocol, of each kind."""

from pqjax.graph.ir import Clamp, Truncate, TruncateReduce
from pqjax.graph.tensor import rounding_half
from pqjax.layers.rule import Elementwise, Setting, Share, Task
from pqjax.protocols import clamp as clamping
from pqjax.protocols import nonlinear, resize
from pqjax.protocols.party import Party
from pqjax.ring import Ring
from pqjax.wire.cost import Cost


def _relu_price(at: Setting, task: Task, n: int) -> Cost:
    return nonlinear.relu_cost(at.source, n, task.sources[0].bits, at.forms)


def _relu(party: Party, at: Setting, task: Task, x: Share) -> Share:
    return nonlinear.relu(party, x, task.sources[0].bits, at.forms)


def _extend_price(at: Setting, task: Task, n: int) -> Cost:
    x, bits = task.sources[0], task.node.out.bits
    return resize.extend_cost(at.source, n, x.bits, bits, x.signed, x.nonnegative, at.forms)


def _extend(party: Party, at: Setting, task: Task, x: Share) -> Share:
    source, bits = task.sources[0], task.node.out.bits
    known = source.signed, source.nonnegative
    return resize.extend(party, x, source.bits, bits, *known, at.forms)


def _truncate_price(at: Setting, task: Task, n: int) -> Cost:
    node, x = task.node, task.sources[0]
    assert isinstance(node, Truncate)
    known = x.signed, x.nonnegative
    return resize.truncate_cost(at.source, n, x.bits, node.shift, *known, at.forms)


def _truncate(party: Party, at: Setting, task: Task, x: Share) -> Share:
    node, source = task.node, task.sources[0]
    assert isinstance(node, Truncate)
    x, known = _rounded(party, task, x), (source.signed, source.nonnegative)
    return resize.truncate(party, x, source.bits, node.shift, *known, at.forms)


def _reduce_price(at: Setting, task: Task, n: int) -> Cost:
    node = task.node
    assert isinstance(node, TruncateReduce)
    return resize.truncate_reduce_cost(
        at.source, n, task.sources[0].bits, node.shift, node.out.bits
    )


def _reduce(party: Party, at: Setting, task: Task, x: Share) -> Share:
    node = task.node
    assert isinstance(node, TruncateReduce)
    x = _rounded(party, task, x)
    return resize.truncate_reduce(party, x, task.sources[0].bits, node.shift, node.out.bits)


def _rounded(party: Party, task: Task, x: Share) -> Share:
    """What rounds is public, so one party adds it to its share."""
    node, ring = task.node, Ring(task.sources[0].bits)
    assert isinstance(node, (Truncate, TruncateReduce))
    return x if party.rank else ring.add(x, ring.reduce(rounding_half(node.shift, node.rounding)))


def _clamp_price(at: Setting, task: Task, n: int) -> Cost:
    node, x = task.node, task.sources[0]
    assert isinstance(node, Clamp)
    out = Ring(node.out.bits)
    return clamping.clamp_cost(at.source, n, x.bits, node.low, out, x.nonnegative, at.forms)


def _clamp(party: Party, at: Setting, task: Task, x: Share) -> Share:
    node, source = task.node, task.sources[0]
    assert isinstance(node, Clamp)
    out, limits = Ring(node.out.bits), (node.low, node.high)
    return clamping.clamp(party, x, source.bits, *limits, out, source.nonnegative, at.forms)


RELU = Elementwise(_relu_price, _relu)
EXTEND = Elementwise(_extend_price, _extend)
TRUNCATE = Elementwise(_truncate_price, _truncate)
TRUNCATE_REDUCE = Elementwise(_reduce_price, _reduce)
CLAMP = Elementwise(_clamp_price, _clamp)
