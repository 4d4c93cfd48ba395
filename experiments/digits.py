"""`python -m experiments.digits`: from a flax model of your own to a served quantized network.

The data are scikit-learn's handwritten digits (8 x 8, ten classes). The model is plain flax, as anyone
would write it; everything after its training is what this package does with it.
"""

from __future__ import annotations

import argparse
import dataclasses
import pathlib
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from nets.data import INPUT_SCALE_BITS, PIXEL_ZERO, integer_input
from nets.export import export, top1
from nets.fold import Folded, equalize
from nets.importing.flax import from_flax
from nets.importing.imported import Pixels
from nets.loop import Images
from nets.ops import Architecture
from nets.qat import QatRecipe, student_of, student_task
from nets.quantized import QuantNet, Widths, calibrate
from nets.sensitivity import Sampling, measure
from pqjax.errors import PqjaxError
from pqjax.graph import Graph, save_model
from pqjax.planner import plan
from pqjax.search import Limit, Space, search


# 1. A flax model of one's own.
class Digits(nnx.Module):
    """Three convolutions and a dense layer: real inputs in [-0.5, 0.5), NHWC."""

    def __init__(self, rngs: nnx.Rngs):
        self.conv1 = nnx.Conv(3, 16, (3, 3), rngs=rngs)
        self.conv2 = nnx.Conv(16, 32, (3, 3), rngs=rngs)
        self.conv3 = nnx.Conv(32, 32, (3, 3), rngs=rngs)
        self.fc = nnx.Linear(2 * 2 * 32, 10, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Logits (n, 10)."""
        x = nnx.relu(self.conv1(x))
        x = nnx.avg_pool(nnx.relu(self.conv2(x)), (2, 2), (2, 2))
        x = nnx.avg_pool(nnx.relu(self.conv3(x)), (2, 2), (2, 2))
        return self.fc(x.reshape(x.shape[0], -1))


def real_input(x: np.ndarray | jax.Array) -> jax.Array:
    """What an int8 image means."""
    return jnp.asarray(x, jnp.float32) * 2.0**-INPUT_SCALE_BITS


def load_digits() -> tuple[Images, Images]:
    """1,347 training and 450 test images as uint8 (n, 8, 8, 3), three equal channels."""
    from sklearn.datasets import load_digits as load

    pixels, labels = load(return_X_y=True)
    images = np.minimum(pixels.reshape(-1, 8, 8, 1) * 16, 255).astype(np.uint8).repeat(3, axis=3)
    order = np.random.default_rng(0).permutation(len(labels))
    test, train = order[:450], order[450:]
    return Images(images[train], labels[train]), Images(images[test], labels[test])


def batches(train: Images, steps: int, seed: int, size: int = 64):
    """Random batches: int8 images and labels."""
    rng = np.random.default_rng(seed)
    for _ in range(steps):
        picked = rng.integers(0, len(train.labels), size)
        yield integer_input(train.images[picked]), train.labels[picked].astype(np.int32)


# 2. Float training: one's own, whatever it is.
def trained(train: Images, steps: int, seed: int) -> Digits:
    """The model after so many steps of Adam."""
    model = Digits(nnx.Rngs(seed))
    optimizer = nnx.Optimizer(model, optax.adam(2e-3), wrt=nnx.Param)

    @nnx.jit
    def step(model, optimizer, x, y):
        def loss_of(model):
            answer = model(real_input(x))
            return optax.softmax_cross_entropy_with_integer_labels(answer, y).mean()

        optimizer.update(model, nnx.grad(loss_of)(model))

    for x, y in batches(train, steps, seed):
        step(model, optimizer, x, y)
    return model


# 3. What it computes, operation by operation, and its weights for pictures as integers.
def imported(model: Digits) -> tuple[Architecture, Folded]:
    """Its architecture, and kernel and bias of every layer, which reads `integer_input`."""
    pixels = Pixels((PIXEL_ZERO,) * 3, (2.0**INPUT_SCALE_BITS,) * 3)
    net = from_flax(model, np.zeros((1, 8, 8, 3)), pixels=pixels)
    return net.architecture, equalize(net.of_integers(), net.architecture)


# 4. Widths: start from 8 bits, measure what fewer would cost, search under a limit.
def searched(
    net: Architecture, folded: Folded, train: Images, limit: Limit, protocol: str
) -> Widths:
    """The widths of least expected loss whose plan keeps to the limit."""
    start = QuantNet(net, Widths((8,) * 4, activations=6))
    calibrate(start, folded, jnp.asarray(integer_input(train.images[:256])))
    graph, _ = export(start)
    found = measure(net, folded, train, Sampling(tolerance=0.2, most=16), calibration=256)
    best = search(graph, found, limit, protocol, Space(activations=(3, 4, 5, 6)))
    return Widths.parse(str(best.widths), net)


# 5. Quantization-aware training at those widths, distilled from the float model; 6. the integer graph.
def quantized(
    model: Digits, net: Architecture, folded: Folded, widths: Widths, train: Images, steps: int
) -> tuple[Graph, dict[str, np.ndarray]]:
    """The trained network in those widths, as a graph with its weights."""
    graphdef, state = nnx.split(model)

    def answer(x: jax.Array) -> jax.Array:
        return nnx.merge(graphdef, state, copy=True)(real_input(x))

    images = integer_input(train.images[:256])
    recipe = QatRecipe(peak_rate=0.01)
    found, step, _ = student_task(net, folded, answer, widths, recipe, steps, images)
    for x, y in batches(train, steps, seed=1):
        found, _ = step(found, jnp.asarray(x), jax.nn.one_hot(y, net.classes))
    return export(student_of(net, widths, found["params"]))


def main(arguments: list[str] | None = None) -> int:
    """All of it; writes the network that `pqjax serve` takes."""
    options = argparse.ArgumentParser(prog="python -m experiments.digits", description=__doc__)
    options.add_argument("--out", type=pathlib.Path, default=pathlib.Path("digits.npz"))
    options.add_argument("--megabytes", type=float, default=6.5, help="communication at most")
    options.add_argument("--protocol", default="privquant")
    options.add_argument("--steps", type=int, default=300, help="of each training")
    args = options.parse_args(arguments)
    try:
        train, test = load_digits()
        model = trained(train, args.steps, seed=0)
        real = np.asarray(model(real_input(integer_input(test.images)))).argmax(1)
        net, folded = imported(model)
        widths = searched(net, folded, train, Limit(args.megabytes * 8e6), args.protocol)
        graph, weights = quantized(model, net, folded, widths, train, args.steps)
        meta = {"widths": {**dataclasses.asdict(widths), "weights": list(widths.weights)}}
        save_model(args.out, graph, weights, meta)
    except PqjaxError as error:
        print(f"exp-digits: {error}", file=sys.stderr)
        return 1
    cost = plan(graph, args.protocol).cost().bits / 8e6
    print(f"float {(real == test.labels).mean():.4f}")
    print(f"widths {','.join(map(str, widths.weights))}/A{widths.activations}")
    print(f"quantized {top1(graph, weights, test.images, test.labels):.4f}, {cost:.3f} MB")
    print(f"written to {args.out}: pqjax serve {args.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
