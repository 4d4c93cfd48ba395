"""Training-time augmentation of uint8 images: padded crop, mirror, random erasing. Pure numpy."""

import numpy as np

PADDING = 4
ERASE_CHANCE = 0.25
ERASE_LIMITS = (4, 12)  # side of the erased square, in pixels


def augment(
    images: np.ndarray, rng: np.random.Generator, fill: int, erase_chance: float = ERASE_CHANCE
) -> np.ndarray:
    """Crops each image out of its padded self, mirrors half of them, and blanks a square in some.

    Args:
      images: uint8 (n, h, w, c).
      rng: source of every random choice; the same generator state gives the same result.
      fill: pixel value of padding and erased squares.
      erase_chance: probability that an image loses a square.

    Returns:
      uint8 (n, h, w, c).
    """
    n, height, width, _ = images.shape
    pad = ((0, 0), (PADDING, PADDING), (PADDING, PADDING), (0, 0))
    padded = np.pad(images, pad, constant_values=fill)
    top = rng.integers(0, 2 * PADDING + 1, n)
    left = rng.integers(0, 2 * PADDING + 1, n)
    mirror = rng.random(n) < 0.5
    cols = np.arange(width)
    cols = np.where(mirror[:, None], cols[::-1], cols) + left[:, None]
    rows = np.arange(height) + top[:, None]
    out = padded[np.arange(n)[:, None, None], rows[:, :, None], cols[:, None, :]]
    erased = rng.random(n) < erase_chance
    sides = rng.integers(ERASE_LIMITS[0], ERASE_LIMITS[1] + 1, n)
    y, x = rng.integers(0, height, n), rng.integers(0, width, n)
    for i in np.flatnonzero(erased):
        half = sides[i] // 2
        out[i, max(y[i] - half, 0) : y[i] + half, max(x[i] - half, 0) : x[i] + half] = fill
    return out
