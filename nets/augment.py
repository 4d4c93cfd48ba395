"""Training-time augmentation of uint8 images, as pure functions of a key.

Padded crop, mirror and random erasing of single images; CutMix (Yun et al., 2019, algorithm 1) and Mixup
(Zhang et al., 2018, section 2) of pairs, with shares that are uniform in [0, 1).
"""

from __future__ import annotations

import dataclasses
import typing

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, UInt8

PADDING = 4
ERASE_LIMITS = (4, 12)  # side of the erased square, in pixels

Pixels = UInt8[Array, "b h w c"]
Targets = Float[Array, "b n"]


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """What is done besides crop and mirror: chances, of which the last two exclude each other.

    Attributes:
      erase: that an image loses a square.
      cutmix: that a rectangle of it is another image's.
      mixup: that it is a weighted mean with another image, rounded to pixels.
    """

    erase: float = 0.25
    cutmix: float = 0.0
    mixup: float = 0.0

    def __post_init__(self):
        chances = (self.erase, self.cutmix, self.mixup, self.cutmix + self.mixup)
        if not all(0 <= chance <= 1 for chance in chances):
            raise ValueError(f"chances in 0..1 expected, those of mixing in sum, got {self}")


class Moves(typing.NamedTuple):
    """What happens to each image of a batch."""

    top: Int[Array, " b"]  # where the crop begins in the padded image
    left: Int[Array, " b"]
    mirror: Bool[Array, " b"]
    square: Int[
        Array, "b 4"
    ]  # what is erased: first and end of rows, of columns; 0, 0, 0, 0 for nothing


class Mixing(typing.NamedTuple):
    """What each image of a batch gets of the one before it."""

    cut: Int[Array, "b 4"]  # what is the other's: first and end of rows, of columns
    share: Float[Array, " b"]  # weight of the other in what remains; 0 where there is a cut


def augment(
    key: Array, images: Pixels, targets: Targets, fill: int, settings: Augmentation
) -> tuple[Pixels, Targets]:
    """Crops, mirrors and erases each image; then mixes some pairs and what they are labelled.

    Args:
      key: source of every random choice.
      images: batch in random order: an image's partner is the one before it.
      targets: distribution over the classes, by image.
      fill: pixel value of padding and erased squares.
      settings: chances.
    """
    one, two = jax.random.split(key)
    images = moved(images, draw_moves(one, images.shape, settings.erase), fill)
    if settings.cutmix + settings.mixup == 0:
        return images, targets
    return mixed(images, targets, draw_mixing(two, images.shape, settings))


def draw_moves(key: Array, shape: tuple[int, ...], erase: float) -> Moves:
    """Random moves for images of a shape (b, h, w, c)."""
    b, h, w, _ = shape
    keys = jax.random.split(key, 7)
    top, left = (jax.random.randint(k, (b,), 0, 2 * PADDING + 1) for k in keys[:2])
    half = jax.random.randint(keys[2], (b,), ERASE_LIMITS[0], ERASE_LIMITS[1] + 1) // 2
    square = _square(keys[3], keys[4], (h, w), half, half)
    erased = jax.random.uniform(keys[5], (b, 1)) < erase
    return Moves(top, left, jax.random.bernoulli(keys[6], 0.5, (b,)), jnp.where(erased, square, 0))


def draw_mixing(key: Array, shape: tuple[int, ...], settings: Augmentation) -> Mixing:
    """Random mixing for images of a shape (b, h, w, c)."""
    b, h, w, _ = shape
    choice, shares, rows, cols = jax.random.split(key, 4)
    choice, share = jax.random.uniform(choice, (b,)), jax.random.uniform(shares, (b,))
    side = jnp.sqrt(share) / 2
    half_height, half_width = (jnp.round(side * n).astype(jnp.int32) for n in (h, w))
    cut = _square(rows, cols, (h, w), half_height, half_width)
    is_cut = choice < settings.cutmix
    blended = ~is_cut & (choice < settings.cutmix + settings.mixup)
    return Mixing(jnp.where(is_cut[:, None], cut, 0), jnp.where(blended, share, 0.0))


def moved(images: Pixels, moves: Moves, fill: int) -> Pixels:
    """Crops each image out of its padded self, mirrors some, blanks a square in some."""
    margin = (PADDING, PADDING)
    padded = jnp.pad(images, ((0, 0), margin, margin, (0, 0)), constant_values=fill)
    crop = jax.vmap(lambda x, y, z: jax.lax.dynamic_slice(x, (y, z, 0), images.shape[1:]))
    x = crop(padded, moves.top, moves.left)
    x = jnp.where(moves.mirror[:, None, None, None], x[:, :, ::-1], x)
    return jnp.where(_inside(images, moves.square), jnp.uint8(fill), x)


def mixed(images: Pixels, targets: Targets, mixing: Mixing) -> tuple[Pixels, Targets]:
    """Cuts or blends the image before each one into it; targets by the area or the weight."""
    other, inside = jnp.roll(images, 1, 0), _inside(images, mixing.cut)
    weight = mixing.share[:, None, None, None]
    blend = jnp.round(images * (1 - weight) + other * weight).astype(jnp.uint8)
    share = (mixing.share + inside.mean((1, 2, 3)))[:, None]
    return jnp.where(inside, other, blend), targets * (1 - share) + jnp.roll(targets, 1, 0) * share


def _square(rows: Array, cols: Array, sides: tuple[int, int], half_height, half_width):
    """Rectangles around random pixels, clipped by the image."""
    edges = []
    for key, side, half in ((rows, sides[0], half_height), (cols, sides[1], half_width)):
        middle = jax.random.randint(key, half.shape, 0, side)
        edges += [jnp.maximum(middle - half, 0), jnp.minimum(middle + half, side)]
    return jnp.stack(edges, 1)


def _inside(images: Pixels, square: Int[Array, "b 4"]) -> Bool[Array, "b h w 1"]:
    """Which pixels a rectangle covers."""
    first, end, left, right = (square[:, i, None] for i in range(4))
    row, col = jnp.arange(images.shape[1]), jnp.arange(images.shape[2])
    rows, cols = (row >= first) & (row < end), (col >= left) & (col < right)
    return (rows[:, :, None] & cols[:, None])[..., None]
