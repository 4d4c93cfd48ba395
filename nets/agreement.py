"""`python -m nets.agreement`: does the integer reference decide as the fake-quantized network did?

A stored network is put back into `QuantNet`: its integer weights over their scales are weights that
quantize to themselves. Both then see the same images; where they differ, the first tensor that does is
named.
"""

from __future__ import annotations

import argparse
import dataclasses
import pathlib
import sys

import jax.numpy as jnp
import numpy as np
from flax import nnx

from nets.architecture import ARCHITECTURES
from nets.data import integer_input, load_cifar
from nets.export import export
from nets.malloc import keep_freed_memory
from nets.ops import Architecture
from nets.quantized import QuantNet, Widths
from nets.steps import Fit
from pqjax.errors import CheckpointError, GraphError, PqjaxError
from pqjax.graph import Conv, Dense, Graph, Requantize, Weights, load_model, reference

CHECKPOINTS = pathlib.Path(__file__).parent / "checkpoints"
WANTED = 0.999  # share of images on which both must decide alike
_BATCH = 250


@dataclasses.dataclass(frozen=True)
class Agreement:
    """How often both decide alike.

    Attributes:
      images: that both saw.
      decisions: of these, on which the largest logit is the same.
      exact: of these, on which all logits are.
    """

    images: int
    decisions: int
    exact: int


def restored(
    architecture: Architecture, graph: Graph, weights: Weights, widths: Widths
) -> QuantNet:
    """The fake-quantized network of a stored one.

    Raises:
      CheckpointError: it is of another architecture, or its widths are others.
    """
    net = QuantNet(architecture, widths)
    fits = {step.layer: step.name for step in net.steps if isinstance(step, Fit)}
    for layer in net.layers:
        name = layer.op.name
        node = graph[name] if name in graph else None
        if not isinstance(node, (Conv, Dense)) or node.weight_bits != layer.bits:
            raise CheckpointError(f"{architecture.name}'s {name} of {layer.bits} bits is not there")
        scale = node.weight_scale
        layer.kernel[...] = jnp.asarray(weights[f"{name}/weight"] * 2.0**-scale, jnp.float32)
        layer.bias[...] = jnp.asarray(weights[f"{name}/bias"] * 2.0**-node.out.scale, jnp.float32)
        layer.weight_scale[...] = jnp.float32(scale)
        if name in fits:
            made = graph[fits[name]]
            assert isinstance(made, Requantize)
            layer.out_scale[...] = jnp.float32(made.out.scale)
    again, _ = export(net)
    if again != graph:
        odd = next(a.name for a, b in zip(graph, again, strict=False) if a != b)
        raise CheckpointError(
            f"{architecture.name} as exported again differs from the graph at {odd}"
        )
    return net


def agreement(net: QuantNet, graph: Graph, weights: Weights, images: np.ndarray) -> Agreement:
    """Runs both on uint8 images."""
    run = nnx.jit(lambda net, x: net.accumulate(x)[0])
    decisions = exact = 0
    for i in range(0, len(images), _BATCH):
        x = integer_input(images[i : i + _BATCH])
        one, two = np.asarray(run(net, x)), np.asarray(reference(graph, weights, x))
        decisions += int((one.argmax(1) == two.argmax(1)).sum())
        exact += int((one == two).all(1).sum())
    return Agreement(len(images), decisions, exact)


def check(path: pathlib.Path, images: int) -> Agreement:
    """One stored network on so many test images.

    Raises:
      CheckpointError: it was not trained here. GraphError: fewer than `WANTED` decisions are alike.
    """
    graph, weights, meta = load_model(path)
    try:
        config = meta["config"]
        architecture = ARCHITECTURES[config["net"]]
        given = config["widths"]
        widths = Widths(**{**given, "weights": tuple(given["weights"])})
    except (KeyError, TypeError) as error:
        raise CheckpointError(f"{path.name} does not say how it was trained: {error!r}") from error
    pictures, _ = load_cifar(architecture.data, "test")
    found = agreement(
        restored(architecture, graph, weights, widths), graph, weights, pictures[:images]
    )
    if found.decisions < WANTED * found.images:
        raise GraphError(
            f"{path.name}: {found.decisions} of {found.images} decisions are the integer reference's, "
            f"at least {WANTED:.1%} expected"
        )
    return found


def main(argv: list[str] | None = None) -> int:
    """Checks networks; a typed error becomes one line and exit code 1."""
    built = argparse.ArgumentParser(prog="python -m nets.agreement", description=__doc__)
    built.add_argument("networks", nargs="*", type=pathlib.Path, help="all committed ones if none")
    built.add_argument("--images", type=int, default=10_000, help="of the test set")
    args = built.parse_args(argv)
    paths = args.networks or sorted(p for p in CHECKPOINTS.glob("*.npz") if "float" not in p.name)
    try:
        for path in paths:
            found = check(path, args.images)
            print(
                f"{path.name}: {found.decisions} of {found.images} decisions alike, "
                f"{found.exact} with all logits equal"
            )
    except PqjaxError as error:
        print(f"nets.agreement: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    keep_freed_memory()
    sys.exit(main())
