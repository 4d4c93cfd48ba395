"""A small network that takes pictures, and pictures, for tests of what is asked over HTTP."""

import dataclasses
import io

import numpy as np
from networks import Builder
from PIL import Image

from pqjax.graph import Dense, Flatten, Graph, Requantize, TensorType

NAMES = (
    "cat",
    "dog",
    "ship",
    "frog",
    "bird",
    "deer",
    "horse",
    "truck",
    "car",
    "plane",
    "owl",
    "bee",
)


def picture_network():
    """Pixels of 8 x 8, twelve classes: a graph and its weights."""
    made = Builder(np.random.default_rng(4), (8, 8, 3), 8, True)
    made.conv(4)
    made.relu()
    out = TensorType(made.last.out.shape, 5, made.last.out.scale - 4, signed=False)
    made.add(Requantize, out, rule="saturate")
    made.add(Flatten, dataclasses.replace(out, shape=(out.n,)))
    made.linear(Dense, (12,), (out.n, 12))
    return Graph(tuple(made.nodes)), made.weights


def picture_file(width=20, height=16, seed=0, suffix="PNG"):
    """A picture's bytes, and its pixels."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, suffix)
    return file.getvalue(), pixels
