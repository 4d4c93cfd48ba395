"""Whether a network says here what it says where it is from: our operations against its runtime."""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Float

from nets.importing.imported import Imported
from pqjax.errors import GraphError

TOLERANCE = 1e-4  # of the largest answer: what sums in another order make of f32


@dataclasses.dataclass(frozen=True)
class Agreement:
    """How near two answers to some inputs are.

    Attributes:
      inputs: how many.
      largest: difference of any answers, relative to the input's largest.
      same: share of inputs of the same class.
    """

    inputs: int
    largest: float
    same: float

    def __str__(self) -> str:
        return (
            f"{self.inputs} inputs: largest difference {self.largest:.1e}, the same class for "
            f"{100 * self.same:.4g} %"
        )


def agreement(net: Imported, x: Float[np.ndarray, "n h w c"]) -> Agreement:
    """Of the operations and the source's own runtime, for the source's own inputs.

    Raises:
      GraphError: the network came without a runtime, or its answers are of another number.
    """
    if net.runtime is None:
        raise GraphError(f"{net.architecture.name}: it came without a runtime to compare with")
    ours, theirs = (np.asarray(run(x), np.float64) for run in (net.outputs, net.runtime))
    if ours.shape != theirs.shape:
        raise GraphError(f"answers of {theirs.shape} from its runtime, of {ours.shape} here")
    same = float((ours.argmax(1) == theirs.argmax(1)).mean())
    return Agreement(len(x), difference(ours, theirs), same)


def difference(found: Float[np.ndarray, "n k"], wanted: Float[np.ndarray, "n k"]) -> float:
    """The largest of any answers, relative to what is largest in the wanted one."""
    scale = np.maximum(np.abs(wanted).max(1, keepdims=True), np.finfo(np.float32).tiny)
    return float((np.abs(found - wanted) / scale).max())


def random_inputs(net: Imported, count: int = 2, seed: int = 0) -> Float[np.ndarray, "n h w c"]:
    """Pictures of random pixels, as the network's own inputs."""
    pixels = np.random.default_rng(seed).integers(0, 256, (count, *net.architecture.image))
    return net.pixels.real(pixels)


def check_agreement(
    net: Imported, x: Float[np.ndarray, "n h w c"] | None = None, tolerance: float = TOLERANCE
) -> Agreement:
    """Holds a network to its source's own runtime, on given inputs or random ones.

    Raises:
      GraphError: an answer differs by more.
    """
    found = agreement(net, random_inputs(net) if x is None else x)
    if not found.largest <= tolerance:
        raise GraphError(
            f"{net.architecture.name}: as imported it answers something else than in its own runtime "
            f"({found}; at most {tolerance:.0e} expected): please report the model"
        )
    return found
