"""What ONNX models compute is computed here, whatever way they spell it; the rest is refused by name."""

import dataclasses

import numpy as np
import pytest
from onnx import TensorProto
from onnx_models import NETWORKS, Sketch

from nets.importing.agreement import agreement, check_agreement, random_inputs
from nets.importing.imported import Pixels
from nets.importing.onnx import read_onnx
from pqjax.errors import GraphError


@pytest.mark.parametrize("opset", [7, 13, 22])
@pytest.mark.parametrize("name", NETWORKS)
def test_networks_of_old_and_new_opsets_agree_with_their_runtime(name, opset):
    net = read_onnx(NETWORKS[name](opset))

    assert check_agreement(net).same == 1
    assert "Norm" not in {op.kind for op in net.architecture.ops}


def image(made):
    """A convolution, so that what follows reads no input: (1, 6, 7, 6)."""
    return made.conv("x", 4, 6, pads=[1, 1, 1, 1])


def after(*steps):
    """Nodes on an image, each (kind, constants, attributes), then a head."""

    def write(made):
        at = image(made)
        for kind, constants, attributes in steps:
            at = made.add(kind, at, *(made.constant(*c) for c in constants), **attributes)
        return at

    return write


def one(kind, *constants, **attributes):
    return after((kind, constants, attributes))


def ints(*values):
    return values, np.int64


def two(kind, **attributes):
    return lambda made: made.add(kind, image(made), image(made), **attributes)


def split(made):
    a, b, c = made.add("Split", image(made), made.whole(1, 2, 3), outputs=3, axis=1)
    return made.add("Concat", c, made.add("Relu", a), b, axis=1)


def rows_last(made):
    """As TensorFlow's exporters have it: channels last, but around convolutions."""
    at = made.add("Transpose", image(made), perm=[0, 2, 3, 1])
    at = made.add("Relu", made.add("Add", at, made.random(6)))
    at = made.add("Concat", at, made.add("Mul", at, made.random(1, 1, 6)), axis=3)
    at = made.conv(made.add("Transpose", at, perm=[0, 3, 1, 2]), 12, 5, 1)
    at = made.add("Transpose", at, perm=[0, 2, 3, 1])
    return made.add("ReduceMean", at, axes=[1, 2], keepdims=0)


def spelt_shape(made):
    """The batch's side read from the tensor, as PyTorch does for view(x.size(0), -1)."""
    at = image(made)
    batch = made.add("Gather", made.add("Shape", at), made.constant(0, np.int64), axis=0)
    sides = made.add("Concat", made.add("Unsqueeze", batch, made.whole(0)), made.whole(-1), axis=0)
    return made.add("Reshape", at, sides)


def spelt_weights(made):
    """Weights behind Identity, Transpose and a constant's node."""
    weights = made.add(
        "Transpose", made.add("Identity", made.random(6, 4, 3, 2)), perm=[0, 1, 3, 2]
    )
    return made.add("Conv", "x", weights, made.add("Mul", made.random(6), made.constant(0.5)))


def flat_branches(made):
    """Flattened images side by side."""
    pooled = made.add("AveragePool", image(made), kernel_shape=[3, 2], strides=[2, 2])
    return made.add("Concat", made.add("Flatten", pooled), made.add("Flatten", image(made)), axis=1)


def grids(made):
    """A QDQ model: weights on a grid; activations too, one of which is cut at 0 as a ReLU would."""
    rng = np.random.default_rng(0)
    scale, zero = made.constant(0.02), made.constant(0, np.int8)
    weights = made.constant(rng.integers(-100, 100, (6, 4, 3, 3)), np.int8)
    at = made.add("Conv", "x", made.add("DequantizeLinear", weights, scale, zero))
    for kind, end in ((np.uint8, 0), (np.int8, 3)):
        grid = made.constant(0.05), made.constant(end, kind)
        at = made.add("DequantizeLinear", made.add("QuantizeLinear", at, *grid), *grid)
    return at


POOL = {"kernel_shape": [3, 2], "strides": [2, 2]}
IMPORTED = {
    "asymmetric pads": lambda made: made.conv("x", 4, 6, pads=[2, 0, 1, 1], strides=[2, 1]),
    "same upper": lambda made: made.conv("x", 4, 6, (4, 2), auto_pad="SAME_UPPER", strides=[2, 1]),
    "same lower": lambda made: made.conv("x", 4, 6, (4, 2), auto_pad="SAME_LOWER", strides=[2, 3]),
    "dilated and grouped": lambda made: made.conv("x", 4, 6, 2, groups=2, dilations=[2, 3]),
    "max pool, padded, of what may be negative": one("MaxPool", **POOL, pads=[1, 1, 2, 0]),
    "max pool, ceil": one("MaxPool", kernel_shape=[2, 2], strides=[2, 4], ceil_mode=1),
    "average at edges": one("AveragePool", **POOL, pads=[1, 1, 2, 0]),
    "average of zeros, too": one("AveragePool", **POOL, pads=[1, 1, 2, 0], count_include_pad=1),
    "average, ceil": one("AveragePool", kernel_shape=[3, 2], strides=[3, 2], ceil_mode=1),
    "global maximum": one("GlobalMaxPool"),
    "mean of rows and columns": one("ReduceMean", axes=[-1, -2], keepdims=1),
    "mean of rows": one("ReduceMean", axes=[2], keepdims=0),
    "sum of rows and columns": after(("Relu", (), {}), ("ReduceSum", (ints(2, 3),), {"keepdims": 0})),
    "maximum of rows and columns": one("ReduceMax", axes=[2, 3], keepdims=0),
    "leaky": one("LeakyRelu", alpha=0.1),
    "leaky by channel": lambda made: made.add("PRelu", image(made), made.random(6, 1, 1)),
    "hard sigmoid": one("HardSigmoid", alpha=0.3, beta=0.4),
    "clip of both signs": one("Clip", (-0.5,), (0.7,)),
    "clip below": one("Clip", (0.1,)),
    "largest of 0 and": one("Max", (0.0,)),
    "cap of a ReLU": after(("Relu", (), {}), ("Min", ((0.8,),), {})),
    "negative": one("Neg"),
    "sum of three": lambda made: made.add("Sum", image(made), image(made), image(made)),
    "mean of two": two("Mean"),
    "difference": two("Sub"),
    "twice itself": lambda made: made.add("Add", *[image(made)] * 2),
    "normalised by hand": after(
        ("Sub", ((0.3,),), {}), ("Div", (((2.0,),)), {}), ("Relu", (), {}), ("Add", ((1.0,),), {})
    ),
    "constant less": lambda made: made.add("Sub", made.random(6, 1, 1), image(made)),
    "norm, ReLU, convolution": lambda made: made.conv(
        made.add("Relu", made.norm(made.add("Relu", image(made)), 6)), 6, 4, 1
    ),
    "zeros around": one("Pad", ints(0, 0, 1, 0, 0, 1, 0, 2)),
    "edges around": one("Pad", ints(0, 0, 1, 0, 0, 0, 0, 2), mode="edge"),
    "slice": one("Slice", ints(1), ints(6), ints(1), ints(2)),
    "every second row": one("Slice", ints(0, 0), ints(7, 6), ints(2, 3), ints(2, 2)),
    "gather": one("Gather", ints(5, 0, 0, 2), axis=1),
    "split": split,
    "squeezed": after(("GlobalAveragePool", (), {}), ("Squeeze", (ints(2, 3),), {}),
                      ("Unsqueeze", (ints(2),), {})),
    "a part of what is flat": after(
        ("Flatten", (), {}), ("Slice", (ints(7), ints(40), ints(1), ints(3)), {}), ("Relu", (), {})
    ),
    "a convolution of a flat image": lambda made: made.conv(
        made.add("Relu", made.add("Reshape", image(made), made.whole(1, 252, 1, 1))), 252, 3, 1
    ),
    "two orders": lambda made: made.add(
        "Add", at := image(made), made.add("Gather", at, made.whole(5, 0, 3, 1, 2, 4), axis=1)
    ),
    "transposed and flat": one("Transpose", perm=[0, 3, 1, 2]),
    "channels last": rows_last,
    "spelt shape": spelt_shape,
    "spelt weights": spelt_weights,
    "flat branches": flat_branches,
    "grids": grids,
    "cast and identity": after(("Cast", (), {"to": TensorProto.FLOAT}), ("Identity", (), {})),
}  # fmt: skip


@pytest.mark.parametrize("name", IMPORTED)
def test_however_it_is_spelt_it_agrees_with_its_runtime(name):
    made = Sketch(13 if name == "sum of rows and columns" else 17)
    at = made.add("Flatten", IMPORTED[name](made))
    shape = read_onnx(made.model(at)).architecture.classes

    net = read_onnx(made.model(made.gemm(at, shape, 5)))

    check_agreement(net, random_inputs(net, 3))


def test_signals_vectors_and_channels_last_inputs_are_images_too():
    signal = Sketch()
    at = signal.add("Relu", signal.conv("x", 2, 6, (5,), strides=[2], pads=[2, 1]))
    at = signal.add("MaxPool", at, kernel_shape=[3], pads=[1, 1])
    signal = read_onnx(signal.model(signal.head(at, 6 * 8), (1, 2, 17)))
    vector = Sketch()
    at = vector.add("Relu", vector.norm(vector.gemm("x", 9, 7), 7))
    vector = read_onnx(vector.model(vector.gemm(at, 7, 3), ("batch", 9)))
    last = Sketch()
    at = last.conv(last.add("Transpose", "x", perm=[0, 3, 1, 2]), 3, 4)
    last = read_onnx(last.model(last.head(at, 4 * 6 * 3), (1, 8, 5, 3)))

    assert signal.architecture.image == (1, 17, 2) and last.architecture.image == (8, 5, 3)
    assert vector.architecture.image == (1, 1, 9)
    for net in (signal, vector, last):
        check_agreement(net)


def test_another_size_is_read_and_needs_no_training_to_agree():
    net = read_onnx(NETWORKS["lenet"](13), input_shape=(1, 1, 28, 24))

    check_agreement(net)
    made = Sketch()
    at = made.add("GlobalAveragePool", image(made))
    model = made.model(made.head(at, 6), (1, 4, "high", "wide"))
    assert read_onnx(model, input_shape=(1, 4, 9, 5)).architecture.image == (9, 5, 4)


@pytest.mark.parametrize("kind", ["Softmax", "LogSoftmax", "Sigmoid", "ArgMax"])
def test_heads_are_left_to_the_client(kind):
    made = Sketch()
    at = made.add(kind, made.add("Reshape", made.head(image(made), 252), made.whole(1, 5)), axis=1) \
        if kind != "Sigmoid" else made.add(kind, made.head(image(made), 252))  # fmt: skip

    net = read_onnx(made.model(made.add("Identity", at)))

    assert net.source["head"].startswith(kind) and net.architecture.ops[-1].kind == "Dense"
    check_agreement(net)


def test_metadata_say_what_pixels_and_classes_are():
    made = Sketch()
    at = made.head(image(made), 252, 2)
    meta = {"Image.NominalPixelRange": "Normalized_1_1", "Image.BitmapPixelFormat": "Bgr8"}
    model = made.model(at, meta={**meta, "names": "{0: 'cat', 1: 'dog'}"})

    net = read_onnx(model)

    assert net.pixels == Pixels((127.5,) * 4, (127.5,) * 4, bgr=True)
    assert net.classes == ("cat", "dog")
    assert read_onnx(model, pixels=Pixels((1.0,) * 4, (2.0,) * 4)).pixels.std == (2.0,) * 4
    for text in ('["one"]', "{", "__import__('os')", "[" * 10_000):
        assert read_onnx(made.model(at, meta={"names": text})).classes == ()


def test_normalisation_inside_of_a_model_becomes_its_pixels():
    made = Sketch()
    mean, std = made.random(1, 4, 1, 1), made.random(1, 4, 1, 1, low=0.5)
    at = made.add("Div", made.add("Sub", "x", mean), std)
    net = read_onnx(made.model(made.head(made.conv(at, 4, 6, pads=[1, 1, 1, 1]), 252)))

    assert [op.kind for op in net.architecture.ops] == ["Conv", "Flatten", "Dense"]
    check_agreement(net)


def test_local_response_normalisation_is_left_out_on_request_and_said():
    made = Sketch()
    at = made.add("LRN", image(made), size=3)
    model = made.model(made.head(at, 252))

    net = read_onnx(model, replace=("LRN",))

    assert "LRN" in net.source["replaced"]
    check_agreement(net)


def test_disagreement_is_an_error():
    net = read_onnx(NETWORKS["branched"](13))
    (kernel, bias), *rest = net.weights
    wrong = dataclasses.replace(net, weights=[(kernel, bias + 1), *rest])

    with pytest.raises(GraphError, match="answers something else than in its own runtime"):
        check_agreement(wrong)
    with pytest.raises(GraphError, match="without a runtime"):
        agreement(dataclasses.replace(net, runtime=None), random_inputs(net))
    short = dataclasses.replace(net, runtime=lambda x: net.outputs(x)[:, :3])
    with pytest.raises(GraphError, match=r"answers of \(2, 3\) from its runtime, of \(2, 5\)"):
        check_agreement(short)
