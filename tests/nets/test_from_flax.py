"""Models of flax and Keras, from their own code to answers of two parties."""

import functools
import importlib.util
import sys
import zipfile

import flax_models
import numpy as np
import pytest
from students import exported

from nets.data import integer_input
from nets.folded import FoldedNet
from nets.importing.flax import from_flax
from nets.importing.imported import Imported, Pixels
from nets.importing.keras import _keras, from_keras
from nets.ops import Conv, Dense
from nets.ptq import Recipe, quantized
from nets.quantized import Widths
from pqjax import plan, run_local
from pqjax.errors import CheckpointError, GraphError
from pqjax.graph import reference

EXAMPLE = np.zeros((1, 12, 12, 3), np.float32)


def pixels_of(channels):
    return Pixels((120.0,) * channels, (64.0,) * channels)


@functools.cache
def network(model_class) -> Imported:
    shape = flax_models.NNX[model_class]
    pixels = None if model_class is flax_models.LeNet else pixels_of(shape[-1])
    return from_flax(flax_models.drawn(model_class), np.zeros((1, *shape)), pixels=pixels)


def pictures(net, count=16):
    image = net.architecture.image
    rng = np.random.default_rng(0)
    colour = rng.integers(0, 256, (count, 1, 1, image[2]))
    return ((colour + rng.integers(0, 256, (count, *image))) // 2).astype(np.int64)


def check_quantized(net):
    """W8A8 answers what floats do, as near as that is; returns graph, weights and pictures."""
    x = integer_input((shown := pictures(net)).astype(np.uint8), net.architecture.zero)
    widths = Widths.parse("W8A8R10", net.architecture)
    folded = FoldedNet.of(net.architecture, net.of_integers())
    student = quantized(folded, widths, x, Recipe(images=16, pool=16))
    graph, weights, answers = exported(student, x)
    assert net.runtime is not None
    wanted = net.runtime(net.pixels.real(shown))
    found = answers * 2.0**-graph.output.out.scale
    off = np.sqrt(np.square(found - wanted).mean() / np.square(wanted - wanted.mean(0)).mean())
    assert off < 0.35
    return graph, weights, x


HEADS = {
    flax_models.LeNet: "log_softmax", flax_models.Branches: "softmax", flax_models.Sound: "sigmoid",
    flax_models.Perceptron: "argmax",
}  # fmt: skip


LARGER = (flax_models.Vgg, flax_models.Branches)


@pytest.mark.parametrize(
    "model_class",
    [
        pytest.param(each, marks=pytest.mark.slow if each in LARGER else ())
        for each in flax_models.NNX
    ],
    ids=lambda each: each.__name__,
)
def test_models_come_in_with_their_heads_left_out(model_class):
    net = network(model_class)

    assert net.source.get("head") == HEADS.get(model_class)
    assert net.architecture.name == model_class.__name__.lower()
    assert net.source["model"] == model_class.__name__ and len(net.source["sha256"]) == 64


@pytest.mark.slow
def test_norms_of_many_layers_cost_none():
    layers = network(flax_models.Vgg).architecture.layers

    assert [op.kind for op in layers] == ["Conv"] * 4 + ["Dense"] * 2


def test_norms_and_rescaling_cost_no_layer():
    lenet = network(flax_models.LeNet)

    assert [op.kind for op in lenet.architecture.layers] == ["Conv"] * 2 + ["Dense"] * 3
    np.testing.assert_allclose((lenet.pixels.mean, lenet.pixels.std), ((0.0,), (255.0,)), rtol=1e-6)
    mobile = network(flax_models.Mobile).architecture
    assert [getattr(op, "groups", 0) for op in mobile.layers] == [1, 1, 12, 1, 1]


@pytest.mark.slow
def test_a_norm_without_a_layer_is_a_depthwise_one():
    layers = network(flax_models.Branches).architecture.layers

    assert [op.channels for op in layers if isinstance(op, Conv) and op.groups > 1] == [16]
    assert isinstance(layers[-1], Dense)


def test_signals_are_images_of_one_row():
    net = network(flax_models.Sound)

    assert net.architecture.image == (1, 40, 2)
    assert [op.window for op in net.architecture.layers if isinstance(op, Conv)] == [(1, 5), (1, 3)]


def test_the_model_stays_in_training_mode():
    model = flax_models.drawn(flax_models.Vgg)

    from_flax(model, EXAMPLE)

    assert not model.dropout.deterministic and not model.norm.use_running_average


def test_linen_modules_come_with_their_variables():
    net = from_flax(flax_models.drawn_linen(EXAMPLE), EXAMPLE, pixels=pixels_of(3))

    kinds = [op.kind for op in net.architecture.ops]
    assert kinds == ["Conv", "Relu", "AvgPool", "Flatten", "Dense", "Relu", "Dense"]
    with pytest.raises(GraphError, match="cannot be traced.*batch_stats"):
        from_flax(flax_models.drawn_linen(EXAMPLE), EXAMPLE, train=True)
    with pytest.raises(GraphError, match="a module of flax.nnx, or .* expected, got int"):
        from_flax(3, EXAMPLE)  # pyright: ignore[reportArgumentType]


@pytest.mark.slow
@pytest.mark.parametrize(
    "model_class",
    [each for each in flax_models.NNX if each is not flax_models.Perceptron],  # see below
    ids=lambda each: each.__name__,
)
def test_models_are_quantized_and_exported(model_class):
    check_quantized(network(model_class))


@pytest.mark.slow
def test_linen_modules_are_quantized_and_exported():
    check_quantized(from_flax(flax_models.drawn_linen(EXAMPLE), EXAMPLE, pixels=pixels_of(3)))


@pytest.mark.slow  # from there on all imported networks go one way: test_import_command's answers, too
def test_two_parties_answer_for_a_flax_model():
    graph, weights, x = check_quantized(network(flax_models.Perceptron))

    made = plan(graph)
    got = run_local(made, weights, x[0])

    np.testing.assert_array_equal(got.output, reference(graph, weights, x[:1])[0])
    assert made.differences(got.trace, rank=1) == []


# Keras.

KERAS = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy:DeprecationWarning"
)


@pytest.fixture(scope="module")
def keras():
    if importlib.util.find_spec("keras") is None:
        pytest.skip("keras is not installed")
    return _keras()


def keras_model(keras, image=(12, 12, 3)):
    layers = keras.layers
    keras.utils.set_random_seed(0)
    return keras.Sequential([
        keras.Input(image), layers.Rescaling(1 / 127.5, -1.0), layers.ZeroPadding2D(1),
        layers.Conv2D(6, 3, strides=2, use_bias=False), layers.BatchNormalization(), layers.ReLU(6.0),
        layers.SeparableConv2D(8, 3, padding="same", activation="relu"), layers.MaxPooling2D(),
        layers.GlobalAveragePooling2D(), layers.Dropout(0.5), layers.Dense(4, activation="softmax"),
    ], name="little")  # fmt: skip


@pytest.mark.slow  # Keras's import takes seconds in each process
@KERAS
def test_keras_files_come_in(keras, tmp_path):
    keras_model(keras).save(tmp_path / "little.keras")

    net = from_keras(tmp_path / "little.keras", classes=("a", "b", "c", "d"))

    kinds = [op.kind for op in net.architecture.ops]
    assert kinds == [
        "Conv",
        "Relu",
        "Conv",
        "Conv",
        "Relu",
        "MaxPool",
        "GlobalAverage",
        "Flatten",
        "Dense",
    ]
    np.testing.assert_allclose((net.pixels.mean, net.pixels.std), 127.5, rtol=1e-5)
    assert net.source["file"] == "little.keras" and net.source["head"] == "softmax"
    assert net.architecture.name == "little" and net.classes == ("a", "b", "c", "d")


@pytest.mark.slow
@KERAS
def test_keras_models_are_quantized_and_exported(keras):
    check_quantized(from_keras(keras_model(keras)))


@pytest.mark.slow
@KERAS
def test_keras_files_that_cannot_be_read_are_refused(keras, tmp_path):
    layers = keras.layers
    path = tmp_path / "model.keras"

    def refused(error, match, model=path, **options):
        with pytest.raises(error, match=match):
            from_keras(model, **options)

    refused(CheckpointError, "no `.keras` file: FileNotFoundError")
    path.write_bytes(b"no archive")
    refused(CheckpointError, "no `.keras` file: BadZipFile")
    refused(CheckpointError, "the old format is not read", tmp_path / "model.h5")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model.weights.h5", b"")
    refused(CheckpointError, "no `.keras` file: KeyError")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("config.json", "{}")
    refused(CheckpointError, "Keras does not read it")
    keras.Sequential([keras.Input((4,)), layers.Lambda(lambda x: x), layers.Dense(2)]).save(path)
    refused(CheckpointError, "without Lambda layers expected")
    small = keras.Sequential([keras.Input((None, None, 3)), layers.GlobalAveragePooling2D(),
                              layers.Dense(2)])  # fmt: skip
    refused(GraphError, "reads any size .*image=", small)
    assert from_keras(small, image=(4, 5, 3)).architecture.image == (4, 5, 3)
    two = keras.Model(ins := [keras.Input((4,)), keras.Input((4,))], layers.Add()(ins))
    refused(GraphError, "a Keras model with one input expected", two)
    refused(GraphError, "a Keras model with one input expected, got int", 3)


@pytest.mark.slow
def test_keras_on_another_backend_is_pointed_to_onnx(keras, monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "tensorflow")
    with pytest.raises(GraphError, match="runs on tensorflow.*ONNX"):
        from_keras("x.keras")
    monkeypatch.setitem(sys.modules, "keras", None)
    with pytest.raises(GraphError, match=r"Keras is not installed: pip install pqjax\[keras\]"):
        from_keras("x.keras")
