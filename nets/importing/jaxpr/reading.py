"""Any network that is a JAX function of one array, read out of its jaxpr.

    network = from_jax(model, example, pixels=pixels)

The function is traced for one picture with its parameters closed over (`trace`), its primitives become
operations (`primitives`), and what both compute is compared.
"""

from __future__ import annotations

import dataclasses
import hashlib
import typing
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from nets.importing.agreement import TOLERANCE, agreement, difference, random_inputs
from nets.importing.builder import Builder
from nets.importing.imported import Imported, Pixels
from nets.importing.jaxpr.primitives import Positive, Primitives
from nets.importing.jaxpr.trace import Equation, Trace, Variable, traced
from nets.importing.layout import Tensor, natural
from nets.ops import INPUT
from pqjax.errors import GraphError

_HEADS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "softmax": jax.nn.softmax,
    "log_softmax": jax.nn.log_softmax,
    "sigmoid": jax.nn.sigmoid,
    "argmax": jnp.argmax,
}


def from_jax(
    function: Callable[..., typing.Any], example: np.ndarray | jax.Array, *,
    pixels: Pixels | None = None, classes: tuple[str, ...] = (), name: str = "imported",
    source: dict[str, str] | None = None,
) -> Imported:  # fmt: skip
    """A network from elsewhere, given as a function of JAX.

    A softmax, log_softmax, sigmoid or argmax at its end is left out, for the client to do in the clear;
    `source["head"]` names it, and the imported network's `runtime` returns the logits before it.

    Args:
      function: of one float32 array of pictures to the logits (n, classes); its parameters closed over,
        in inference mode.
      example: pictures (n, H, W, C); signals (n, W, C), which become images of one row; or vectors
        (n, C), which become images of one pixel. Only its shape counts.
      pixels: how integers 0..255 become what the function reads; None for these as they are.
      classes: their names.
      name: of the network.
      source: what is known about where it is from.

    Raises:
      GraphError: something cannot be done; names the primitive, the line of the source that it comes
        from, and the nearest thing that works. Or what was read does not compute what the function does.
    """
    shape = tuple(example.shape)
    if not 2 <= len(shape) <= 4:
        raise GraphError(
            f"an example of shape (n, H, W, C), (n, W, C) or (n, C) expected, got {shape}; wrap the "
            "function in one that transposes or reshapes its input"
        )
    image = (*(1,) * (4 - len(shape)), *shape[1:])
    trace = traced(function, (1, *shape[1:]))
    reading = _Reading(Builder(name, image), trace)
    logits = reading.logits
    logits_of = logits.variable
    pixels = pixels or Pixels((0.0,) * image[2], (1.0,) * image[2])
    kept = {"format": "jax", "jax": jax.__version__, **(source or {})}
    if logits.head:
        kept["head"] = logits.head

    @jax.jit
    def run(x: jax.Array) -> jax.Array:
        return jax.vmap(lambda each: trace.evaluated(each[None], logits_of).reshape(-1))(x)

    def runtime(x: np.ndarray) -> np.ndarray:
        with jax.default_matmul_precision("highest"):
            return np.asarray(run(jnp.asarray(x, jnp.float32).reshape(-1, *shape[1:])))

    found = reading.builder.imported(
        logits.name, pixels=pixels, source=kept, classes=classes, runtime=runtime
    )
    digest = hashlib.sha256()
    for part in (part for layer in found.weights for part in layer):
        digest.update(np.ascontiguousarray(part).tobytes())
    kept.setdefault("sha256", digest.hexdigest())
    _check(found, function, logits.head, pixels, (2, *shape[1:]))
    return found


@dataclasses.dataclass(frozen=True)
class _Logits:
    """What the private part of a network ends with.

    Attributes:
      name: of the builder's tensor.
      variable: of the trace.
      head: what the function makes of them; empty for nothing.
    """

    name: str
    variable: Variable
    head: str


class _Reading:
    """The equations of a function, as far as they are operations of ours.

    An equation that is none is kept, as is all that depends on it: it may be a part of a head.
    """

    def __init__(self, builder: Builder, trace: Trace):
        self.builder, self.trace = builder, trace
        self.values: dict[Variable, Tensor | Positive] = {
            trace.input: natural(INPUT, trace.input.shape)  # the image's elements, in this order
        }
        self.beyond: dict[Variable, Equation] = {}
        self.faults: dict[Equation, GraphError] = {}
        self.primitives = Primitives(builder)
        for equation in trace.equations:
            if any(isinstance(each, Variable) and each in self.beyond for each in equation.inputs):
                self.beyond.update(dict.fromkeys(equation.outputs, equation))
                continue
            inputs = [
                self.values[each] if isinstance(each, Variable) else each
                for each in equation.inputs
            ]
            try:
                made = self.primitives.read(equation, inputs)
            except GraphError as error:
                self.faults[equation] = error
                self.beyond.update(dict.fromkeys(equation.outputs, equation))
            else:
                self.values.update(zip(equation.outputs, made, strict=True))
        self.builder.at = "the output"
        self.logits = self.found()

    def found(self) -> _Logits:
        """The logits, and the head behind them."""
        output, head = self.trace.output, ""
        if not isinstance(output, Variable):
            raise self.builder.fault("it does not depend on the input")
        if output in self.beyond:
            output, head = self.headless(output)
        tensor = self.values[output]
        if not isinstance(tensor, Tensor) or not tensor.flat:
            raise self.builder.fault(
                f"it is an array of shape {output.shape}: (1, classes) expected for one picture; "
                "segmentations and boxes are not answered here"
            )
        return _Logits(self.primitives.arrays.vector(tensor), output, head)

    def headless(self, output: Variable) -> tuple[Variable, str]:
        """What the last equations read, and the name of the function that they are."""
        needed, roots, ahead = [], [], [output]
        while ahead:
            equation = self.beyond[ahead.pop()]
            if equation in needed:
                continue
            needed.append(equation)
            for each in equation.inputs:
                if isinstance(each, Variable):
                    (ahead if each in self.beyond else roots).append(each)
        needed.sort(key=self.trace.equations.index)
        tensors = [self.values[root] for root in roots]
        first = next(iter(tensors), None)
        if isinstance(first, Tensor) and all(
            isinstance(each, Tensor) and each.same(first) for each in tensors
        ):
            head = self.named(needed, roots, output)
            if head:
                return roots[0], head
        raise next(self.faults[each] for each in needed if each in self.faults)

    def named(self, head: list[Equation], roots: list[Variable], output: Variable) -> str | None:
        """Which of the known heads equations are, as random logits tell."""
        rng = np.random.default_rng(0)
        matching = set(_HEADS)
        for _ in range(3):
            logits = jnp.asarray(rng.normal(size=roots[0].shape) * 3, jnp.float32)
            values: dict[Variable, jax.Array] = dict.fromkeys(roots, logits)
            for equation in head:
                inputs = [values[v] if isinstance(v, Variable) else v for v in equation.inputs]
                values.update(zip(equation.outputs, equation.evaluated(inputs), strict=True))
            found = np.asarray(values[output]).reshape(-1)
            for name in list(matching):
                wanted = np.asarray(_HEADS[name](logits.reshape(-1))).reshape(-1)
                if wanted.shape != found.shape or not np.allclose(found, wanted, atol=1e-5):
                    matching.remove(name)
        return next((name for name in _HEADS if name in matching), None)


def _check(
    found: Imported, function: Callable[..., typing.Any], head: str, pixels: Pixels,
    shape: tuple[int, ...],
) -> None:  # fmt: skip
    """Compares operations, runtime and the function itself on random pictures.

    Raises:
      GraphError: they differ by more than `TOLERANCE`.
    """
    x = random_inputs(found, shape[0])
    assert found.runtime is not None
    off, logits = agreement(found, x).largest, found.runtime(x)
    if not off <= TOLERANCE:
        raise GraphError(
            f"{found.architecture.name}: its operations differ from the function by {off:.1e} of the "
            f"largest output, more than {TOLERANCE:.0e}: does it compute in less than float32?"
        )
    own = random_inputs(found.reading(pixels), shape[0]).reshape(shape)
    try:
        with jax.default_matmul_precision("highest"):
            answers = np.asarray(jax.jit(function)(jnp.asarray(own)))
    except Exception as error:
        raise GraphError(
            f"{found.architecture.name}: the function takes one picture but not {shape[0]}: "
            f"{str(error).strip().splitlines()[0]}; write x.shape[0] where it says 1"
        ) from error
    wanted = np.stack([np.asarray(_HEADS[head](each)) for each in logits]) if head else logits
    if answers.size != wanted.size:
        raise GraphError(
            f"{found.architecture.name}: the function makes shape {answers.shape} of {shape[0]} "
            f"pictures: {wanted.shape} expected, one answer each"
        )
    off = difference(answers.reshape(len(wanted), -1), wanted.reshape(len(wanted), -1))
    if not off <= TOLERANCE:
        raise GraphError(
            f"{found.architecture.name}: the function answers otherwise for several pictures than for "
            f"each alone, by {off:.1e}: pictures must not depend on each other (batch norm must take "
            "running averages), nor answers on chance"
        )
