"""Architectures are checked when built; tables of rules know what they claim; others are refused."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
import slow_nets
from flax import nnx
from slow_nets import convolution

from nets import ops
from nets.architecture import ARCHITECTURES, RESNET32, Draft, cifar_resnet
from nets.conv import layer_conv, plain_conv
from nets.export import _Export, export
from nets.floating import CARRIERS, FloatNet
from nets.fold import equalize
from nets.folded import FoldedNet
from nets.ops import INPUT, KINDS, Architecture, rule_of, walk
from nets.ptq import Recipe, quantized
from nets.quantized import QuantNet, Widths, calibrate
from nets.steps import Average, Capped, Cut, Fit, Joined, blocks, steps
from pqjax.errors import GraphError
from pqjax.graph import reference
from pqjax.graph.ir import KINDS as GRAPH_KINDS

CONV = ops.Conv("conv1", (INPUT,), 4, (3, 3), (1, 1), ((1, 1), (1, 1)))
RELU = ops.Relu("relu1", ("conv1",))
FLAT = ops.Flatten("flatten", ("relu1",))
FC = ops.Dense("fc", ("flatten",), 3)
GOOD = (CONV, RELU, FLAT, FC)
TINY = cifar_resnet("tiny", "cifar100", 7, blocks=1, stages=(4, 8))


def built(*found, image=(6, 5, 2), classes=3):
    return Architecture("net", "none", image, classes, found, signed=True)


def changed(place, **fields):
    return [dataclasses.replace(op, **fields) if i == place else op for i, op in enumerate(GOOD)]


def test_shapes_are_derived():
    found = built(*GOOD)

    assert found.shapes["relu1"] == (6, 5, 4) and found.shapes["flatten"] == (120,)
    assert [found.kernel(layer) for layer in found.layers] == [(3, 3, 2, 4), (120, 3)]
    assert found.readers["conv1"] == (RELU,)


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (changed(1, sources=("cnv1",)), r"relu1 \(Relu\): source 'cnv1' .* did you mean 'conv1'"),
        (changed(1, sources=("x", "y")), r"relu1 .*: 1 sources expected, got 2"),
        (changed(1, name="conv1"), r"conv1 \(Relu\): its name is taken"),
        (changed(1, name=INPUT), r"input \(Relu\): its name is taken"),
        (changed(1, cap=0.0), r"relu1 .*cap above 0 .*got 0.0"),
        (changed(1, cap=6), r"relu1 .*cap a number .*got 6"),
        (changed(0, window=3), r"conv1 \(Conv\): window a tuple expected, got 3"),
        (changed(0, window=(9, 3)), r"conv1 .*reaches over \(9, 3\).*only \(8, 7\).*pad it"),
        (changed(0, dilation=(4, 1)), r"conv1 .*reaches over \(9, 3\)"),
        (changed(0, stride=(0, 1)), r"conv1 .*stride\[0\] in 1.*got 0"),
        (changed(0, padding=((1, 1), (1,))), r"conv1 .*padding\[1\] 2 entries"),
        (changed(0, padding=((-1, 1), (1, 1))), r"conv1 .*padding\[0\]\[0\] in 0"),
        (changed(0, groups=3), r"conv1 .*3 groups must divide 2 channels read and 4 made"),
        (changed(3, sources=("relu1",)), r"fc \(Dense\): a vector expected.*\(6, 5, 4\).*Flatten"),
        (changed(3, channels=4), r"fc .*output's shape must be \(3,\).*got \(4,\)"),
        ([CONV, RELU, RELU, FLAT, FC], r"relu1 .*its name is taken"),
        ([CONV, FLAT, RELU, FC], r"flatten .*'relu1' is not made before it"),
        ([CONV, RELU, ops.Relu("more", ("conv1",)), FLAT, FC], r"more .*nothing reads it"),
        ([ops.Flatten("flatten", (INPUT,))], r"net: at least one Conv or Dense expected"),
        ([CONV, "relu", FLAT, FC], r"net: 'relu' is of no kind known here; there are Conv, Dense"),
        ([CONV, RELU, ops.Norm("norm", ("relu1",)), FLAT, FC], r"norm .*stands behind a Conv"),
        ([CONV, RELU, ops.Add("add", ("relu1", "relu1")), FLAT, FC], r"add .*two tensors of one"),
        ([CONV, RELU, ops.Add("add", ("relu1", INPUT)), FLAT, FC], r"add .*\(6, 5, 4\) and \(6, 5, 2"),
        ([CONV, RELU, ops.MaxPool("pool", ("relu1",), (7, 2), (1, 1)), FLAT, FC], r"pool .*only \(6, 5"),
        ([CONV, RELU, ops.Concat("cat", ("relu1",)), FLAT, FC], r"cat .*two or more sources"),
        ([CONV, RELU, ops.Take("take", ("relu1",), (0, 4)), FLAT, FC], r"take .*channel 4, but"),
        ([CONV, RELU, ops.Take("take", ("relu1",), ()), FLAT, FC], r"take .*channels .*of length 1"),
        ([CONV, RELU, ops.Pad("pad", ("relu1",), ((1, 1), (1, 1), (0, 1)), True), FLAT, FC],
         r"pad .*no edge"),
        ([CONV, RELU, ops.AvgPool("mean", ("relu1",), (2, 2), (1, 1), padding=((2, 0), (0, 0))),
          FLAT, FC], r"mean .*lies outside of the image"),
        ([CONV, RELU, FLAT, ops.GlobalAverage("mean", ("flatten",)), FC], r"mean .*an image"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named(found, said):
    with pytest.raises(GraphError, match=said):
        built(*found)


def test_an_image_has_three_sides():
    with pytest.raises(GraphError, match=r"net: image .*of length 3"):
        built(*GOOD, image=(6, 5))


def tables():
    """Every table of rules: what it claims to know, and its rules."""
    widths = Widths.parse("W4A6", TINY)
    student = QuantNet(TINY, widths)
    folded = FoldedNet.of(TINY, [(np.zeros(1), np.zeros(1))] * len(TINY.layers))
    lowered = {Average, Capped, Cut, Fit, Joined}
    unlowered = {ops.Norm, ops.GlobalAverage}  # folded, or an `Average`
    whole = set(KINDS)
    return {
        "float": (whole, FloatNet(TINY, nnx.Rngs(0)).rules()),
        "folded": (whole - unlowered | lowered, folded.rules),
        "quantized": (whole - unlowered - {ops.Concat} | lowered, student.rules()),
        "export": (whole - unlowered - {ops.Concat} | lowered, _Export(student).rules()),
    }


@pytest.mark.parametrize("name", ["float", "folded", "quantized", "export"])
def test_every_table_is_total_over_the_kinds_it_claims(name):
    claimed, rules = tables()[name]

    assert set(rules) == claimed
    for architecture in ARCHITECTURES.values():
        for op in architecture.ops if name == "float" else steps(architecture):
            assert rule_of(op, rules)


@dataclasses.dataclass(frozen=True)
class Swish(ops.Op):
    """A kind that nobody knows."""


def test_an_unknown_kind_is_refused_by_name():
    for name, (_, rules) in tables().items():
        with pytest.raises(GraphError, match=r"swish1 \(Swish\): no rule.*Conv"):
            walk([Swish("swish1", (INPUT,))], rules, {INPUT: name})
    with pytest.raises(GraphError, match="is of no kind known here"):
        built(CONV, Swish("swish1", ("conv1",)))


PAD = ops.Pad("pad", ("relu1",), ((0, 0), (0, 0), (1, 2)))
POOLS = [ops.MaxPool(f"pool{i}", ("relu1",), (i, i), (6, 6)) for i in (1, 2)]
TWO = dataclasses.replace(CONV, name="conv2")
FLAT_END = ops.Flatten("flatten", ("last",))
# What was refused once, or made another network.
STUMBLES = {
    "concat": [CONV, TWO, ops.Concat("last", ("conv1", "conv2"))],
    "sum of pools": [CONV, RELU, *POOLS, ops.Add("last", ("pool1", "pool2"))],
    "sum of what is read elsewhere": [
        CONV, RELU, TWO, ops.Relu("relu2", ("conv2",)), *POOLS, ops.Add("add", ("relu1", "relu2")),
        ops.MaxPool("pool3", ("add",), (1, 1), (6, 6)), ops.Concat("cat", ("pool1", "pool2", "pool3")),
        ops.MaxPool("pool4", ("relu2",), (1, 1), (6, 6)), ops.Concat("last", ("pool4", "cat")),
    ],
    "names of steps": [
        dataclasses.replace(CONV, name="act1"), ops.Conv("conv1", ("act1",), 4, (1, 1)),
        ops.AvgPool("last.sum", ("conv1",), (1, 3), (1, 1)),
        ops.AvgPool("last", ("last.sum",), (3, 1), (1, 1)),
    ],
    "cap behind a pool": [
        CONV, ops.MaxPool("pool", ("conv1",), (2, 2), (2, 2)), ops.Relu("last", ("pool",), 0.3),
    ],
    "cap of what is read elsewhere": [
        CONV, ops.Relu("relu1", ("conv1",), 0.3), ops.Add("last", ("relu1", "conv1")),
    ],
    "small cap": [CONV, ops.Relu("last", ("conv1",), 0.05)],
    "dilated": [dataclasses.replace(CONV, dilation=(2, 1), window=(2, 3)), RELU, PAD,
                ops.AvgPool("last", ("pad",), (3, 3), (3, 3))],
    "even kernel without margins": [
        ops.Conv("conv1", (INPUT,), 4, (4, 4), (2, 2)), ops.Relu("last", ("conv1",)),
    ],
    "unpadded pool": [CONV, RELU, ops.MaxPool("last", ("relu1",), (2, 2), (2, 2))],
    "average of nine": [CONV, RELU, ops.AvgPool("last", ("relu1",), (3, 3), (3, 3))],
}  # fmt: skip


def stumble(name):
    """The network, with a norm and a cap behind its last layer; its weights, pictures and answers."""
    ends = [FLAT_END, FC, ops.Norm("norm", ("fc",)), ops.Relu("end", ("norm",), 0.5)]
    signed = bool(list(STUMBLES).index(name) % 2)
    found = Architecture("net", "none", (6, 5, 2), 3, (*STUMBLES[name], *ends), signed)
    rng = np.random.default_rng(0)
    x = rng.integers(-128, 128, (8, *found.image)).astype(np.int8)
    folded = []
    for layer in found.layers:
        kernel, bias = rng.normal(size=found.kernel(layer)), rng.normal(size=layer.channels) / 8
        kernel *= 2 / np.sqrt(np.prod(kernel.shape[:-1]))
        folded.append((kernel.astype(np.float32), bias.astype(np.float32)))
    return found, folded, x, slow_nets.logits(found, folded, x)


def check_same(net, x, wanted):
    graph, values = export(net)
    np.testing.assert_array_equal(net.accumulate(x)[0], reference(graph, values, x))
    error = np.square(np.asarray(net(x)) - wanted).mean()
    assert error <= 0.1**2 * np.square(wanted).mean()


@pytest.mark.parametrize("name", STUMBLES)
def test_what_was_refused_or_changed_is_the_same_network_now(name):
    found, folded, x, wanted = stumble(name)
    student = QuantNet(found, Widths.parse("W8A8R8", found))

    equal = equalize(folded, found)
    calibrate(student, equal, jnp.asarray(x))

    np.testing.assert_allclose(FoldedNet.of(found, equal).logits(x), wanted, rtol=1e-3, atol=1e-4)
    check_same(student, x, wanted)


@pytest.mark.parametrize("name", ["sum of pools", "cap of what is read elsewhere", "concat"])
def test_joined_tensors_saturate_as_their_graphs_do(name):
    found, folded, x, _ = stumble(name)
    student = QuantNet(found, Widths.parse("W8A8R8", found))
    calibrate(student, folded, jnp.asarray(x))
    before = student.accumulate(jnp.asarray(x))[0]
    for scale in student.join_scales:
        scale[...] = scale[...] + 2  # four times too large for the range

    graph, values = export(student)

    np.testing.assert_array_equal(
        student.accumulate(jnp.asarray(x))[0], reference(graph, values, x)
    )
    assert not np.array_equal(student.accumulate(jnp.asarray(x))[0], before)


@pytest.mark.slow
@pytest.mark.parametrize("name", STUMBLES)
def test_so_it_is_quantized_after_training(name):
    found, folded, x, wanted = stumble(name)
    widths = Widths.parse("W8A8R8", found)

    check_same(
        quantized(FoldedNet.of(found, folded), widths, x, Recipe(images=8, pool=8)), x, wanted
    )


def test_averages_and_sums_that_widths_do_not_serve_are_named():
    mean = ops.AvgPool("mean", (INPUT,), (60, 50), (60, 50))
    flat = dataclasses.replace(FLAT, sources=("mean",))
    large = built(mean, flat, FC, image=(60, 50, 2))
    pools = built(
        CONV, RELU, *POOLS, ops.Add("last", ("pool1", "pool2")), *changed(2, sources=("last",))[2:]
    )

    with pytest.raises(GraphError, match=r"mean \(Average\): it averages 3000 values of 7 bits"):
        QuantNet(large, Widths((4,)))
    with pytest.raises(GraphError, match=r"last \(Joined\): a sum of 1 bits"):
        QuantNet(pools, Widths((4, 4), activations=2, residual=2))


def test_kinds_that_graphs_have_too_are_spelt_alike():
    shared = set(CARRIERS) - {ops.Concat}

    for kind in shared:
        theirs = {f.name for f in dataclasses.fields(GRAPH_KINDS[kind.__name__])}
        assert {f.name for f in dataclasses.fields(kind)} <= theirs


def test_residuals_are_cut_and_sums_belong_to_the_later_layer():
    made = {step.name: step for step in steps(TINY)}

    assert list(made)[:9] == [
        "conv1", "relu1", "res1", "act1", "s1b1.conv1", "s1b1.relu1", "s1b1.act1", "s1b1.conv2",
        "s1b1.add2",
    ]  # fmt: skip
    assert made["s1b1.conv1"].sources == ("act1",) and made["s1b1.add2"].sources[1] == "res1"
    roles = {step.name: step.role for step in made.values() if isinstance(step, Fit)}
    assert roles["res1"] == "residual" and roles["s2b1.act2"] == "head"
    assert not any(step.negative for step in made.values() if isinstance(step, Fit))
    projected = cifar_resnet("b", "cifar100", 7, 1, (4, 8), projected=True)
    down = next(block for block in blocks(projected) if block.layer and "down" in block.layer.name)
    assert (
        down.fit is not None
        and down.fit.negative
        and down.fit.role == "residual"
        and len(down.steps) == 2
    )
    assert {fit.role for fit in map(lambda b: b.fit, blocks(RESNET32)) if fit} == {
        "residual", "activations", "head",
    }  # fmt: skip


@pytest.mark.parametrize("window", [1, 2, 3, 4, 7])
def test_a_drafts_windows_keep_sides_and_its_pools_pad_nothing_unless_told(window):
    draft = Draft()
    at = draft.block("conv1", INPUT, 4, window)
    half = draft.largest("half", at, 2, 2)
    padded = draft.largest("padded", at, 3, 2, padding=(1, 1))
    ends = [ops.Concat("last", (half, padded)), FLAT_END, dataclasses.replace(FC, channels=3)]

    found = built(*draft.ops, *ends, image=(16, 16, 2))

    assert found.shapes[at] == (16, 16, 4)
    assert found.shapes[half] == found.shapes[padded] == (8, 8, 4)


def test_a_draft_names_what_exports_name():
    draft = Draft()

    assert draft.block("s1.conv2", INPUT, 4, 3, plus=None, pool=2) == "s1.pool2"
    assert draft.block("down", "s1.pool2", 4, relu=False) == "down.norm"
    assert [op.name for op in draft.ops] == [
        "s1.conv2", "s1.norm2", "s1.relu2", "s1.pool2", "down", "down.norm",
    ]  # fmt: skip


@pytest.mark.parametrize("run", [layer_conv, plain_conv])
@pytest.mark.parametrize(
    "op",
    [
        ops.Conv("c", (INPUT,), 6, (4, 4), (2, 2), ((1, 1), (1, 1))),
        ops.Conv("c", (INPUT,), 6, (1, 3), (1, 2), ((0, 0), (2, 0))),
        ops.Conv("c", (INPUT,), 6, (3, 3), (1, 1), ((1, 1), (1, 1)), groups=2),
        ops.Conv("c", (INPUT,), 4, (2, 3), (2, 1), ((1, 0), (0, 2)), groups=4),
        ops.Conv("c", (INPUT,), 6, (3, 2), (1, 1), ((2, 2), (0, 0)), dilation=(2, 3)),
        ops.Conv("c", (INPUT,), 4, (3, 3), (1, 1), ((2, 2), (2, 2)), groups=4, dilation=(2, 2)),
        ops.Conv("c", (INPUT,), 6, (1, 1)),
        ops.Conv("c", (INPUT,), 6, (1, 1), (1, 1), ((1, 0), (0, 1))),
        ops.Conv("c", (INPUT,), 6, (3, 3), (1, 1)),
    ],
)
def test_any_convolution_is_its_plain_twin_on_integers(op, run):
    rng = np.random.default_rng(0)
    x = rng.integers(-128, 128, (2, 7, 6, 4)).astype(np.float32)
    kernel = rng.integers(-8, 8, op.kernel(x.shape[1:])).astype(np.float32)

    np.testing.assert_array_equal(
        run(jnp.asarray(x), jnp.asarray(kernel), op), convolution(op, x, kernel)
    )
