"""The light models of the package onnx with random weights, at their own size or a smaller one.

As they come all weights of a tensor are the same number, so that no order of channels matters.
"""

import pathlib

import numpy as np
import onnx
from onnx import helper, numpy_helper

FOLDER = pathlib.Path(onnx.__file__).parent / "backend/test/data/light"
WITH_NORMALISATION = ("bvlc_alexnet", "inception_v1", "zfnet512")
PLAIN = ("densenet121", "inception_v2", "resnet50", "shufflenet", "squeezenet", "vgg19")
SIDE, LAST = 224, 7  # of pictures, and of the last images


def light(name, side=SIDE, seed=0):
    """Of pictures of another side all shapes in it follow: 7 is the side of the last images."""
    model = onnx.load(FOLDER / f"light_{name}.onnx")
    last, rng = side * LAST // SIDE, np.random.default_rng(seed)
    scaled = {SIDE >> i: side >> i for i in range(6)} | {LAST: last}
    graph = model.graph
    shapes = {each.name: numpy_helper.to_array(each) for each in graph.initializer}
    made, read = [], set()
    for node in list(graph.node):
        if node.op_type == "ConstantOfShape":
            shape = [int(n) for n in shapes[node.input[0]]]
            if len(shape) == 2:  # of an image that was flattened
                shape[1] = shape[1] // LAST**2 * last**2 if shape[1] % LAST**2 == 0 else shape[1]
            size = np.prod(shape[1:], initial=1)
            weights = (
                rng.normal(size=shape) * np.sqrt(2 / size)
                if shape[1:]
                else rng.uniform(0.5, 1.5, shape)
            )
            made.append(numpy_helper.from_array(weights.astype(np.float32), node.output[0]))
            read.add(node.input[0])
            graph.node.remove(node)
        elif node.op_type == "AveragePool":
            for each in node.attribute:
                if each.name == "kernel_shape" and list(each.ints) == [LAST, LAST]:
                    each.ints[:] = [last, last]
        elif node.op_type == "Reshape" and (shape := shapes.get(node.input[1])) is not None:
            sides = [
                scaled.get(int(n), n) if i >= len(shape) - 2 > 1 else n for i, n in enumerate(shape)
            ]
            if len(shape) == 2 and shape[1] % LAST**2 == 0:
                sides[1] = shape[1] // LAST**2 * last**2
            made.append(
                numpy_helper.from_array(np.array(sides, np.int64), f"{node.output[0]}.shape")
            )
            node.input[1] = f"{node.output[0]}.shape"
    kept = [each for each in graph.initializer if each.name not in read]
    del graph.initializer[:]
    graph.initializer.extend([*kept, *made])
    (data,) = [each for each in graph.input if each.name not in shapes]
    del graph.input[:]
    shape = (1, 3, side, side)
    graph.input.append(helper.make_tensor_value_info(data.name, onnx.TensorProto.FLOAT, shape))
    del graph.value_info[:]
    model.ir_version = 4  # weights are no inputs
    return model
