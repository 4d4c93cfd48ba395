"""Small networks on the way from floating point to a graph, and what every graph made so must be."""

import numpy as np
from flax import nnx

from nets.data import integer_input
from nets.export import export
from nets.floating import FloatNet
from nets.fold import equalize, fold_batch_norm
from nets.quantized import QuantNet, Widths, calibrate
from nets.quantizer import Rule
from pqjax.graph import reference


def floated(architecture, images):
    """A float network with random weights."""
    net = FloatNet(architecture, nnx.Rngs(0))
    nnx.jit(lambda net, x: net(x))(net, integer_input(images))  # moves the running statistics
    net.eval()
    return net


def quantized(floating, images, text, rule: Rule = "saturate"):
    """A float network in the widths of `text`, calibrated on images."""
    architecture = floating.architecture
    student = QuantNet(architecture, Widths.parse(text, architecture, rule))
    calibrate(student, equalize(fold_batch_norm(floating), architecture), integer_input(images))
    return student


def exported(student, x):
    """Its graph and weights, whose answers are those of training bit for bit, and these answers."""
    graph, weights = export(student)
    accumulator, scale = student.accumulate(x)
    np.testing.assert_array_equal(accumulator, reference(graph, weights, x))
    assert float(scale) == graph.output.out.scale
    return graph, weights, np.asarray(accumulator)
