"""A network from elsewhere in our terms: its operations, its float weights, what its inputs mean."""

from __future__ import annotations

import dataclasses
import functools
import typing
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from nets.data import INPUT_SCALE_BITS
from nets.fold import Folded
from nets.folded import FoldedNet
from nets.ops import INPUT, PIXEL_ZERO, Architecture, Flatten, Linear, walk
from nets.steps import steps
from pqjax.errors import GraphError

Runtime = Callable[[np.ndarray], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Pixels:
    """How integers 0..255 become the network's own input: (integer - mean) / std, by channel.

    Attributes:
      mean: of every channel, in units of pixels.
      std: of every channel, in units of pixels; below 0 where the network reads negatives.
      bgr: whether blue comes first; means and deviations are in the network's order.
      shorter: rows or columns that the shorter side is scaled to before the centre is cut; None: as
        many as the input has.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    bgr: bool = False
    shorter: int | None = None

    @property
    def zero(self) -> typing.Literal[0, 128]:
        """The pixel that an integer input's 0 stands for: the nearer one to what is 0 to the network."""
        return 0 if np.mean(self.mean) < PIXEL_ZERO / 2 else PIXEL_ZERO

    def real(self, pixels: np.ndarray) -> Float[np.ndarray, "n h w c"]:
        """The network's own input for integers (n, H, W, C), red first: float32."""
        ordered = pixels[..., ::-1] if self.bgr else pixels
        return ((ordered - np.array(self.mean)) / np.array(self.std)).astype(np.float32)


@dataclasses.dataclass(frozen=True)
class Imported:
    """A float network as its source has it.

    Attributes:
      architecture: its operations; norms are folded, so there is no `Norm`.
      weights: kernel and bias of every layer, in order, of the source's own inputs.
      pixels: how pictures become these.
      classes: names, as many as the architecture's, or none.
      source: where it is from: file, its SHA-256, format, versions of what read it.
      runtime: the source's own: its inputs, float32 (n, H, W, C), to outputs (n, classes); None where
        there is none.
      rounding: of a source that is quantized itself: its runtime with all its rounding, to its own
        answers, which may be of another scale than `runtime`'s; else None.
    """

    architecture: Architecture
    weights: Folded
    pixels: Pixels
    classes: tuple[str, ...]
    source: Mapping[str, str]
    runtime: Runtime | None = None
    rounding: Runtime | None = None

    def outputs(self, x: Float[np.ndarray, "n h w c"]) -> Float[np.ndarray, "n k"]:
        """What the operations make of the source's own inputs, in f32; `runtime` should agree."""
        return np.asarray(_outputs(self.architecture, self.weights, jnp.asarray(x, jnp.float32)))

    def reading(self, pixels: Pixels) -> Imported:
        """The same network, told what its inputs mean."""
        net = self.architecture
        zero = PIXEL_ZERO if net.signed else pixels.zero
        architecture = dataclasses.replace(net, zero=zero)
        return dataclasses.replace(self, pixels=pixels, architecture=architecture)

    def of_integers(self) -> Folded:
        """Weights that read our integers, (pixel - zero) / 256 and red first, in the input's place.

        Scale and offset go into the kernels and biases of the layers that read the input. Zeros around
        it stand for the architecture's `zero` then, and not for the mean; the difference, small as
        `Pixels.zero` is the nearer one, is at the edges only.

        Raises:
          GraphError: something else than a Conv or a Dense behind a Flatten reads the input.
        """
        pixels, net = self.pixels, self.architecture
        flat = [op for op in net.readers[INPUT] if isinstance(op, Flatten)]
        reading = [op for name in (INPUT, *(op.name for op in flat)) for op in net.readers[name]]
        for op in reading:
            if op not in flat and (not isinstance(op, Linear) or op.groups > 1):
                raise op.fault(
                    "it reads the input, whose mean and deviation go into the layers that read it: "
                    "a Conv or Dense without groups expected"
                )
        factor = 2.0**INPUT_SCALE_BITS / np.array(pixels.std)
        offset = (net.zero - np.array(pixels.mean)) / np.array(pixels.std)
        if net.image[2] != len(factor) or net.image[2] != len(offset):
            raise GraphError(
                f"{net.name}: means and deviations of {net.image[2]} channels expected, "
                f"got {len(offset)} and {len(factor)}"
            )
        made = []
        for op, (kernel, bias) in zip(net.layers, self.weights, strict=True):
            if op in reading:
                shape, kernel = kernel.shape, kernel.reshape(-1, net.image[2], op.channels)
                bias = bias + np.einsum("pck,c->k", kernel, offset)
                kernel = kernel * factor[:, None]
                kernel = (kernel[:, ::-1] if pixels.bgr else kernel).reshape(shape)
            made.append((np.asarray(kernel, np.float32), np.asarray(bias, np.float32)))
        return made


@functools.partial(jax.jit, static_argnums=0)
def _outputs(architecture: Architecture, weights: Folded, x: jax.Array) -> jax.Array:
    rules = FoldedNet.of(architecture, weights).rules
    return walk(steps(architecture), rules, {INPUT: x})
