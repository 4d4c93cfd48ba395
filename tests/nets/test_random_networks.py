"""Random small networks of every kind that can be trained: all forms compute one function.

Float networks against a plain twin; quantized networks against their exported graphs, bit for bit, and
against the twin as near as eight bits can be.
"""

import functools

import numpy as np
import pytest
import slow_nets
from dice import float_network, random_architecture
from flax import nnx
from students import exported

from nets import ops
from nets.export import export
from nets.fold import equalize, fold_batch_norm
from nets.folded import FoldedNet
from nets.ops import INPUT
from nets.ptq import Recipe, quantized
from nets.qat import student_of
from nets.quantized import QuantNet, Widths, calibrate
from nets.steps import Average, Fit, Joined, steps

QUICK = (53, 459, 697, 778)
SEEDS = [*QUICK, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(100, 140))]
AFTER_TRAINING = [*QUICK[1:2], *SEEDS[len(QUICK) :]]


def said(architecture):
    """Every kind of operation and step of an architecture, and every way it is used."""
    last, shapes = architecture.ops[-1], architecture.shapes
    yield from (
        f"{shapes[INPUT][2]} channels",
        f"signed {architecture.signed}",
        ("last", last.kind),
    )
    yield "several FCs" if sum(isinstance(op, ops.Dense) for op in architecture.ops) > 1 else "one"
    for step in steps(architecture):
        yield type(step)
        if isinstance(step, Joined):
            yield "joined", step.op.kind
        if isinstance(step, Average):
            yield "average of 2^k", not step.area & (step.area - 1)
            yield "average at edges", step.padding != ops.NO_MARGINS
        if isinstance(step, Fit):
            yield from (step.role, ("negative", step.negative), ("capped", step.capped is None))
    for op in architecture.ops:
        yield type(op)
        if isinstance(op, ops.Conv):
            half = op.window[0] // 2
            plain = ops.Conv(op.name, op.sources, op.channels, op.window, op.stride, op.padding)
            if op == plain and len({*op.window}) == len({*op.stride}) == 1 and half:
                yield "square", op.window[0] % 2, op.padding == ((half, half),) * 2
            yield from (("even", op.window[0] % 2), ("wide", max(op.window) > 6))
            yield "grouped", op.groups > 1, op.groups == op.channels
            yield from (
                ("dilated", op.dilation != (1, 1)),
                ("padded", op.padding != ops.NO_MARGINS),
            )
        if isinstance(op, ops.Pad):
            yield "channels padded", op.margins[2] != (0, 0)
            yield "edge", op.edge
        if isinstance(op, ops.Relu) and op.cap is not None:
            readers = architecture.readers[op.name]
            layer = (
                len(readers) == 1 and isinstance(readers[0], ops.Linear) and readers[0].groups == 1
            )
            yield "cap", readers == (), layer and shapes[op.name][-1] > 1


def test_the_quick_networks_say_all_that_architectures_can():
    everything = {what for seed in range(400) for what in said(random_architecture(seed))}

    assert everything <= {what for seed in QUICK for what in said(random_architecture(seed))}


def off(found, wanted):
    """Root mean square of the difference, relative to the wanted."""
    wanted = np.asarray(wanted, np.float64)
    return float(np.sqrt(np.square(np.asarray(found) - wanted).mean() / np.square(wanted).mean()))


@functools.cache
def float_logits(seed):
    net, x = float_network(seed)
    return nnx.jit(lambda net, x: net(x))(net, x)


def check_near(student, seed):
    """Eight bits answer what floats do: how far bfloat16 is off tells what roundings do to a network."""
    net, x = float_network(seed)
    wanted = slow_nets.logits(net.architecture, fold_batch_norm(net), x)
    assert off(student(x), wanted) <= 0.05 + 6 * off(float_logits(seed), wanted)


@pytest.mark.parametrize("seed", SEEDS)
def test_float_networks_are_their_plain_twin(seed):
    net, x = float_network(seed)
    folded = fold_batch_norm(net)

    wanted = slow_nets.logits(net.architecture, folded, x)

    scale = np.abs(wanted).max()
    found = FoldedNet.of(net.architecture, folded).logits(np.asarray(x))
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4 * scale)
    equalized = FoldedNet.of(net.architecture, equalize(folded, net.architecture)).logits(
        np.asarray(x)
    )
    np.testing.assert_allclose(equalized, wanted, rtol=1e-3, atol=1e-4 * scale)
    assert off(float_logits(seed), wanted) < 0.2


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("text", ["W8A8R10", "W4A4R5"])
def test_quantized_networks_are_their_graphs(seed, text):
    net, x = float_network(seed)
    architecture, folded = net.architecture, fold_batch_norm(net)
    rule = "wrap" if not architecture.signed and seed % 2 else "saturate"
    student = QuantNet(architecture, Widths.parse(text, architecture, rule))

    calibrate(student, equalize(folded, architecture), x)

    graph, weights, _ = exported(student, x)
    if text != "W4A4R5":
        check_near(student, seed)
    again = student_of(architecture, student.widths, nnx.to_pure_dict(nnx.state(student)))
    same, values = export(again)
    assert same == graph and all(np.array_equal(values[name], weights[name]) for name in weights)


@pytest.mark.parametrize("seed", AFTER_TRAINING)
def test_networks_quantized_after_training_are_their_graphs(seed):
    net, x = float_network(seed)
    folded = FoldedNet.of(net.architecture, fold_batch_norm(net))
    widths = Widths.parse("W8A8R8", net.architecture)

    student = quantized(folded, widths, np.asarray(x), Recipe(images=8, pool=8))

    exported(student, x)
    check_near(student, seed)
