"""Quantized models in QOperator format, as onnxruntime's quantizer writes them, and by hand."""

import numpy as np
import pytest
from onnx_models import NETWORKS, Sketch
from onnxruntime.quantization import QuantFormat, QuantType, quantize_dynamic, quantize_static
from onnxruntime.quantization.calibrate import CalibrationDataReader

from nets.importing.agreement import check_agreement, difference, random_inputs
from nets.importing.onnx import read_onnx
from pqjax.errors import GraphError


class Pictures(CalibrationDataReader):
    """Four random inputs to calibrate on."""

    def __init__(self, net):
        x = random_inputs(net, 4)
        self.left = [{"x": np.moveaxis(each[None], 3, 1)} for each in x]

    def get_next(self):
        return self.left.pop() if self.left else None


def statically(model, path, **options):
    quantize_static(model, path, Pictures(read_onnx(model)), **options)


def rounded_like_its_source(net):
    """The float network's class is what the source says with all its rounding, nearly always."""
    x = random_inputs(net, 8)
    ours, theirs = net.outputs(x), net.rounding(x)
    if not np.allclose(theirs.sum(1), 1, atol=0.1):  # logits
        assert difference(ours, theirs) < 0.25
    assert (ours.argmax(1) == theirs.argmax(1)).mean() >= 0.5


@pytest.mark.parametrize("form", [QuantFormat.QOperator, QuantFormat.QDQ], ids=lambda f: f.name)
@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("name", NETWORKS)
def test_statically_quantized_models_of_both_formats_are_read(name, per_channel, form, tmp_path):
    path = tmp_path / "model.onnx"
    statically(NETWORKS[name](13), path, quant_format=form, per_channel=per_channel)

    net = read_onnx(path)

    check_agreement(net, random_inputs(net, 3))
    assert ("operators" in net.source) == (form is QuantFormat.QOperator)
    assert "grids" in net.source
    rounded_like_its_source(net)


@pytest.mark.parametrize("weights", [QuantType.QUInt8, QuantType.QInt8])
@pytest.mark.parametrize("name", NETWORKS)
def test_dynamically_quantized_models_are_read(name, weights, tmp_path):
    path = tmp_path / "model.onnx"
    quantize_dynamic(NETWORKS[name](13), path, weight_type=weights)

    net = read_onnx(path)

    check_agreement(net, random_inputs(net, 3))
    assert "operators" in net.source and "grids" not in net.source
    rounded_like_its_source(net)


def put_on_grid(made, x, scale=0.05, zero=128):
    grid = made.constant(scale), made.constant(zero, np.uint8)
    return made.add("QuantizeLinear", x, *grid), grid


def closed(made, whole, grid):
    at = made.add("Flatten", made.add("DequantizeLinear", whole, *grid))
    return made.gemm(at, read_onnx(made.model(at)).architecture.classes, 5)


def product(made):
    x, grid = put_on_grid(made, made.conv("x", 4, 6))
    return made.add("QLinearMul", x, *grid, x, *grid, *grid, domain="com.microsoft"), grid


def integer_of_a_fixed_grid(made):
    x, grid = put_on_grid(made, "x")
    weights = made.constant(np.ones((2, 4, 3, 3)), np.int8)
    return made.add("Cast", made.add("ConvInteger", x, weights, grid[1]), to=1), grid


def scale_of_the_input(made):
    x, grid = put_on_grid(made, "x")
    scale = made.add("ReduceMax", made.add("Flatten", "x"), keepdims=0)
    weights = made.constant(np.ones((2, 4, 3, 3)), np.int8)
    unit = made.constant(0.1), made.constant(0, np.int8)
    return made.add("QLinearConv", x, scale, grid[1], weights, *unit, *grid), grid


def rows_before_channels(made):
    x, grid = put_on_grid(made, made.conv("x", 4, 6))
    name = "QLinearGlobalAveragePool"
    return made.add(name, x, *grid, *grid, domain="com.microsoft", channels_last=1), grid


def another(made):
    x, grid = put_on_grid(made, made.conv("x", 4, 6))
    return made.add("QLinearReduceMean", x, *grid, *grid, domain="com.microsoft"), grid


@pytest.mark.parametrize(
    "write, text",
    [
        (product, "both factors come from the input"),
        (integer_of_a_fixed_grid, r"\(ConvInteger\): of what DynamicQuantizeLinear makes"),
        (scale_of_the_input, r"\(QLinearConv\): its scale depends on the input"),
        (rows_before_channels, r"\(QLinearGlobalAveragePool\): channels_last"),
        (another, r"\(QLinearReduceMean\): operators of com.microsoft"),
    ],
    ids=lambda each: getattr(each, "__name__", "text"),
)
def test_what_cannot_be_written_out_is_refused_by_name(write, text):
    made = Sketch()

    with pytest.raises(GraphError, match=text):
        read_onnx(made.model(closed(made, *write(made))))
