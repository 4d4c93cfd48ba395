"""ONNX models as tests write them: node by node, with random weights."""

import numpy as np
from onnx import TensorProto, helper, numpy_helper


class Sketch:
    """A model that grows; every method returns the name of a tensor."""

    def __init__(self, opset=17, seed=0):
        self.rng, self.opset = np.random.default_rng(seed), opset
        self.nodes, self.constants = [], []

    def constant(self, values, dtype: type[np.generic] = np.float32):
        name = f"w{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(values, dtype), name))
        return name

    def whole(self, *values):
        return self.constant(values, np.int64)

    def random(self, *shape, low=None):
        """Normal numbers of a layer's usual size, or uniform ones above `low`."""
        if low is not None:
            return self.constant(self.rng.uniform(low, low + 1, shape))
        fan_in = max(1, int(np.prod(shape[1:])))
        return self.constant(self.rng.normal(size=shape) * np.sqrt(2 / fan_in))

    def add(self, kind, *operands, outputs=1, domain="", **attributes):
        names = [f"t{len(self.nodes)}{'abcdef'[i]}" for i in range(outputs)]
        node = helper.make_node(
            kind,
            list(operands),
            names,
            f"{kind.lower()}{len(self.nodes)}",
            domain=domain,
            **attributes,
        )
        self.nodes.append(node)
        return names[0] if outputs == 1 else names

    def conv(
        self, x, read, made, side: int | tuple[int, ...] = 3, bias=True, groups=1, **attributes
    ):
        sides = side if isinstance(side, tuple) else (side, side)
        weights = [self.random(made, read // groups, *sides)]
        weights += [self.random(made, low=-0.5)] if bias else []
        return self.add("Conv", x, *weights, group=groups, **attributes)

    def norm(self, x, channels):
        low = (0.5, -0.5, -0.5, 0.5)
        return self.add("BatchNormalization", x, *(self.random(channels, low=v) for v in low))

    def gemm(self, x, read, made):
        return self.add("Gemm", x, self.random(made, read), self.random(made, low=-0.5), transB=1)

    def head(self, x, read, classes=5):
        """Flattened, and a dense layer."""
        return self.gemm(self.add("Flatten", x), read, classes)

    def model(self, output, shape=(1, 4, 7, 6), **fields):
        """Of the input "x" to this tensor, or several."""
        outputs = [output] if isinstance(output, str) else output
        kind = fields.pop("kind", TensorProto.FLOAT)
        graph = helper.make_graph(
            self.nodes,
            "sketch",
            [helper.make_tensor_value_info(n, kind, shape) for n in fields.pop("inputs", ["x"])],
            [
                helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", "k"])
                for name in outputs
            ],
            self.constants,
        )
        meta = fields.pop("meta", {})
        domains = {node.domain for node in self.nodes} - {""}
        opsets = [
            helper.make_opsetid("", self.opset),
            *(helper.make_opsetid(d, 1) for d in domains),
        ]
        made = helper.make_model(graph, opset_imports=opsets, ir_version=8, **fields)
        helper.set_model_props(made, meta)
        return made


def lenet(opset):
    """As PyTorch writes it; older ones without a Flatten of any rank."""
    made = Sketch(opset)
    at = made.add("Relu", made.conv("x", 1, 6, 5, pads=[2, 2, 2, 2]))
    at = made.add("MaxPool", at, kernel_shape=[2, 2], strides=[2, 2])
    at = made.add("Relu", made.conv(at, 6, 8, 5))
    at = made.add("AveragePool", at, kernel_shape=[2, 2], strides=[2, 2])
    at = made.add("Reshape", at, made.whole(1, -1))
    at = made.add("Relu", made.gemm(at, 8 * 5 * 4, 12))
    at = made.add("Add", made.add("MatMul", at, made.random(12, 10)), made.random(10))
    return made.model(made.add("Softmax", at, axis=1), ("n", 1, 28, 24))


def vgg(opset):
    """Two convolutions with batch norms a stage, ReLU6, dropout."""
    made, at, read = Sketch(opset), "x", 3
    for channels in (6, 8):
        for _ in range(2):
            at = made.conv(at, read, channels, bias=False, pads=[1, 1, 1, 1])
            at, read = made.norm(at, channels), channels
            if opset < 11:
                at = made.add("Clip", at, min=0.0, max=6.0)
            else:
                at = made.add("Clip", at, made.constant(0.0), made.constant(6.0))
        at = made.add("MaxPool", at, kernel_shape=[2, 2], strides=[2, 2])
    at = made.add("Flatten", at)
    at = made.add("Dropout", made.add("Relu", made.gemm(at, 8 * 3 * 2, 9)))
    return made.model(made.gemm(at, 9, 5), (1, 3, 12, 8))


def branched(opset):
    """A residual sum, branches side by side, and a channel shuffle between grouped convolutions."""
    made = Sketch(opset)
    at = made.add("Relu", made.conv("x", 4, 8, pads=[1, 1, 1, 1]))
    side = made.conv(made.add("Relu", made.conv(at, 8, 8, 1)), 8, 8, pads=[1, 1, 1, 1])
    at = made.add("Relu", made.add("Add" if opset > 7 else "Sum", at, side))
    pooled = made.add("MaxPool", at, kernel_shape=[3, 3], pads=[1, 1, 1, 1])
    at = made.add("Concat", made.conv(at, 8, 4, 1), made.conv(pooled, 8, 8, 1), axis=1)
    at = made.add("Relu", made.norm(made.conv(at, 12, 12, 1, groups=3, bias=False), 12))
    for shape, order in (((1, 3, 4, 7, 6), (0, 2, 1, 3, 4)),):
        at = made.add("Transpose", made.add("Reshape", at, made.whole(*shape)), perm=order)
    at = made.add("Reshape", at, made.whole(1, 12, 7, 6))
    at = made.conv(at, 12, 12, groups=12, strides=[2, 2], pads=[1, 1, 1, 1])
    at = made.add("GlobalAveragePool", made.add("Relu", made.conv(at, 12, 6, 1, groups=3)))
    return made.model(made.head(at, 6))


NETWORKS = {"lenet": lenet, "vgg": vgg, "branched": branched}
