"""Kinds of layers that other systems have and a graph has not, and what to do instead."""

import re

_SMOOTH = "only comparisons are exact: use Relu (with Clamp for ReLU6) and train again"
_FOLDED = "fold it into the convolution or dense layer before it (nets/fold.py)"
_SHARES = (
    "both factors would be secret: Product has sums of products, of matrices, and nothing else"
)
_LARGER = (
    "no node but Pad makes a tensor larger: upsample before the Input, or convolve at that size"
)
_INSTEAD = {
    ".*relu|.*elu|silu|.*swish|mish|softplus|tanh|.*sigmoid|erf": _SMOOTH,
    "relu6|hardtanh|clip": "use Relu, then Clamp from 0 to 6 * 2^scale",
    "batchnorm.*|bn|scale|bias|biasadd": _FOLDED,
    "layernorm.*|groupnorm|instancenorm.*|rmsnorm": "use batch norm, which folds away (nets/fold.py)",
    "convtranspose.*|deconv.*|upsampl.*|resize|pixelshuffle|interpolate": _LARGER,
    "gemm|matmul|linear|fc|fullyconnected|innerproduct": "use Dense, of weights that the server has",
    "conv[123]d|depthwiseconv.*|convolution": "use Conv, with groups for depthwise ones, on (H, W, C)",
    "mul|multiply|div|pow|attention|multiheadattention|einsum": _SHARES,
    "softmax|logsoftmax": "leave it out: the client has the logits; or ArgMax for the class alone",
    "sub": "negate the weights before it, then Add",
    "globalaveragepool|globalavgpool|reducemean|mean": "use AvgPool with the window of the whole image",
    "averagepool|meanpool": "use AvgPool",
    "globalmaxpool": "use MaxPool with the window of the whole image",
    "reshape|view|squeeze|unsqueeze": "use Flatten before Dense; other shapes stay as they are",
    "dropout|identity": "leave it out: it does nothing in inference",
    "cat|concatenate": "use Concat",
    "quantize.*|dequantize.*|fakequant.*": "use Requantize; formats carry their scales",
}


def instead(kind: str) -> str | None:
    """What to do about a kind that is not known here, if it is one of these."""
    plain = re.sub(r"[^a-z0-9]", "", kind[:64].lower())
    return next((text for names, text in _INSTEAD.items() if re.fullmatch(names, plain)), None)
