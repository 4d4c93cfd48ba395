"""Random small networks of every kind that can be trained: all forms compute one function.

Float networks against a plain twin; quantized networks against their exported graphs, bit for bit.
"""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
import slow_nets
from flax import nnx
from students import exported

from nets import ops
from nets.architecture import Draft
from nets.data import integer_input
from nets.export import export
from nets.floating import FloatNet
from nets.fold import equalize, fold_batch_norm
from nets.folded import FoldedNet
from nets.ops import INPUT, Architecture
from nets.ptq import Recipe, quantized
from nets.qat import student_of
from nets.quantized import QuantNet, Widths, calibrate
from nets.steps import Average
from pqjax.errors import GraphError

SEEDS = [*range(6), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(6, 24))]


class Dice:
    """A network that grows by chance; keeps the shape of what was made last."""

    def __init__(self, seed):
        self.rng = np.random.default_rng(seed)
        self.draft, self.count = Draft(), 0
        self.image = (
            *(int(n) for n in self.rng.integers(7, 12, 2)),
            int(self.rng.choice([1, 3, 4])),
        )
        self.shapes = {INPUT: self.image}

    def pick(self, *choices):
        return choices[self.rng.integers(len(choices))]

    def put(self, kind, sources, *fields, **named):
        name = f"{kind.__name__.lower()}{len(self.draft.ops)}"
        op = kind(name, tuple(sources), *fields, **named)
        self.shapes[name] = op.shape(*(self.shapes[source] for source in sources))
        return self.draft.add(op)

    def conv(self, at, channels=None, same=False, stride=(1, 1), groups=None):
        """A convolution of any window and margins, with a norm or a bias; or one that keeps sides."""
        high, wide, c = self.shapes[at]
        groups = groups or self.pick(1, 1, c)
        channels = channels or groups * self.pick(1, 2)
        window = (
            self.pick((1, 1), (3, 3), (1, 3), (5, 3)) if same else self.pick((2, 2), (3, 4), (4, 2))
        )
        padding = tuple(
            (n // 2, n // 2) if same else (int(a), int(n - 1 - a))
            for n, a in zip(window, (self.pick(0, 1), 1), strict=True)
        )
        at = self.put(ops.Conv, [at], channels, window, stride, padding, groups)
        return self.put(ops.Norm, [at]) if self.pick(True, True, False) else at

    def relu(self, at):
        kind = self.pick("relu", "relu", "cap", "linear")
        return at if kind == "linear" else self.put(ops.Relu, [at], 0.75 if kind == "cap" else None)

    def pool(self, at):
        """Averages of 2^k values and others, the largest with and without zeros around; rectangles."""
        kind = self.pick("even", "odd", "largest", "padded")
        if kind == "even":
            return self.put(ops.AvgPool, [at], *[self.pick((2, 2), (1, 2), (2, 1))] * 2)
        if kind == "odd":
            return self.put(ops.AvgPool, [at], self.pick((3, 3), (2, 3)), (1, 2))
        if kind == "padded":
            at = self.put(ops.Pad, [at], ((1, 1), (0, 1), (0, 0)))
        return self.put(ops.MaxPool, [at], self.pick((2, 2), (3, 2)), self.pick((1, 1), (2, 1)))

    def sum(self, at):
        """A residual block: identity, projection or option A; added before the ReLU or behind it."""
        c, kind = self.shapes[at][2], self.pick("identity", "projection", "padding", "behind")
        if kind in ("identity", "behind"):
            y = self.conv(self.relu(self.conv(at, same=True)), c, same=True, groups=1)
            y = self.put(ops.Relu, [y]) if kind == "behind" else y
            return self.relu(self.put(ops.Add, self.pick([y, at], [at, y])))
        if kind == "projection":
            short = self.conv(at, 2 * c, same=True, stride=(2, 2), groups=1)
        else:
            short = self.put(ops.Subsample, [at], (2, 2))
            short = self.put(ops.Pad, [short], ((0, 0), (0, 0), (c // 2, c - c // 2)))
        y = self.conv(at, 2 * c, same=True, stride=(2, 2), groups=1)
        return self.relu(self.put(ops.Add, [short, y]))


def random_architecture(seed):
    dice = Dice(seed)
    at = dice.relu(dice.conv(INPUT, channels=4, groups=1))
    for _ in range(dice.pick(1, 2, 3)):
        step = dice.pick(dice.sum, dice.sum, dice.pool, lambda at: dice.relu(dice.conv(at)))
        if min(dice.shapes[at][:2]) < 3:
            break
        at = step(at)
        if step == dice.pool and dice.pick(True, False):
            at = dice.relu(dice.conv(at, 4, groups=1))
    if dice.pick(True, False):
        at = dice.put(ops.GlobalAverage, [at])
    at = dice.put(ops.Flatten, [at])
    if dice.pick(True, False):
        at = dice.put(ops.Relu, [dice.put(ops.Dense, [at], 12)])
    dice.put(ops.Dense, [at], 5)
    signed = bool(dice.pick(True, False))
    return Architecture(f"dice{seed}", "none", dice.image, 5, tuple(dice.draft.ops), signed)


def float_network(seed, pictures=4):
    """A random one with norms fitted to random pictures, and these as its inputs."""
    architecture = random_architecture(seed)
    pixels = np.random.default_rng(seed).integers(0, 256, (pictures, *architecture.image))
    x = integer_input(pixels.astype(np.uint8))
    net = FloatNet(architecture, nnx.Rngs(seed))
    for held in net.weighted:
        if held.norm is not None:
            held.norm.momentum = 0.0
        else:
            assert held.bias is not None
            held.bias[...] = 0.1 * np.random.default_rng(1).normal(size=held.bias.shape)
    nnx.jit(lambda net, x: net(x))(net, x)
    net.eval()
    return net, x


def check_near(student, x, wanted):
    """Eight bits answer what floats do, but where values that cancel are averaged to nearly nothing."""
    if not any(isinstance(step, Average) and step.fit.negative for step in student.steps):
        error = np.square(np.asarray(student(x)) - wanted).mean()
        assert error <= 0.1**2 * np.square(wanted).mean()


@pytest.mark.parametrize("seed", SEEDS)
def test_float_networks_are_their_plain_twin(seed):
    net, x = float_network(seed)
    folded = fold_batch_norm(net)

    wanted = slow_nets.logits(net.architecture, folded, x)

    scale = np.abs(wanted).max()
    found = FoldedNet.of(net.architecture, folded).logits(x)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5 * scale)
    equalized = FoldedNet.of(net.architecture, equalize(folded, net.architecture)).logits(x)
    np.testing.assert_allclose(equalized, wanted, rtol=1e-3, atol=1e-4 * scale)
    np.testing.assert_allclose(nnx.jit(lambda net, x: net(x))(net, x), wanted, atol=0.1 * scale)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("text", ["W8A8", "W4A4R5"])
def test_quantized_networks_are_their_graphs(seed, text):
    net, x = float_network(seed)
    architecture, folded = net.architecture, fold_batch_norm(net)
    rule = "wrap" if not architecture.signed and seed % 2 else "saturate"
    student = QuantNet(architecture, Widths.parse(text, architecture, rule))

    try:
        calibrate(student, equalize(folded, architecture), jnp.asarray(x))
    except GraphError as error:
        assert "cannot be aligned" in str(error) and text != "W8A8"
        return

    graph, weights, _ = exported(student, x)
    if text == "W8A8":
        check_near(student, x, FoldedNet.of(architecture, folded).logits(x))
    again = student_of(architecture, student.widths, nnx.to_pure_dict(nnx.state(student)))
    same, values = export(again)
    assert same == graph and all(np.array_equal(values[name], weights[name]) for name in weights)


@pytest.mark.parametrize("seed", SEEDS[:2] + SEEDS[6:])
def test_networks_quantized_after_training_are_their_graphs(seed):
    net, x = float_network(seed, pictures=16)
    architecture = net.architecture
    ops_ = [op for op in architecture.ops if not isinstance(op, ops.Pad) or op.margins[2] == (0, 0)]
    if len(ops_) < len(architecture.ops):
        pytest.skip("option A has no channel factors")
    folded = FoldedNet.of(architecture, fold_batch_norm(net))
    widths = dataclasses.replace(Widths.parse("W8A8", architecture), residual=8)

    student = quantized(folded, widths, x, Recipe(images=8, pool=16))

    exported(student, x)
    check_near(student, x, folded.logits(x))
