"""What is computed: the integer network, its meaning, its checks and its files."""

from pqjax.graph.files import load_model, save_model
from pqjax.graph.ir import (
    Add,
    ArgMax,
    AvgPool,
    Clamp,
    Concat,
    Conv,
    Dense,
    Extend,
    Flatten,
    Graph,
    Input,
    Linear,
    MaxPool,
    Narrow,
    Node,
    Pad,
    Relu,
    Requantize,
    ScaleUp,
    Subsample,
    TensorType,
    Truncate,
    TruncateReduce,
    Weights,
)
from pqjax.graph.nodes import Widths
from pqjax.graph.overflow import may_overflow, overflowing, wrap_rates
from pqjax.graph.reference import check_input, every_value, reference
from pqjax.graph.steps import Rule
from pqjax.graph.tensor import Rounding, width_for
from pqjax.graph.validate import reach, validate
