"""What fewer bits cost a network's loss: the file that training writes and the search for widths reads.

Omega_t(b) = Tr(H_t) / n_t * ||Q_b(t) - t||^2 for a tensor t of n_t elements with Hessian H_t of the loss
(HAWQ-V2, arXiv 1911.03852; PrivQuant, section 5.2). Half of it is the second-order increase of the loss.
"""

import dataclasses
import json
import math
import pathlib
from collections.abc import Mapping

from pqjax.errors import CheckpointError
from pqjax.graph.strict_json import parse

_FORMAT = 1
_MOST_BYTES = 16 << 20  # a few hundred a tensor


@dataclasses.dataclass(frozen=True)
class Sensitivity:
    """One tensor's sensitivity.

    Attributes:
      trace: average Hessian trace, the trace over `elements`; for activations of one image's loss.
      standard_error: of the trace, in its unit.
      elements: of the tensor.
      omega: from a width in bits to trace * squared error.
    """

    trace: float
    standard_error: float
    elements: int
    omega: Mapping[int, float]

    def __post_init__(self) -> None:
        numbers = (self.trace, self.standard_error, *self.omega.values())
        if not all(isinstance(v, (int, float)) and math.isfinite(v) for v in numbers):
            raise CheckpointError(f"finite numbers expected as sensitivity, got {numbers}")
        if not self.omega or not all(1 <= bits <= 64 for bits in self.omega):
            raise CheckpointError(f"widths in 1..64 expected, got {sorted(self.omega)}")

    def at(self, bits: int) -> float:
        """Omega at a width; none below zero, which only an estimate of a tiny trace could be."""
        if bits not in self.omega:
            raise CheckpointError(f"no sensitivity at {bits} bits; there are {sorted(self.omega)}")
        return max(self.omega[bits], 0.0)


@dataclasses.dataclass(frozen=True)
class Sensitivities:
    """All of a network's.

    Attributes:
      network: its name.
      weights: by the name of the linear layer.
      activations: by the name of the graph's node that makes what linear layers read.
      residuals: by the name of the node that makes what is added later.
      settings: how they were measured.
    """

    network: str
    weights: Mapping[str, Sensitivity]
    activations: Mapping[str, Sensitivity]
    residuals: Mapping[str, Sensitivity]
    settings: Mapping[str, object]

    def write(self, path: pathlib.Path | str) -> None:
        """Writes JSON."""
        tree = {"format": _FORMAT, **dataclasses.asdict(self)}
        try:
            pathlib.Path(path).write_text(json.dumps(tree, indent=1) + "\n")
        except OSError as error:
            raise CheckpointError(f"cannot write sensitivities to {path}: {error}") from error


def read_sensitivities(path: pathlib.Path | str) -> Sensitivities:
    """Reads `Sensitivities.write`'s file.

    Raises:
      CheckpointError: it is missing, cut short, or something else.
    """
    try:
        tree = parse(pathlib.Path(path).read_bytes(), _MOST_BYTES)
        wanted = {"format", "network", "weights", "activations", "residuals", "settings"}
        if not isinstance(tree, dict) or not wanted <= tree.keys():
            raise CheckpointError(
                "it is JSON of something else; `python -m nets.sensitivity` writes them"
            )
        if tree["format"] != _FORMAT:
            raise CheckpointError(f"{path}: format {_FORMAT} expected, got {tree['format']!r}")
        tables = {
            group: {str(name): _entry(found) for name, found in tree[group].items()}
            for group in ("weights", "activations", "residuals")
        }
        return Sensitivities(str(tree["network"]), **tables, settings=dict(tree["settings"]))
    except CheckpointError as error:
        raise CheckpointError(f"{path} holds no sensitivities: {error}") from error
    except FileNotFoundError as error:
        raise CheckpointError(f"no sensitivities at {path}: write them first") from error
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{path} holds no sensitivities: {error!r}") from error


def _entry(found: dict) -> Sensitivity:
    omega = {int(bits): float(value) for bits, value in found["omega"].items()}
    measured = float(found["trace"]), float(found["standard_error"]), int(found["elements"])
    return Sensitivity(*measured, omega)
