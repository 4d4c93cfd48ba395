"""What is computed: the integer network, its meaning, its checks and its files."""

from pqjax.graph.files import load_model, save_model
from pqjax.graph.ir import (
    Add,
    ArgMax,
    AvgPool,
    Conv,
    Dense,
    Flatten,
    Graph,
    Input,
    MaxPool,
    Node,
    Relu,
    Requantize,
    Rule,
    TensorType,
    Weights,
    Widths,
)
from pqjax.graph.reference import check_input, every_value, reference
from pqjax.graph.validate import reach, validate, width_for, wrap_rates

__all__ = [
    "Add", "ArgMax", "AvgPool", "Conv", "Dense", "Flatten", "Graph", "Input", "MaxPool", "Node",
    "Relu", "Requantize", "Rule", "TensorType", "Weights", "Widths", "check_input", "every_value",
    "load_model", "reach", "reference", "save_model", "validate", "width_for", "wrap_rates",
]  # fmt: skip
