"""The bound on layers' sums: it is what export finds, and what training and coarse scales lower."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dice import random_architecture
from flax import nnx
from students import exported, floated, quantized

from nets.accumulator import accumulator_bits, coarsen, excess, narrow, parse_bits, reaches
from nets.architecture import MINIONN, RESNET32, cifar_resnet
from nets.data import integer_input
from pqjax.errors import GraphError

TINY = cifar_resnet("tiny", "cifar100", 7, blocks=1, stages=(8, 16, 24), projected=True)
ASKED = parse_bits("10", TINY)


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3)).astype(np.uint8)


@pytest.fixture(scope="module")
def floating(images):
    return floated(TINY, images)


@pytest.fixture
def student(floating, images):
    return quantized(floating, images, "W4A6R7")


def found(graph):
    return {node.name: node.out.bits for node in graph if node.kind in ("Conv", "Dense")}


@pytest.mark.parametrize("text", ["W4A6", "W3A4R7", "W2A6R6"])
def test_the_bound_is_what_export_finds(floating, images, text):
    student = quantized(floating, images, text)

    graph, *_ = exported(student, integer_input(images))

    assert accumulator_bits(student) == found(graph)


@pytest.mark.parametrize("rule", ["saturate", "wrap"])
def test_pools_add_their_bits(images, rule):
    student = quantized(floated(MINIONN, images), images, "W4A4", rule)

    graph, *_ = exported(student, integer_input(images))

    assert accumulator_bits(student) == found(graph)
    tops = {
        name: float(reach.top)
        for name, reach in reaches(student, parse_bits("12", MINIONN)).items()
    }
    assert tops == {"conv1": 2**11, "conv2": 2**13, "conv3": 2**11, "conv4": 2**13, "conv5": 2**11,
                    "conv6": 2**11, "conv7": 2**11, "fc": 0}  # fmt: skip


@pytest.mark.parametrize("seed", [25, 51, 829, 856])
def test_of_any_network_the_bound_is_at_least_what_export_finds(seed):
    architecture = random_architecture(seed)
    pictures = (
        np.random.default_rng(seed).integers(0, 256, (2, *architecture.image)).astype(np.uint8)
    )
    student = quantized(floated(architecture, pictures), pictures, "W4A6")

    own, theirs = accumulator_bits(student), found(exported(student, integer_input(pictures))[0])

    assert own.keys() == theirs.keys()
    assert all(own[name] >= theirs[name] for name in own)


def test_only_filters_that_are_too_wide_are_moved_and_towards_zero(student):
    graphdef, state = nnx.split(student)

    gradient = jax.grad(lambda state: excess(nnx.merge(graphdef, state), ASKED))(state)

    moved = nnx.merge(graphdef, gradient)
    wide = 0
    for layer, slope, reach in zip(
        student.layers, moved.layers, reaches(student, ASKED).values(), strict=True
    ):
        over = np.asarray((reach.most + 1 > reach.top) | (reach.least < -reach.top)) & (
            reach.top > 0
        )
        kernel, slope = np.asarray(layer.kernel[...]), np.asarray(slope.kernel[...])
        over = np.broadcast_to(over, kernel.shape[-1:])
        assert not slope[..., ~over].any()
        assert (slope * kernel >= 0)[..., over].all()
        assert (slope != 0).any((0, 1, 2) if kernel.ndim == 4 else 0)[over].all()
        wide += over.sum()
    assert 0 < wide < sum(layer.op.channels for layer in student.layers)


def test_lowered_weights_fit_the_bits_asked_and_others_stay(student, images):
    before = [np.asarray(layer.kernel[...]) for layer in student.layers]
    tops = reaches(student, ASKED)

    lowered = narrow(student, ASKED)

    assert lowered > 0 and float(excess(student, ASKED)) == 0 and narrow(student, ASKED) == 0
    graph, *_ = exported(student, integer_input(images))
    for name, bits in found(graph).items():
        assert tops[name].top in (0, *(2.0**n for n in range(bits - 1, 30)))
    changed = sum(int((np.asarray(layer.kernel[...]) != old).sum())
                  for layer, old in zip(student.layers, before, strict=True))  # fmt: skip
    assert 0 < changed <= lowered
    last = student.layers[-1]
    np.testing.assert_array_equal(last.kernel[...], before[-1])  # free


def test_a_bias_that_leaves_the_bits_alone_is_refused(student):
    student.layers[0].bias[...] = jnp.full(8, 2.0**10)

    with pytest.raises(GraphError, match=r"conv1: the bias of filter \d+ alone"):
        narrow(student, ASKED)


def test_coarse_scales_keep_values_where_fine_ones_would_be_lowered(student, floating, images):
    fine = quantized(floating, images, "W4A6R7")

    coarsen(student, ASKED)

    steps = [int(a.weight_scale[...] - b.weight_scale[...])
             for a, b in zip(student.layers, fine.layers, strict=True)]  # fmt: skip
    assert min(steps) < 0 and max(steps) == 0 and steps[-1] == 0
    assert float(excess(student, ASKED)) < float(excess(fine, ASKED)) / 4
    exported(student, integer_input(images))  # no shift is negative, and all is exact


@pytest.mark.parametrize("text", ["12,12", "3", "25", "x", "12,,0", ""])
def test_other_bits_are_refused(text):
    with pytest.raises(ValueError, match=r"accumulator bits|weight layers"):
        parse_bits(text, TINY)


def test_bits_are_for_all_layers_but_the_last_or_by_layer():
    assert parse_bits("12", RESNET32) == (*[12] * 31, 0)
    assert parse_bits("0,14,12,12,12,12,12,16", MINIONN) == (0, 14, 12, 12, 12, 12, 12, 16)
