"""ONNX models that are not imported are refused by name, and files that are none do no harm."""

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx_models import NETWORKS, Sketch

from nets.importing.agreement import check_agreement
from nets.importing.onnx import read_onnx
from nets.importing.onnx.files import OPSETS
from pqjax.errors import CheckpointError, GraphError


def image(made):
    """A convolution: (1, 6, 7, 6)."""
    return made.conv("x", 4, 6, pads=[1, 1, 1, 1])


def ints(*values):
    return values, np.int64


def refused(write, shape=(1, 4, 7, 6), opset=17, **fields):
    """A sketch to be refused: what is written on an image, flattened and closed."""

    def model():
        made = Sketch(opset)
        return made.model(made.add("Flatten", write(made)), shape, **fields)

    return model


def gated(made):
    at = image(made)
    return made.add("Mul", at, made.add("HardSigmoid", at))


def looped(made):
    body = helper.make_graph([helper.make_node("Identity", ["x"], ["b"])], "then", [],
                             [helper.make_tensor_value_info("b", TensorProto.FLOAT, None)])  # fmt: skip
    return made.add("If", made.constant(True, np.bool_), then_branch=body, else_branch=body)


def infinite(made):
    return made.add("Conv", "x", made.constant(np.full((2, 4, 1, 1), np.inf)))


def strange(kind, *constants, **attributes):
    return refused(lambda made: made.add(kind, image(made), *(made.constant(*c) for c in constants),
                                         **attributes))  # fmt: skip


def simple(**fields):
    return refused(image, **fields)


def _open():
    made = Sketch()
    return made.model(image(made))


REFUSED = {
    "swish": (
        refused(lambda m: m.add("Mul", at := image(m), m.add("Sigmoid", at))),
        r"\(Sigmoid\): a smooth function.*train again with Relu",
    ),
    "hard swish": (strange("HardSwish"), r"\(HardSwish\): both factors come from the input"),
    "gate": (refused(gated), r"\(Mul\): both factors come from the input.*squeeze-and-excitation"),
    "gelu": (refused(lambda m: m.add("Gelu", image(m)), opset=20), r"\(Gelu\): a smooth function"),
    "elu": (strange("Elu"), r"\(Elu\): a smooth function"),
    "exp": (strange("Exp"), r"\(Exp\): a smooth function"),
    "LRN": (strange("LRN", size=3), r"\(LRN\): local response.*replace=\('LRN',\)"),
    "attention": (
        refused(
            lambda m: m.add("MatMul", at := image(m), m.add("Transpose", at, perm=[0, 1, 3, 2]))
        ),
        r"\(MatMul\): its matrix depends on the input.*attention",
    ),
    "softmax inside": (
        refused(lambda m: m.conv(m.add("Softmax", image(m), axis=1), 6, 2)),
        r"\(Softmax\): belongs to a network's end",
    ),
    "transposed convolution": (
        refused(lambda m: m.add("ConvTranspose", image(m), m.random(6, 2, 3, 3))),
        r"\(ConvTranspose\): makes images larger",
    ),
    "resize": (
        refused(lambda m: m.add("Resize", image(m), "", m.constant([1.0, 1, 2, 2]))),
        r"\(Resize\): makes images larger",
    ),
    "instance norm": (
        refused(lambda m: m.add("InstanceNormalization", image(m), m.random(6), m.random(6))),
        r"\(InstanceNormalization\): normalises by what the input has",
    ),
    "layer norm": (
        strange("LayerNormalization", ([1.0] * 6,)),
        r"\(LayerNormalization\): normalises by",
    ),
    "LSTM": (
        refused(
            lambda m: m.add(
                "LSTM",
                m.add("Squeeze", image(m), m.whole(0)),
                m.random(1, 8, 6),
                m.random(1, 8, 2),
                hidden_size=2,
                outputs=3,
            )[0]
        ),
        r"\(LSTM\): a state over",
    ),
    "branch": (refused(looped), r"\(If\): control flow"),
    "3-D": (
        refused(
            lambda m: m.add(
                "Conv", m.add("Unsqueeze", image(m), m.whole(2)), m.random(2, 6, 1, 3, 3)
            )
        ),
        r"\(Conv\): a kernel \(2, 6, 1, 3, 3\).*over 1 or 2 sides",
    ),
    "kernel of the input's": (
        refused(lambda m: m.add("Conv", image(m), image(m))),
        r"\(Conv\): its kernel depends on the input",
    ),
    "infinite weights": (refused(infinite), r"\(Conv\): its kernel has values that are no finite"),
    "sum over channels": (strange("ReduceMean", axes=[1]), r"\(ReduceMean\): over the axes \(1,\)"),
    "product of all": (
        strange("ReduceProd", axes=[2, 3]),
        r"\(ReduceProd\): no average or maximum",
    ),
    "a constant for every pixel": (
        refused(lambda m: m.add("Add", image(m), m.random(7, 6))),
        r"\(Add\): a constant for every pixel",
    ),
    "a slope for every pixel": (
        refused(lambda m: m.add("PRelu", image(m), m.random(7, 6))),
        r"\(PRelu\): a constant for every pixel",
    ),
    "a window over a vector": (
        refused(lambda m: m.conv(m.add("Reshape", image(m), m.whole(1, 252, 1, 1)), 252, 2)),
        r"\(Conv\): a window over what is a vector",
    ),
    "larger by a constant": (
        refused(lambda m: m.add("Add", m.add("GlobalAveragePool", image(m)), m.random(7, 6))),
        r"\(Add\): a constant of \(7, 6\) does not fit",
    ),
    "sums of two shapes": (
        refused(lambda m: m.add("Add", at := image(m), m.add("GlobalAveragePool", at))),
        r"\(Add\): two tensors of one shape expected",
    ),
    "division by it": (
        refused(lambda m: m.add("Div", m.constant(1.0), image(m))),
        r"\(Div\): divides a constant by the input's",
    ),
    "division by 0": (strange("Div", (0.0,)), r"\(Div\): divides by 0"),
    "reflected": (
        strange("Pad", ints(0, 0, 1, 1, 0, 0, 1, 1), mode="reflect"),
        r"\(Pad\): padding by 'reflect'",
    ),
    "padded with ones": (
        strange("Pad", ints(0, 0, 1, 1, 0, 0, 1, 1), (1.0,)),
        r"\(Pad\): padding with 1",
    ),
    "cropped": (
        strange("Pad", ints(0, 0, -1, 0, 0, 0, 0, 0)),
        r"\(Pad\): margins below 0.*crop before",
    ),
    "rows cut out": (
        refused(
            lambda m: m.conv(m.add("Slice", image(m), m.whole(1), m.whole(5), m.whole(2)), 6, 2)
        ),
        r"\(Conv\): reads .* whose rows or columns were moved",
    ),
    "nothing left": (strange("Slice", ints(5), ints(5), ints(1)), r"\(Slice\): nothing is left"),
    "places of maxima": (
        refused(lambda m: m.add("MaxPool", image(m), kernel_shape=[2, 2], outputs=2)[0]),
        r"\(MaxPool\): the places of the largest",
    ),
    "gaps in a pool": (
        strange("MaxPool", kernel_shape=[2, 2], dilations=[2, 2]),
        r"\(MaxPool\): windows with gaps",
    ),
    "ceil and counted": (
        strange(
            "AveragePool", kernel_shape=[2, 2], strides=[2, 4], ceil_mode=1, count_include_pad=1
        ),
        r"\(AveragePool\): its last windows reach over",
    ),
    "a choice": (
        refused(
            lambda m: m.add("Where", m.add("Greater", at := image(m), m.constant(0.0)), at, at)
        ),
        r"\(Greater\): a choice by private values",
    ),
    "rounded": (strange("Round"), r"\(Round\): compose it"),
    "cast to integers": (strange("Cast", to=TensorProto.INT32), r"\(Cast\): casts to integers"),
    "random": (strange("RandomNormalLike"), r"\(RandomNormalLike\): draws numbers"),
    "dropout in training": (
        refused(lambda m: m.add("Dropout", image(m), m.constant(0.5), m.constant(True, np.bool_))),
        r"\(Dropout\): a dropout in training mode",
    ),
    "norm in training": (
        refused(
            lambda m: m.add(
                "BatchNormalization",
                image(m),
                *(m.random(6) for _ in range(4)),
                training_mode=1,
                outputs=3,
            )[0]
        ),
        r"\(BatchNormalization\): a batch norm in training mode",
    ),
    "empty clip": (strange("Clip", (2.0,), (1.0,)), r"\(Clip\): a clip to \[2, 1\]"),
    "whole-number tensors": (
        refused(lambda m: m.add("DynamicQuantizeLinear", image(m), outputs=3)[0]),
        r"\(DynamicQuantizeLinear\): Flatten reads its whole numbers",
    ),
    "many dense rows": (
        refused(lambda m: m.add("MatMul", image(m), m.random(6, 2))),
        r"\(MatMul\): multiplies \(1, 6, 7, 6\).*1x1 convolution",
    ),
    "channels that are not there": (
        refused(lambda m: m.conv(image(m), 5, 2)),
        r"\(Conv\): its kernel reads 5",
    ),
    "an image for an answer": (_open, r"its output is of shape \(1, 6, 7, 6\)"),
    "another system's operator": (
        refused(lambda m: m.add("Fused", image(m), domain="com.microsoft")),
        r"fused1 \(Fused\): operators of com.microsoft",
    ),
    "two inputs": (simple(inputs=["x", "y"]), r"one input expected, the picture; got 2: x, y"),
    "no size": (simple(shape=(1, 4, "h", "w")), r"'x': its shape is not known.*input_shape"),
    "five sides": (
        simple(shape=(1, 4, 7, 6, 2)),
        r"'x': a picture .* expected, got \(1, 4, 7, 6, 2\)",
    ),
    "a batch": (
        simple(shape=(8, 4, 7, 6)),
        r"'x': one picture at a time expected, got a batch of 8",
    ),
    "integers": (simple(kind=TensorProto.UINT8), r"'x': an input of floats expected, got UINT8"),
    "a huge image": (simple(shape=(1, 4, 1 << 14, 1 << 14)), r"rows, columns and channels"),
    "old": (simple(opset=6), rf"opset 6: {OPSETS[0]} to {OPSETS[1]} are known"),
    "new": (simple(opset=99), r"opset 99"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_imported_is_refused_by_name(name):
    model, said = REFUSED[name]
    with pytest.raises((GraphError, CheckpointError), match=said):
        read_onnx(model())


def test_what_the_caller_asks_for_must_be_there():
    made = Sketch()
    at = image(made)
    model = made.model([made.head(at, 252), made.head(at, 252)])
    with pytest.raises(GraphError, match=r"one output expected, got t\d+a, t\d+a: choose one"):
        read_onnx(model)
    check_agreement(read_onnx(model, output=made.nodes[2].output[0]))
    with pytest.raises(GraphError, match="output 'nowhere' is made by no node"):
        read_onnx(model, output="nowhere")
    with pytest.raises(GraphError, match="replace: LRN can be replaced, got Softmax"):
        read_onnx(model, replace=("Softmax",))
    with pytest.raises(GraphError, match=r"'x': a shape of 4 sides expected, got \(1, 4\)"):
        read_onnx(model, output=made.nodes[2].output[0], input_shape=(1, 4))
    constant = Sketch()
    with pytest.raises(GraphError, match="does not depend on its input"):
        read_onnx(constant.model(constant.add("Identity", constant.random(1, 5))))


BESIDE = [
    ({"location": "../secret.bin"}, "outside of the model's folder"),
    ({"location": "/etc/passwd"}, "outside of the model's folder"),
    ({"location": "link.bin"}, "outside of the model's folder"),
    ({"location": "missing.bin"}, "cannot be read"),
    (
        {"location": "weights.bin", "offset": "8"},
        "864 bytes expected in 'weights.bin', which has 864",
    ),
    ({"location": "weights.bin", "length": "12"}, "864 bytes expected"),
    ({"location": "weights.bin", "offset": "-4"}, "864 bytes expected"),
    ({"location": "weights.bin", "offset": "x"}, "864 bytes expected"),
]


def kept_apart(folder, info):
    """A model whose first weights lie in another file; what they are."""
    made = Sketch()
    model = made.model(made.head(image(made), 252))
    tensor = model.graph.initializer[0]
    weights = numpy_helper.to_array(tensor).tobytes()
    (folder / "weights.bin").write_bytes(weights)
    (folder.parent / "secret.bin").write_bytes(weights)
    (folder / "link.bin").symlink_to(folder.parent / "secret.bin")
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in info.items():
        tensor.external_data.add(key=key, value=value)
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return path, model


@pytest.mark.parametrize(("info", "said"), BESIDE)
def test_weights_beside_a_model_stay_in_its_folder(tmp_path, info, said):
    folder = tmp_path / "model"
    folder.mkdir()
    path, _ = kept_apart(folder, info)

    with pytest.raises(CheckpointError, match=said):
        read_onnx(path)


def test_weights_beside_a_model_are_read(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    path, model = kept_apart(folder, {"location": "weights.bin"})

    check_agreement(net := read_onnx(path))
    assert net.source["file"] == "model.onnx" and len(net.source["sha256"]) == 64
    with pytest.raises(CheckpointError, match="read the model by its path"):
        read_onnx(model)


def test_files_that_are_none_are_said_to_be(tmp_path):
    whole = NETWORKS["lenet"](13).SerializeToString()
    for name, raw in {"text": b"no model", "empty": b"", "cut": whole[: len(whole) // 2]}.items():
        (tmp_path / name).write_bytes(raw)
        with pytest.raises(CheckpointError):
            read_onnx(tmp_path / name)
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_onnx(tmp_path / "missing")
    with pytest.raises(CheckpointError, match="a file expected, got a folder"):
        read_onnx(tmp_path)


def test_files_with_any_byte_changed_are_read_or_refused(tmp_path):
    """Nothing but our own errors comes out of a damaged file."""
    whole = NETWORKS["branched"](13).SerializeToString()
    rng = np.random.default_rng(0)
    refusals = 0
    for _ in range(60):
        raw = bytearray(whole)
        for at in rng.integers(0, len(raw), 3):
            raw[at] = rng.integers(256)
        (tmp_path / "model.onnx").write_bytes(raw)
        try:
            read_onnx(tmp_path / "model.onnx")
        except (CheckpointError, GraphError):
            refusals += 1
    assert refusals > 5


def bombs():
    """Constants that would fill the memory."""
    made = Sketch()
    ones = made.add("ConstantOfShape", made.whole(1 << 20, 1 << 20))
    yield made.model(made.add("Add", image(made), ones)), r"\(ConstantOfShape\): at most"
    made = Sketch()
    row, column = (made.constant(np.zeros(shape)) for shape in ((1 << 17, 1), (1, 1 << 17)))
    yield (
        made.model(made.add("Add", image(made), made.add("Add", row, column))),
        r"\(Add\): at most",
    )
    made = Sketch()
    wide = made.add("Tile", made.constant([1.0]), made.whole(1 << 40))
    yield made.model(made.add("Add", image(made), wide)), r"\(Tile\): at most"
    made = Sketch()
    made.constants.append(TensorProto(name="w", dims=[1 << 20, 1 << 20], data_type=1))
    yield made.model(made.add("Add", image(made), "w")), "weights expected"
    made = Sketch()
    made.constants.append(TensorProto(name="w", dims=[-1, 4], data_type=1))
    yield made.model(made.add("Add", image(made), "w")), "below 0"


def test_constants_are_bounded():
    for model, said in bombs():
        with pytest.raises((GraphError, CheckpointError), match=said):
            read_onnx(model)
