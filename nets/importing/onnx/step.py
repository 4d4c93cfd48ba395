"""One node of an ONNX model in its place: its operands, its attributes, and errors that name it."""

from __future__ import annotations

import dataclasses
import functools
import typing
from collections.abc import Mapping, Sequence

import numpy as np

from nets.importing.arrays import Arrays
from nets.importing.builder import Pair, Sides
from nets.importing.layout import Axes, Tensor
from nets.importing.onnx.constants import attributes, evaluated
from pqjax.errors import GraphError, shown

if typing.TYPE_CHECKING:
    import onnx

Value = Tensor | np.ndarray
# Of arrays (1, C, H, W), (1, C, W) and (1, C), by rank.
AXES: Mapping[int, Axes] = {4: (2, 3, 1), 3: (None, 2, 1), 2: (None, None, 1)}


@dataclasses.dataclass(frozen=True)
class Windows:
    """What a convolution or pool reads: two sides each, rows first.

    Attributes:
      window: rows and columns.
      stride: of both.
      padding: before and after.
      dilation: between a window's pixels.
      over: by how much the last windows reach over the padded image, which counts as nothing.
    """

    window: Pair
    stride: Pair
    padding: Sides
    dilation: Pair
    over: Pair = (0, 0)

    @property
    def around(self) -> Sides:
        """Margins with what the last windows reach over."""
        (a, b), (c, d) = self.padding
        return (a, b + self.over[0]), (c, d + self.over[1])


@dataclasses.dataclass(frozen=True)
class Step:
    """A node about to be read.

    Attributes:
      arrays: what it is added to.
      node: what it is.
      opset: the version of its operator.
      operands: constants, arrays of our tensors, or None where one is left out.
    """

    arrays: Arrays
    node: onnx.NodeProto
    opset: int
    operands: Sequence[Value | None]

    def fault(self, text: str) -> GraphError:
        """An error that names the node."""
        return self.arrays.builder.fault(text)

    @functools.cached_property
    def attributes(self) -> Mapping[str, typing.Any]:
        """By name."""
        return attributes(self.node)

    def attribute(self, name: str, default: typing.Any = None) -> typing.Any:
        """One of them."""
        return self.attributes.get(name, default)

    def tensor(self, index: int = 0) -> Tensor:
        """An operand that depends on the input."""
        found = self.operands[index] if index < len(self.operands) else None
        if not isinstance(found, Tensor):
            raise self.fault(
                f"operand {index} is a constant or left out, where a tensor is expected"
            )
        return found

    def constant(self, index: int, what: str) -> np.ndarray | None:
        """An operand that depends on no input; None where it is left out."""
        found = self.operands[index] if index < len(self.operands) else None
        if isinstance(found, Tensor):
            raise self.fault(
                f"its {what} depends on the input, where a constant is expected: products of two of the "
                "input's tensors (attention, gates) and shapes made of values are not imported"
            )
        return found

    def weights(self, index: int, what: str) -> np.ndarray:
        """A constant of numbers that must be there, as float64."""
        found = self.constant(index, what)
        if found is None:
            raise self.fault(f"its {what} is left out")
        if found.dtype.kind not in "fiu" and str(found.dtype) not in ("bfloat16", "float16"):
            raise self.fault(f"its {what} is of {found.dtype}; numbers expected")
        found = found.astype(np.float32 if found.size > 1 << 20 else np.float64)
        if not np.isfinite(found).all():
            raise self.fault(f"its {what} has values that are no finite numbers")
        return found

    def scalar(self, index: int, name: str, default: float) -> float:
        """A number that is an operand in newer opsets and was an attribute."""
        found = self.constant(index, name)
        if found is None or not found.size:
            return float(self.attribute(name, default))
        if found.size != 1:
            raise self.fault(f"its {name} is one number, got {found.size}")
        return float(found.ravel()[0])

    def axes(self, index: int, rank: int) -> tuple[int, ...] | None:
        """Axes that are an operand in newer opsets and were an attribute; None where left out."""
        found = self.constant(index, "axes")
        given = self.attribute("axes") if found is None else found.ravel().tolist()
        if given is None:
            return None
        if not all(-rank <= axis < rank for axis in given):
            raise self.fault(f"axes {shown(given)} of a tensor of {rank} sides")
        return tuple(sorted(int(axis) % rank for axis in given))

    def relabelled(self) -> list[Tensor]:
        """What a node that moves values alone makes: the same, done to their places."""
        x, rest = self.tensor(), range(1, len(self.operands))
        try:
            made = evaluated(
                self.node, self.opset, [x.places, *(self.constant(i, "shape") for i in rest)]
            )
        except GraphError as error:
            raise self.fault(str(error)) from error
        if not all(each.size for each in made):
            raise self.fault("nothing is left of its tensor")
        return [Tensor(x.name, each.astype(np.int32)) for each in made]

    def image(self, x: Tensor) -> str:
        """Our image of an array (1, C, H, W) or (1, C, W)."""
        if len(x.shape) not in (3, 4) or x.shape[0] != 1:
            raise self.fault(f"an image (1, C, H, W) or a signal (1, C, W) expected, got {x.shape}")
        name, _ = self.arrays.made(x, AXES[len(x.shape)])
        if len(self.arrays.builder.shapes[name]) != 3:
            raise self.fault(f"windows and margins of {x.shape}, which has no rows and columns")
        return name

    def laid(self, name: str, rank: int) -> Tensor:
        """An image of ours as an array of such a rank."""
        return self.arrays.laid(name, AXES[rank], rank)

    def windows(self, kernel: Sequence[int] | None) -> Windows:
        """Geometry of a convolution or pool over the first operand; 1-D ones have one row."""
        high, wide = (1, 1, *self.tensor().shape[2:])[-2:]
        kernel = [int(n) for n in kernel or ()]
        if not 1 <= len(kernel) <= 2:
            raise self.fault(
                f"a window of {len(kernel)} sides: images of 1 or 2 are read; 3-D ones are not"
            )
        flat = len(kernel) == 1
        rank = len(kernel)

        def pair(name: str) -> Pair:
            given = [int(n) for n in self.attribute(name, [1] * rank)]
            if len(given) != rank:
                raise self.fault(f"{name} of {rank} sides expected, got {shown(given)}")
            return (1, given[0]) if flat else (given[0], given[1])

        window = (1, kernel[0]) if flat else (kernel[0], kernel[1])
        stride, dilation = pair("strides"), pair("dilations")
        if min(*window, *stride, *dilation) < 1:
            raise self.fault(f"windows, strides and dilations from 1 on expected, got {window}, "
                             f"{stride} and {dilation}")  # fmt: skip
        reach = [(n - 1) * d + 1 for n, d in zip(window, dilation, strict=True)]
        padding = self._padding(rank, (high, wide), reach, stride)
        over = [0, 0]
        if self.attribute("ceil_mode", 0):
            for i, (n, r, s, p) in enumerate(
                zip((high, wide), reach, stride, padding, strict=True)
            ):
                count = -(-(n + sum(p) - r) // s) + 1
                count -= (count - 1) * s >= n + p[0]  # a window that begins behind the image
                over[i] = max(0, (count - 1) * s + r - n - sum(p))
        return Windows(window, stride, padding, dilation, (over[0], over[1]))

    def _padding(self, rank: int, sides: Pair, reach: Sequence[int], stride: Pair) -> Sides:
        auto = self.attribute("auto_pad", "NOTSET")
        if auto in ("SAME_UPPER", "SAME_LOWER"):
            found = []
            for n, r, s in zip(sides, reach, stride, strict=True):
                most = max(0, (-(-n // s) - 1) * s + r - n)
                pair = (most // 2, most - most // 2)
                found.append(pair if auto == "SAME_UPPER" else pair[::-1])
            return found[0], found[1]
        if auto not in ("NOTSET", "VALID", ""):
            raise self.fault(f"auto_pad {shown(auto)} is not known")
        given = [0] * (2 * rank) if auto == "VALID" else self.attribute("pads", [0] * (2 * rank))
        if len(given) != 2 * rank or min(given) < 0:
            raise self.fault(f"{2 * rank} pads from 0 on expected, got {shown(list(given))}")
        before, after = given[:rank], given[rank:]
        if rank == 1:
            before, after = [0, *before], [0, *after]
        return (int(before[0]), int(after[0])), (int(before[1]), int(after[1]))
