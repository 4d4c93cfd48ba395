"""A convolution of any step and dilation as one of step 1 and dilation 1, on more channels.

Tap i reads row o s + i d of the padded image for output row o: row o + (i d) // s of the image's phase
(i d) mod s. The phases that are read become channels; a channel's lie together, so groups stay whole.
"""

import dataclasses
import functools
import itertools
from typing import Protocol

import numpy as np
from jaxtyping import Integer, Shaped

Pair = tuple[int, int]
Image = Shaped[np.ndarray, "*n H W C"]


class Geometry(Protocol):
    """What this room reads of a linear layer: images (H, W, C), weights (h, w, C / groups, K).

    Several images are one operand (n, H, W, C); a single one has no such axis.
    """

    @property
    def image(self) -> Pair: ...  # noqa: D102
    @property
    def kernel(self) -> Pair: ...  # noqa: D102
    @property
    def stride(self) -> Pair: ...  # noqa: D102
    @property
    def padding(self) -> tuple[Pair, Pair]: ...  # noqa: D102
    @property
    def dilation(self) -> Pair: ...  # noqa: D102
    @property
    def groups(self) -> int: ...  # noqa: D102
    @property
    def inputs(self) -> int: ...  # noqa: D102
    @property
    def outputs(self) -> int: ...  # noqa: D102
    @property
    def images(self) -> int: ...  # noqa: D102


@dataclasses.dataclass(frozen=True)
class Phases:
    """The convolution of step 1 that a geometry comes to, without padding."""

    map: Geometry

    @functools.cached_property
    def _taps(self) -> tuple[list[Pair], list[Pair]]:
        """Along either axis, every tap's place in its phase, and the phase."""
        m = self.map
        down, right = (
            [divmod(i * d, s) for i in range(n)]
            for n, d, s in zip(m.kernel, m.dilation, m.stride, strict=True)
        )
        return down, right

    @functools.cached_property
    def read(self) -> list[Pair]:
        """Rows' and columns' phases that are read: a channel each."""
        down, right = (sorted({phase for _, phase in taps}) for taps in self._taps)
        return list(itertools.product(down, right))

    @functools.cached_property
    def kernel(self) -> Pair:
        """Height and width of the kernel that is left."""
        down, right = (max(at for at, _ in taps) + 1 for taps in self._taps)
        return down, right

    @functools.cached_property
    def out_image(self) -> Pair:
        """Height and width of the result."""
        m = self.map
        axes = zip(m.image, m.padding, m.kernel, m.dilation, m.stride, strict=True)
        down, right = ((n + sum(p) - 1 - (t - 1) * d) // s + 1 for n, p, t, d, s in axes)
        return down, right

    @functools.cached_property
    def image(self) -> Pair:
        """Height and width of a phase as far as it is read."""
        down, right = (n + t - 1 for n, t in zip(self.out_image, self.kernel, strict=True))
        return down, right

    @property
    def inputs(self) -> int:
        """Channels, each in all phases."""
        return self.map.inputs * len(self.read)

    def images(self, x: Image) -> Image:
        """Images (*n, H, W, C) as (*n, H', W', inputs), padded."""
        steps, sides, found = self.map.stride, self.image, []
        for phase in self.read:
            plane = np.pad(x, [(0, 0)] * (x.ndim - 3) + [*self.map.padding, (0, 0)])
            for i, axis in enumerate((x.ndim - 3, x.ndim - 2)):
                picked = range(phase[i], plane.shape[axis], steps[i])[: sides[i]]
                plane = plane.take(picked, axis)
                lack = [(0, 0)] * x.ndim
                lack[axis] = (0, sides[i] - len(picked))  # a phase may end early: unread, or zeros
                plane = np.pad(plane, lack)
            found.append(plane)
        return np.stack(found, -1).reshape(*x.shape[:-3], *sides, self.inputs)

    def weights(self, w: Integer[np.ndarray, "h w F K"]) -> Integer[np.ndarray, "a b P K"]:
        """The kernels, zero where a phase has no tap."""
        found = np.zeros((*self.kernel, w.shape[2], len(self.read), w.shape[3]), w.dtype)
        for i, (row, up) in enumerate(self._taps[0]):
            for j, (column, left) in enumerate(self._taps[1]):
                found[row, column, :, self.read.index((up, left))] = w[i, j]
        return found.reshape(*self.kernel, -1, w.shape[3])
