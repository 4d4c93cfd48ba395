"""One layer of a network as a network of its own, run between two parties."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping

import numpy as np
from jaxtyping import Int, Integer

from pqjax import plan, reference, run_local
from pqjax.errors import PqjaxError
from pqjax.graph import Graph, Input, Requantize, reach, width_for
from pqjax.graph.ir import Linear, TensorType
from pqjax.planner import Preset

_ROOM_BITS = 2  # by which what comes in is finer than what the layer reads
_OUT_BITS = 8
_DEADLINE_S = 3600.0  # of one wait


def layer_graph(
    graph: Graph, weights: Mapping[str, Int[np.ndarray, "*s"]], name: str
) -> tuple[Graph, dict[str, Int[np.ndarray, "*s"]]]:
    """A linear layer between two requantizations, so that it reads shares and its sums are cut.

    One that reads the network's input reads it here, too. Where the network keeps what it reads in less
    than its format's range, its sums may take more bits here.
    """
    layer, source = graph[name], graph[graph[name].sources[0]]
    assert isinstance(layer, Linear)
    before: tuple = (Input(source.name, (), source.out),)
    if not isinstance(source, Input):
        fine = source.out.moved(_ROOM_BITS, _ROOM_BITS)
        read = Requantize(source.name, ("x",), source.out, rounding="floor")
        before = (Input("x", (), fine), read)
    reached = reach(layer, (source.out.low, source.out.high), weights)
    acc = dataclasses.replace(layer.out, bits=max(layer.out.bits, width_for(*reached)))
    layer = dataclasses.replace(layer, sources=(source.name,), out=acc)
    scale = acc.scale - max(0, acc.bits - _OUT_BITS)
    after = Requantize("y", (name,), TensorType(acc.shape, _OUT_BITS, scale), rounding="floor")
    kept = {key: value for key, value in weights.items() if key.split("/")[0] == name}
    return Graph((*before, layer, after)), kept


def input_for(graph: Graph, seed: int) -> Integer[np.ndarray, "..."]:
    """Random integers of the input's format."""
    out = graph.input.out
    return np.random.default_rng(seed).integers(out.low, out.high + 1, out.shape)


def run_checked(
    graph: Graph,
    weights: Mapping[str, Int[np.ndarray, "*s"]],
    x: Integer[np.ndarray, "..."],
    preset: Preset,
    times: int = 1,
) -> dict:
    """One inference between two threads: bits as metered, seconds, and how many answers are off.

    It is run so many `times`, and told of the last: the first one compiles kernels.

    Raises:
      PqjaxError: bits or flows of a layer are not as predicted, or an exact answer is not the
        reference's.
    """
    made = plan(graph, preset)
    for _ in range(times):
        begin = time.perf_counter()
        got = run_local(made, weights, x, _DEADLINE_S)
        seconds = time.perf_counter() - begin
    found = made.differences(got.trace, 1)
    if found:
        raise PqjaxError(f"{preset.name}: not as predicted: {found[0]}")
    off = int((got.output != reference(graph, weights, x)).sum())
    if off and made.preset.exact:
        raise PqjaxError(f"{preset.name}: an answer differs from the integer reference")
    by_layer: dict[str, int] = {}
    for entry in got.trace.entries:
        bits = entry.sent_bits + entry.received_bits
        by_layer[entry.layer] = by_layer.get(entry.layer, 0) + bits
    return {
        "bits": sum(by_layer.values()),
        "predicted_bits": made.cost().bits,
        "flows": (made.cost("offline") + made.cost("online")).flows,
        "seconds": seconds,
        "off": off,
        "outputs": got.output.size,
        "by_layer": by_layer,
    }
