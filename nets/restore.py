"""A trainable network from an exported one: the way back of `nets.export`.

Integers over their scales are the real weights that quantize to exactly these integers, so the network
gives the very answers of the integer graph, and training may go on from it.
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from nets.architecture import Architecture
from nets.export import part_name
from nets.quantized import QuantNet, Widths
from pqjax.errors import CheckpointError
from pqjax.graph import Conv, Dense, Graph, Weights


def restored(
    graph: Graph, weights: Weights, architecture: Architecture, widths: Widths
) -> QuantNet:
    """The network that `export` made the graph of.

    Args:
      graph: of the architecture.
      weights: its integers.
      architecture: whose layers the graph's linear nodes are named after.
      widths: that it was trained in.

    Raises:
      CheckpointError: a layer is not in the graph.
    """
    net = QuantNet(architecture, widths)
    for layer in net.layers:
        name = layer.layer.name
        if name not in graph:
            raise CheckpointError(
                f"the graph has no layer {name}: it is not of {architecture.name}"
            )
        node = graph[name]
        assert isinstance(node, (Conv, Dense))
        kernel = np.asarray(weights[f"{name}/weight"], np.float64) * 2.0**-node.weight_scale
        bias = np.asarray(weights[f"{name}/bias"], np.float64) * 2.0**-node.out.scale
        layer.kernel[...] = jnp.asarray(kernel, jnp.float32)
        layer.bias[...] = jnp.asarray(bias, jnp.float32)
        layer.weight_scale[...] = jnp.float32(node.weight_scale)
        out = [part_name(name, part) for part in ("res", "act")]
        found = [graph[part].out.scale for part in out if part in graph]
        if found:
            layer.out_scale[...] = jnp.float32(found[0])
    return net
