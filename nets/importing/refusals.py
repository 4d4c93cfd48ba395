"""Operators of ONNX and primitives of JAX that are not imported: why not, and what is in their place."""

from __future__ import annotations

import re

AT_THE_END = (
    "at the end of a network softmax, log_softmax, sigmoid and argmax are left to the client"
)
BY_PIXEL = (
    "a constant for every pixel: constants that differ by row or column (a position's embedding, a "
    "mask); one for each channel, or for all, expected"
)
CHOICE = (
    "a choice by private values: it chooses between values by what they are (hard swish, masks); of "
    "such only max(x, 0), min(x, cap) and leaky ReLUs can be done; write nnx.relu, nnx.relu6, "
    "nnx.leaky_relu or jnp.clip(x, 0, cap), in ONNX Relu, Clip and LeakyRelu"
)
GATE = (
    "both factors come from the input, two tensors are multiplied (SiLU, gates, squeeze-and-excitation, "
    "attention): layers multiply by constants alone; leave the gate out, or train with ReLU"
)
MOMENTS = (
    "normalises by what the input has, which is private (a layer, group or instance norm, or a batch "
    "norm that takes statistics of its own batch): use batch norm with running averages (model.eval(), "
    "use_running_average=True), which folds away"
)
_NO_RULE = (
    "no operation here does this; convolutions, dense layers, norms with running averages, ReLUs, "
    "pools, sums, concatenations, affines and reshapes can be read"
)

# By patterns of whole names.
_WHY = {
    "LRN": "local response normalisation divides by a sum of squares; replace=('LRN',) leaves it out, "
    "and what is compared then is the model without it",
    "Sigmoid|Tanh|Elu|Selu|Celu|Gelu|Mish|Softplus|Softsign|Erf|Exp|Log|Sqrt|Swish|Pow|Reciprocal|Sin"
    "|Cos|exp2?|log(1p)?|expm1|tanh|logistic|erfc?|erf_inv|r?sqrt|cbrt|pow|sin|cos|tan|atan2|sinh"
    "|cosh": "a smooth function of a tensor (SiLU, GELU, ELU, softmax inside), where comparisons alone "
    f"are exact: train again with Relu or Clip (ReLU6); {AT_THE_END}",
    "HardSwish|SwiGLU": GATE,
    "Softmax|LogSoftmax|ArgMax|Hardmax|TopK|argmax|argmin|sort|top_k|reduce_min|reduce_prod"
    "|reduce_window_min": "belongs to a network's end, values are ranked: only max pools and ReLUs can "
    f"compare; {AT_THE_END}",
    "ConvTranspose|Resize|Upsample|MaxUnpool|DeformConv|GridSample|Col2Im": "makes images larger: "
    "networks that answer with a vector need none; resize before the network",
    "(Instance|Layer|Group|RMS|Lp|MeanVariance)Normalization|square|integer_pow": MOMENTS,
    "RNN|LSTM|GRU|Scan|CumSum|scan|cumsum|cumprod|cummax|cumlogsumexp": "a state over time steps "
    "(recurrent networks): use convolutions over time; loops over layers of known weights are unrolled",
    "If|Loop|Sequence.*|Optional.*|while|cond": "control flow, a loop or a choice that depends on the "
    "input: write the layers out, or export by tracing, so that one branch is left",
    ".*Attention|Einsum": GATE,
    "Abs|Sign|Floor|Ceil|Round|Mod|ThresholdedRelu|Shrink|abs|sign|floor|ceil|round": "compose it of "
    "ReLUs, sums and constants: |x| is relu(x) + relu(-x)",
    "Reduce.*": "no average or maximum over rows and columns; use ReduceMean or ReduceMax over these",
    "Equal|Greater.*|Less.*|And|Or|Not|Xor|Where|eq|ne|and|or|not": CHOICE,
    "Random.*|Bernoulli|Multinomial|random_.*|rng_.*|threefry.*": "draws numbers at random: turn "
    "dropout and noise off (model.eval(), deterministic=True, training=False); export in inference mode",
    "NonMaxSuppression|RoiAlign|MaxRoiPool|NonZero|Compress|Unique": "makes as many results as the "
    "input's values say; stop the model before it (output=): the client does it in the clear",
}


def why_not(kind: str) -> str:
    """Of an operator or primitive that no table has."""
    return next((text for names, text in _WHY.items() if re.fullmatch(names, kind)), _NO_RULE)
