"""The rewrites of PrivQuant section 4.2 and our own, over the steps of requantizations.

Each names its identity, and what offers it says what that assumes and where it is described;
`pqjax.graph.rewrite` makes it where it does not cost more. All keep every value that remains, so
`reference` does not change.
"""

from dataclasses import replace
from typing import TypeGuard

from pqjax.graph import ir
from pqjax.graph.ir import Graph, Node, TensorType
from pqjax.graph.lower import lower_all
from pqjax.graph.overflow import may_overflow
from pqjax.graph.rewrite import Edit, Pass
from pqjax.protocols.saturate import saturate_unfit


def _alone(graph: Graph, name: str) -> bool:
    """Whether exactly one node reads a tensor, and the client does not."""
    return len(graph.readers[name]) == 1 and name != graph.output.name


def _carry_fits(graph: Graph, node: Node) -> bool:
    """Whether what a node adds up cannot wrap around: `validate` has shown it, but for loose tensors."""
    return not node.adds or not may_overflow(graph, node.sources[0])


def _needs_open_sign(graph: Graph, node: Node) -> bool:
    """Whether a reader adds to a tensor what may set its sign bit, and would trust a known sign."""
    return any(
        isinstance(reader, ir.Truncate) and not _carry_fits(graph, reader)
        for reader in graph.readers[node.name]
    )


def _signs(graph: Graph, node: Node) -> Edit | str:
    """A tensor whose values are never negative: a signed output of ReLU, of a clamp at 0 or alike.

    That is of any step that keeps such a sign: of a rounding or an average only where its sum cannot
    wrap around. PrivQuant, section 4.2.1.
    """
    out = node.out
    if not out.signed or out.nonnegative:
        return "its sign is known already, or it has none"
    positive = node.nonnegative(*graph.types(node)) and _carry_fits(graph, node)
    if not positive:
        return "nothing shows that it cannot be negative"
    if _needs_open_sign(graph, node):
        return "a reader rounds it, which may wrap around into the sign"
    known = replace(node, out=replace(out, nonnegative=True))
    return Edit({node.name: (known,)}, even=True)


def _trunc(graph: Graph, node: Node) -> Edit | str:
    """A truncation in full width. PrivQuant, proposition 4.1."""
    if not isinstance(node, ir.Truncate):
        return "it is not a truncation in full width"
    # In fewer bits there is none to spare: the value is read as it was before.
    signed = graph.source(node).signed
    known = signed and node.out.low == 0
    short = replace(node.out, bits=node.out.bits - node.shift, signed=signed, nonnegative=known)
    name = ir.fresh(f"{node.name.removesuffix('.shift')}.tr", graph)
    first = ir.TruncateReduce(name, node.sources, short, node.shift, node.rounding)
    return Edit({node.name: (first, ir.Extend(node.name, (name,), node.out))})


def _merge(graph: Graph, node: Node) -> Edit | str:
    """A step that reads an extension of signed values (of values with known sign, for max).

    A clamp's limits are cut to their range. PrivQuant, propositions 4.2 and 4.3.
    """
    if not node.sources or not isinstance(graph[node.sources[0]], ir.Extend):
        return "it does not read an extension"
    wide = graph[node.sources[0]]
    x, out = graph.source(wide), node.out
    direct = replace(node, sources=wide.sources)
    dropped = {wide.name: ()} if _alone(graph, wide.name) else {}
    if isinstance(node, ir.Extend):
        return Edit({**dropped, node.name: (direct,)})
    if isinstance(node, ir.Narrow):
        if out.bits <= x.bits:
            return Edit({**dropped, node.name: (direct,)})
        if out.low <= x.low and x.high <= out.high:
            return Edit({**dropped, node.name: (ir.Extend(node.name, wide.sources, out),)})
        return "its result is wider than what was extended, and cannot hold it"
    if isinstance(node, ir.Clamp):
        if x.signed and out.bits <= x.bits:
            whole = replace(x, nonnegative=False)
            low, high = max(node.low, whole.low), min(node.high, whole.high)
            direct = replace(direct, low=low, high=high)
            return Edit({**dropped, node.name: (direct,)})
        return "what was extended is unsigned, or narrower than the result"
    if isinstance(node, ir.Relu) or (isinstance(node, ir.MaxPool) and x.nonnegative):
        if not x.signed or not wide.out.signed:
            return "the extension changes how values are read"
        short = replace(out, bits=x.bits, nonnegative=True, scale=x.scale)
        name = ir.fresh(f"{node.name}.short", graph)
        first = replace(direct, name=name, out=short)
        return Edit({**dropped, node.name: (first, ir.Extend(node.name, (name,), out))})
    return f"an extension does not merge with {node.kind}"


def _hoist(graph: Graph, node: Node) -> Edit | str:
    """An extension of values that were only moved: padded, flattened, side by side. Ours."""
    if not isinstance(node, ir.Extend):
        return "it is not an extension"
    inner = graph[node.sources[0]]
    if not inner.moves or not _alone(graph, inner.name):
        return "it does not read values that were only moved, or others read them too"
    names = {inner.sources[0]: node.name}  # what a tensor is called when it is extended, once
    for i, source in enumerate(inner.sources):
        names.setdefault(source, ir.fresh(f"{node.name}.{i}-wide", graph))
    wide = [
        ir.Extend(name, (source,), replace(node.out, shape=graph[source].out.shape))
        for source, name in names.items()
    ]
    sources = tuple(names[source] for source in inner.sources)
    moved = replace(inner, sources=sources, out=node.out)
    even = wide[0].out.n == node.out.n
    return Edit({inner.name: (), node.name: (*wide, moved)}, {node.name: inner.name}, even=even)


def _share(graph: Graph, node: Node) -> Edit | str:
    """Two extensions of one tensor. Ours."""
    if not isinstance(node, ir.Extend):
        return "it is not an extension"
    for other in graph.readers[node.sources[0]]:
        if (
            other.name != node.name
            and isinstance(other, ir.Extend)
            and node.sources == other.sources
        ):
            one, two = node.out, other.out
            if one.bits > two.bits or one.signed != two.signed:
                continue
            if one.nonnegative != two.nonnegative or other.name == graph.output.name:
                continue
            kept = ir.Narrow(node.name, (other.name,), one)
            if graph.before(other.name, node.name):
                return Edit({node.name: (kept,)})
            return Edit({node.name: (other, kept), other.name: ()})
    return "no other extension of the same tensor is as wide"


def _cut(graph: Graph, node: Node) -> Edit | str:
    """A truncation of which only low bits are kept. Ours."""
    if not isinstance(node, ir.Narrow):
        return "it keeps all bits"
    inner = graph[node.sources[0]]
    if not isinstance(inner, ir.TruncateReduce) or not _alone(graph, inner.name):
        return "it does not read a truncation that only it reads"
    cut = replace(inner, name=node.name, out=node.out)
    return Edit({inner.name: (), node.name: (cut,)})


def _relu_after_shift(graph: Graph, node: Node) -> Edit | str:
    """A ReLU that only a truncation reads, whose rounding cannot wrap around.

    Rounding half up maps negatives to at most 0. See docs/design.md, "Graph passes".
    """
    if not isinstance(node, ir.TruncateReduce):
        return "it does not shift and drop bits"
    relu = graph[node.sources[0]]
    if not isinstance(relu, ir.Relu) or not _alone(graph, relu.name):
        return "it does not read a ReLU that only it reads"
    if node.out.bits < graph.source(node).bits - node.shift or not node.out.signed:
        return "bits are dropped that the sign may be in"
    if not _carry_fits(graph, node):
        return "what it adds to round may wrap around, before the ReLU and not after it"
    short = replace(node.out, nonnegative=False)
    name = ir.fresh(f"{relu.name}.shift", graph)
    first = replace(node, name=name, sources=relu.sources, out=short)
    positive = replace(node.out, nonnegative=True)
    last = ir.Relu(node.name, (name,), positive)
    return Edit({relu.name: (), node.name: (first, last)})


def _widens(node: Node) -> TypeGuard[ir.Linear]:
    """Whether a node is an accumulator that means the same in a wider ring: one that cannot overflow."""
    return isinstance(node, ir.Linear) and not node.overflows


def _widened(graph: Graph, node: ir.Linear, out: TensorType) -> dict[str, tuple[Node, ...]] | str:
    """An accumulator in a wider ring, and with it the operand that was extended to fill its ring."""
    wide = replace(node, out=out)
    operand = graph[node.sources[0]]
    if operand.out.bits < node.out.bits or operand.out.bits >= out.bits or own_input(graph, node):
        return {node.name: (wide,)}
    if not isinstance(operand, ir.Extend) or not _alone(graph, operand.name):
        return "its operand fills its ring, and would not fill a wider one"
    more = replace(operand, out=replace(operand.out, bits=out.bits))
    return {operand.name: (more,), node.name: (wide,)}


def _pool_before_relu(graph: Graph, node: Node) -> Edit | str:
    """A ReLU that only a max pool reads, of one bit more.

    In an accumulator that cannot overflow or by extending. See docs/design.md, "Graph passes".
    """
    if not isinstance(node, ir.MaxPool):
        return "it is not a max pool"
    relu = graph[node.sources[0]]
    if not isinstance(relu, ir.Relu) or not _alone(graph, relu.name):
        return "it does not read a ReLU that only it reads"
    bits, x = node.out.bits + 1, graph[relu.sources[0]]
    if bits > 64:
        return "there is no bit left for headroom"
    wide = replace(x.out, bits=bits)
    pooled = replace(wide, shape=node.out.shape)
    first, narrow = (ir.fresh(f"{node.name}.{suffix}", graph) for suffix in ("max", "narrow"))
    widened = "it is not an accumulator"
    if _widens(x) and _alone(graph, x.name):
        widened = _widened(graph, x, wide)
    if not isinstance(widened, str):  # headroom in the accumulator itself
        before = {**widened, relu.name: ()}
        source = x.name
    else:
        source = ir.fresh(f"{node.name}.headroom", graph)
        before = {relu.name: (ir.Extend(source, relu.sources, wide),)}
    pool = ir.MaxPool(first, (source,), pooled, node.window, node.stride, headroom=True)
    cut = ir.Narrow(narrow, (first,), replace(pooled, bits=node.out.bits))
    return Edit({**before, node.name: (pool, cut, ir.Relu(node.name, (narrow,), node.out))})


def _absorb_relu(graph: Graph, node: Node) -> Edit | str:
    """A ReLU that only a clamp at zero reads. Ours."""
    if not isinstance(node, ir.Clamp) or node.low != 0:
        return "it does not clamp at zero"
    relu = graph[node.sources[0]]
    if not isinstance(relu, ir.Relu) or not _alone(graph, relu.name):
        return "it does not read a ReLU that only it reads"
    return Edit({relu.name: (), node.name: (replace(node, sources=relu.sources),)})


def _align(graph: Graph, node: Node) -> Edit | str:
    """An accumulator that cannot overflow and only an addition reads, extended to its width.

    An operand that fills its ring is widened along. PrivQuant, section 4.1.2.
    """
    if not isinstance(node, ir.Extend) or not any(
        isinstance(reader, ir.Add) for reader in graph.readers[node.name]
    ):
        return "it does not bring an operand of an addition to its width"
    inner = graph[node.sources[0]]
    if not _widens(inner) or not _alone(graph, inner.name):
        return "what it extends is not an accumulator that cannot overflow and only it reads"
    if not node.out.signed or node.out.nonnegative:
        return "an accumulator is signed"
    widened = _widened(graph, inner, node.out)
    if isinstance(widened, str):
        return widened
    return Edit({**widened, node.name: ()}, {node.name: inner.name})


def _known_sign(graph: Graph, node: Node) -> Edit | str:
    """An unsigned tensor that only what multiplies and extensions read.

    Ours, after PrivQuant, section 4.2.1.
    """
    if node.out.signed or not isinstance(node, (ir.Clamp, ir.Extend)):
        return "it is signed already, or it does not choose a format that holds its values"
    source = graph.source(node)
    if node.out.bits + 1 > source.bits and isinstance(node, ir.Clamp):
        return "its source has no bit to spare"
    chain: dict[str, tuple[Node, ...]] = {}
    open_ends: list[Node] = [node]
    while open_ends:
        each = open_ends.pop()
        if each.name == graph.output.name:
            return "the client reads its format"
        if each.out.bits >= 64:
            return "there is no bit left for the sign"
        out = replace(each.out, bits=each.out.bits + 1, signed=True, nonnegative=True)
        chain[each.name] = (replace(each, out=out),)
        for reader in graph.readers[each.name]:
            if reader.moves and len(set(reader.sources)) == 1:
                open_ends.append(reader)
            elif not reader.multiplies and not (
                isinstance(reader, ir.Extend) and reader.out.bits > each.out.bits
            ):
                return f"{reader.name} ({reader.kind}) needs the unsigned format"
    return Edit(chain)


def _operand(graph: Graph, node: Node) -> Edit | str:
    if not isinstance(node, ir.Linear):
        return "it is not a linear layer"
    source = graph.source(node)
    if source.bits >= node.out.bits or own_input(graph, node):
        return "its operand fills its ring, or is the client's own input"
    name = ir.fresh(f"{node.name}.operand", graph)
    wide = replace(source, bits=node.out.bits, signed=True, nonnegative=source.low == 0)
    ready = replace(node, sources=(name,))
    return Edit({node.name: (ir.Extend(name, node.sources, wide), ready)})


def own_input(graph: Graph, node: Node) -> bool:
    """Whether a linear layer reads the client's input itself, which the client holds in the clear."""
    source = graph[node.sources[0]]
    while isinstance(source, ir.Flatten):
        source = graph[source.sources[0]]
    return isinstance(source, ir.Input)


def _all_operands(graph: Graph) -> Graph:
    """Of linear layers that take operands as wide as their accumulator.

    See docs/design.md, "Linear layers".
    """
    nodes: list[Node] = []
    # An edit adds before a node and changes no format that another edit looks at.
    for node in graph:
        edit = _operand(graph, node)
        nodes += [node] if isinstance(edit, str) else edit.replace[node.name]
    return Graph(tuple(nodes))


def _one_pass(graph: Graph, node: Node) -> Edit | str:
    """A clamp or ReLU, with the truncation before it that only it reads and the extension after it.

    Limits are 0 and 2^b - 1, or -2^(b-1) and 2^(b-1) - 1. Ours.
    """
    if isinstance(node, ir.Extend):
        return _extended_pass(graph, node)
    if not isinstance(node, (ir.Clamp, ir.Relu)):
        return "it is neither a clamp, nor a ReLU, nor an extension"
    inner, shift, rounding, dropped = graph[node.sources[0]], 0, "floor", {}
    if isinstance(inner, ir.TruncateReduce) and _alone(graph, inner.name):
        x = graph.source(inner)
        if inner.out.bits == x.bits - inner.shift and x.signed and inner.out.signed:
            shift, rounding, dropped = inner.shift, inner.rounding, {inner.name: ()}
    if isinstance(node, ir.Relu) and not shift:
        return "it does not read a truncation that only it reads and that keeps all bits"
    sources = inner.sources if shift else node.sources
    limits = (node.low, node.high) if isinstance(node, ir.Clamp) else (0, node.out.high)
    x = graph[sources[0]].out
    why = saturate_unfit(x.bits, x.signed, shift, *limits)
    if why is not None:
        return f"as one pass it {why}"
    made = ir.Saturate(node.name, sources, node.out, shift, *limits, rounding)
    return Edit({**dropped, node.name: (made,)})


def _extended_pass(graph: Graph, node: ir.Extend) -> Edit | str:
    inner = graph[node.sources[0]]
    if not isinstance(inner, ir.Saturate):
        return "it does not extend what one pass makes"
    if graph.output.name in (node.name, inner.name):
        return "the client reads one of both"
    if _alone(graph, inner.name):
        wide = replace(inner, out=node.out)
        return Edit({inner.name: (wide,), node.name: ()}, {node.name: inner.name})
    wide = replace(inner, name=node.name, out=node.out)
    kept = ir.Narrow(inner.name, (node.name,), inner.out)
    return Edit({inner.name: (wide, kept), node.name: ()}, even=True)


LOWER = Pass("lower-requantize", "Requantize = fit . clamp . Trunc", whole=lower_all)
SIGNS = Pass("propagate-signs", "a tensor whose values are never negative has MSB 0", _signs)
TRUNC = Pass("trunc-by-tr", "Trunc(l, s) = Ext(l - s -> l) . TR(l, s)", _trunc)
MERGE = Pass(
    "merge-extensions",
    "Ext . Ext = Ext;  f . Ext = Ext . f for ReLU and max;  clamp . Ext = clamp;  low bits . Ext = Ext",
    _merge,
)
HOIST = Pass("extend-before-padding", "Ext . pad = pad . Ext", _hoist)
SHARE = Pass("share-extensions", "Ext(l -> m) = low bits . Ext(l -> n) for m <= n", _share)
CUT = Pass("cut-before-shift", "low bits . TR(l, s) = TR(b + s, s) of the low b + s bits", _cut)
RELU_AFTER_SHIFT = Pass("relu-after-shift", "TR . ReLU = ReLU . TR", _relu_after_shift)
POOL_BEFORE_RELU = Pass("pool-before-relu", "max . ReLU = ReLU . max", _pool_before_relu)
ABSORB_RELU = Pass("absorb-relu", "clamp(0, h) . ReLU = clamp(0, h)", _absorb_relu)
ALIGN = Pass("align-residual", "Ext(W x) + r = W x in the wider ring + r", _align)
KNOWN_SIGN = Pass("known-sign", "unsigned b bits = signed b + 1 bits with MSB 0", _known_sign)
OPERANDS = Pass("extend-operands", "W x = W Ext(x) mod 2^L", whole=_all_operands)
ONE_PASS = Pass("one-pass", "Ext . clamp . TR = saturate", _one_pass)
