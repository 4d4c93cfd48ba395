"""What each layer costs, exactly, by phase; the mirror image of `pqjax.engine.execute`."""

from __future__ import annotations

import dataclasses

from pqjax.errors import PlanError
from pqjax.graph.ir import (
    Add,
    ArgMax,
    AvgPool,
    Conv,
    Dense,
    Flatten,
    Graph,
    Input,
    MaxPool,
    Node,
    Relu,
    Requantize,
    TensorType,
)
from pqjax.planner.presets import Preset
from pqjax.protocols.linear_ot import VARIANTS, Product, multiply_cost, product_bits_cost
from pqjax.protocols.nonlinear import arg_max_cost, max_tree_cost, relu_cost
from pqjax.protocols.requantize import requantize_cost
from pqjax.protocols.resize import extend_cost
from pqjax.wire.cost import NOTHING, Cost, message


@dataclasses.dataclass(frozen=True)
class StepCost:
    """One layer's cost: work before the input is known, and after."""

    offline: Cost = NOTHING
    online: Cost = NOTHING

    @property
    def bits(self) -> int:
        """Payload bits of both phases; stored random OTs are counted where they are made."""
        return self.offline.bits + self.online.bits


def product_of(graph: Graph, node: Conv | Dense, variant: str) -> Product:
    """A linear layer as a matrix product."""
    source = graph.source(node)
    if isinstance(node, Conv):
        if node.groups != 1:
            raise PlanError(
                f"{node.name}: convolution in {node.groups} groups has no OT variant; supported: "
                "groups = 1"
            )
        d2 = node.kernel[0] * node.kernel[1] * source.shape[2]
        d3 = node.out.shape[0] * node.out.shape[1]
    else:
        d2, d3 = source.shape[0], 1
    return Product(
        node.out.shape[-1], d2, d3, node.weight_bits, source.bits, source.signed,
        source.nonnegative, node.out.bits, variant,
    )  # fmt: skip


def own_input(graph: Graph, node: Node) -> bool:
    """Whether a linear layer reads the client's input itself, which the client holds in the clear."""
    source = graph[node.sources[0]]
    return isinstance(source, Input) or (isinstance(source, Flatten) and own_input(graph, source))


def linear_cost(graph: Graph, node: Conv | Dense, preset: Preset, variant: str) -> StepCost:
    """A linear layer in one variant."""
    product = product_of(graph, node, variant)
    if VARIANTS[variant][0] != "full":
        return StepCost(online=multiply_cost(preset.scheme, product, preset.forms))
    source = graph.source(node)
    online = NOTHING
    if not own_input(graph, node):
        online += extend_cost(
            preset.scheme, source.n, source.bits, node.out.bits, source.signed, source.nonnegative,
            preset.forms,
        )  # fmt: skip
    online += message(1, source.n * node.out.bits)
    return StepCost(product_bits_cost(preset.scheme, product), online)


def signed_view(source: TensorType) -> TensorType:
    """The signed format in which values are compared: one bit wider if they are unsigned."""
    if source.signed:
        return source
    return dataclasses.replace(source, bits=source.bits + 1, signed=True, nonnegative=True)


def node_cost(graph: Graph, node: Node, preset: Preset, variant: str | None = None) -> StepCost:
    """What a node sends; `variant` for linear layers."""
    scheme, forms = preset.scheme, preset.forms
    if isinstance(node, Input):
        return StepCost(online=NOTHING if preset.ahead else message(1, node.out.n * node.out.bits))
    source = graph.source(node)
    if isinstance(node, (Conv, Dense)):
        assert variant is not None
        return linear_cost(graph, node, preset, variant)
    if isinstance(node, Relu):
        return StepCost(online=relu_cost(scheme, source.n, source.bits, forms))
    if isinstance(node, Requantize):
        cost = requantize_cost(scheme, source.n, source, node.out, node.rule, forms)
        return StepCost(online=cost)
    if isinstance(node, (MaxPool, ArgMax)):
        seen = signed_view(source)
        cost = extend_cost(scheme, source.n, source.bits, seen.bits, source.signed, forms=forms)
        if isinstance(node, MaxPool):
            k = node.window[0] * node.window[1]
            cost += max_tree_cost(scheme, k, node.out.n, seen.bits, seen.nonnegative, forms)
        else:
            cost += arg_max_cost(
                scheme, source.n, seen.bits, node.out.bits, seen.nonnegative, forms
            )
        return StepCost(online=cost)
    assert isinstance(node, (Add, AvgPool, Flatten))
    return StepCost()
