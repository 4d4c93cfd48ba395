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
    Product,
    Relu,
    Requantize,
    Saturate,
    ScaleUp,
    Subsample,
    Take,
    TensorType,
    Truncate,
    TruncateReduce,
    Weights,
)
from pqjax.graph.norms import with_norms
from pqjax.graph.overflow import may_overflow, overflowing, wrap_rates
from pqjax.graph.reference import every_value, reference
from pqjax.graph.steps import Rule
from pqjax.graph.tensor import width_for
from pqjax.graph.validate import reach, validate
