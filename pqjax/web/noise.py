"""Bytes as a picture: what a server can look at instead of its client's."""

import io
import math

import numpy as np

SIDE = 128
ENOUGH = 4096  # bytes, for an entropy that says something


def as_png(sample: bytes) -> bytes:
    """A byte a pixel, grey, `SIDE` by `SIDE`, row by row; black where there are none yet."""
    from PIL import Image

    file = io.BytesIO()
    padded = sample[-SIDE * SIDE :].ljust(SIDE * SIDE, b"\0")
    Image.frombytes("L", (SIDE, SIDE), padded).save(file, "PNG")
    return file.getvalue()


def entropy(sample: bytes) -> float | None:
    """Bits a byte by how often each of the 256 values occurs, at most 8; None of too few bytes.

    The estimate's known bias is added (Miller and Madow 1955): of even noise it is 8 on average.
    """
    if len(sample) < ENOUGH:
        return None
    counts = np.bincount(np.frombuffer(sample, np.uint8), minlength=256)
    counts = counts[counts > 0]
    shares = counts / len(sample)
    bias = (len(counts) - 1) / (2 * len(sample) * math.log(2))
    return min(8.0, float(-(shares * np.log2(shares)).sum()) + bias)
