"""ONNX operators that are not imported: why not, and the nearest thing that is."""

from __future__ import annotations

import re

_WHY = {
    "LRN": "local response normalisation divides by a sum of squares; replace=('LRN',) leaves it out, "
    "and what is compared then is the model without it",
    "Sigmoid|Tanh|Elu|Selu|Celu|Gelu|Mish|Softplus|Softsign|Erf|Exp|Log|Sqrt|Swish|Pow|Reciprocal|Sin"
    "|Cos": "a smooth function: comparisons alone are exact here; train again with Relu or Clip (ReLU6)",
    "HardSwish|SwiGLU": "both factors come from the input; train again with Relu or Clip (ReLU6)",
    "Softmax|LogSoftmax|ArgMax|Hardmax|TopK": "belongs to a network's end, where the client does it in "
    "the clear; inside of one it is not imported",
    "ConvTranspose|Resize|Upsample|MaxUnpool|DeformConv|GridSample|Col2Im": "makes images larger: "
    "networks that answer with a vector need none; resize before the network",
    "(Instance|Layer|Group|RMS|Lp|MeanVariance)Normalization": "normalises by what the input has, which "
    "is private; batch norm, whose statistics are fixed, folds away",
    "RNN|LSTM|GRU|Scan|CumSum": "a state over time steps; use convolutions over time",
    ".*Attention|Einsum": "products of two of the input's tensors; use convolutions",
    "QLinear.*|ConvInteger|MatMulInteger|DynamicQuantizeLinear": "an operator of whole-number tensors "
    "(QOperator format); export in QDQ format instead",
    "If|Loop|Sequence.*|Optional.*": "control flow; export by tracing, so that one branch is left",
    "Abs|Sign|Floor|Ceil|Round|Mod|ThresholdedRelu|Shrink": "compose it of Relu, Add and constants: |x| "
    "is relu(x) + relu(-x)",
    "Reduce.*": "no average or maximum over rows and columns; use ReduceMean or ReduceMax over these",
    "Equal|Greater.*|Less.*|And|Or|Not|Xor|Where": "a choice by private values; Relu, Clip and MaxPool "
    "are the comparisons that are imported",
    "Random.*|Bernoulli|Multinomial": "draws numbers; export the model in inference mode (eval)",
    "NonMaxSuppression|RoiAlign|MaxRoiPool|NonZero|Compress|Unique": "makes as many results as the "
    "input's values say; stop the model before it (output=): the client does it in the clear",
}


def why_not(kind: str) -> str:
    """Of an operator that no table has."""
    for names, text in _WHY.items():
        if re.fullmatch(names, kind):
            return text
    return "no rule for this operator; convolutions, pools, ReLUs, sums and affines are imported"
