"""A JAX function as one flat list of primitive equations: calls inlined, what is known evaluated.

The parameters that a function closes over are constants of its jaxpr. Whatever depends on constants
alone (a batch norm's variance plus epsilon, its root, ...) is computed at once, so that what is left
are the operations on the input.
"""

from __future__ import annotations

import dataclasses
import os
import typing
from collections.abc import Callable, Mapping, Sequence

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal

from pqjax.errors import GraphError

# Calls, by the parameter that holds what they call.
_CALLS = {
    "jit": "jaxpr", "pjit": "jaxpr", "closed_call": "call_jaxpr", "core_call": "call_jaxpr",
    "custom_jvp_call": "call_jaxpr", "custom_vjp_call": "call_jaxpr", "remat2": "jaxpr",
    "checkpoint": "jaxpr",
}  # fmt: skip
_LIBRARIES = tuple(f"{os.sep}{name}{os.sep}" for name in ("jax", "flax", "keras"))


@dataclasses.dataclass(frozen=True, eq=False)
class Variable:
    """What the input or an equation makes, and is not known when traced."""

    shape: tuple[int, ...]
    dtype: np.dtype


Value = Variable | jax.Array


@dataclasses.dataclass(frozen=True, eq=False)
class Equation:
    """One primitive of JAX.

    Attributes:
      own: as JAX has it.
      inputs: what it reads.
      outputs: what it makes.
      within: names of the functions of JAX that it is part of, the outermost first.
      place: where in the user's source it comes from.
    """

    own: JaxprEqn
    inputs: tuple[Value, ...]
    outputs: tuple[Variable, ...]
    within: tuple[str, ...]
    place: str

    @property
    def name(self) -> str:
        """Of the primitive."""
        return self.own.primitive.name

    @property
    def params(self) -> Mapping[str, typing.Any]:
        """Of the primitive."""
        return self.own.params

    @property
    def title(self) -> str:
        """As messages call it: what it is, and where."""
        inside = f" in {self.within[-1]}" if self.within else ""
        return f"{self.name}{inside} ({self.place})"

    def evaluated(self, inputs: Sequence[jax.Array]) -> list[jax.Array]:
        """What it makes of arrays."""
        return _evaluated(self.own, inputs)


@dataclasses.dataclass(frozen=True)
class Trace:
    """A function of one array.

    Attributes:
      input: what it reads.
      equations: in order.
      output: what it returns.
    """

    input: Variable
    equations: tuple[Equation, ...]
    output: Value

    def evaluated(self, x: jax.Array, wanted: Variable) -> jax.Array:
        """A variable's value for an input; `jax.jit` and `jax.vmap` may be around it."""
        values = {self.input: x}
        for equation in self.equations:
            if wanted in values:
                break
            inputs = [_read(values, each) for each in equation.inputs]
            values.update(zip(equation.outputs, equation.evaluated(inputs), strict=True))
        return values[wanted]


def traced(function: Callable[..., typing.Any], shape: tuple[int, ...]) -> Trace:
    """The equations of a function for a float32 input of such a shape.

    Raises:
      GraphError: it cannot be traced, or returns anything else than one array.
    """
    try:
        closed = jax.make_jaxpr(function)(jax.ShapeDtypeStruct(shape, np.dtype(np.float32)))
    except Exception as error:  # of whatever the function is made of
        text = str(error).strip().split("\n")[0]
        raise GraphError(
            f"the function cannot be traced for one float32 input of shape {shape}: "
            f"{type(error).__name__}: {text}; a function of one array expected, without Python's `if` "
            "on its values, and with the number of pictures left open"
        ) from error
    if len(closed.out_avals) != 1:
        raise GraphError(
            f"the function returns {len(closed.out_avals)} arrays: one expected, the logits; "
            "wrap it in a function that picks them"
        )
    inlining = _Inlining()
    start = Variable(shape, np.dtype(np.float32))
    (output,) = inlining.call(closed, [start], _Scope())
    return Trace(start, tuple(inlining.equations), output)


@dataclasses.dataclass(frozen=True)
class _Scope:
    """Where in nested calls an equation is.

    Attributes:
      within: names of the functions of JAX.
      caller: where the outermost one of them is called; JAX traces its own functions once, so what is in
        them knows their first caller only.
    """

    within: tuple[str, ...] = ()
    caller: str | None = None

    def entered(self, equation: JaxprEqn) -> _Scope:
        """In what an equation calls."""
        name = str(equation.params.get("name", "<lambda>"))
        if not (hasattr(jax.nn, name) or hasattr(jax.numpy, name) or name.startswith("_")):
            return self
        return _Scope((*self.within, name), self.place(equation))

    def place(self, equation: JaxprEqn) -> str:
        """Of an equation of it."""
        return self.caller or _place(equation)


class _Inlining:
    """The equations so far."""

    def __init__(self) -> None:
        self.equations: list[Equation] = []

    def call(
        self, called: ClosedJaxpr | Jaxpr, arguments: Sequence[Value], at: _Scope
    ) -> list[Value]:
        """What a jaxpr returns for these arguments."""
        consts, jaxpr = ((), called) if isinstance(called, Jaxpr) else (called.consts, called.jaxpr)
        values: dict[typing.Any, Value] = dict(zip(jaxpr.constvars, consts, strict=True))
        values.update(zip(jaxpr.invars, arguments, strict=True))
        for equation in jaxpr.eqns:
            inputs = [_read(values, each) for each in equation.invars]
            outputs = self.step(equation, inputs, at)
            values.update(zip(equation.outvars, outputs, strict=True))
        return [_read(values, each) for each in jaxpr.outvars]

    def step(self, equation: JaxprEqn, inputs: list[Value], at: _Scope) -> Sequence[Value]:
        """One equation: inlined, evaluated, or added."""
        name, params = equation.primitive.name, equation.params
        if name in _CALLS:
            return self.call(params[_CALLS[name]], inputs, at.entered(equation))
        if name == "cond" and not isinstance(inputs[0], Variable):
            return self.call(params["branches"][int(inputs[0])], inputs[1:], at)
        if not _draws(name) and not any(isinstance(each, Variable) for each in inputs):
            return _evaluated(equation, typing.cast(list[jax.Array], inputs))
        if name == "scan":
            unrolled = self.unrolled(params, inputs, at)
            if unrolled is not None:
                return unrolled
        avals: list[typing.Any] = [v.aval for v in equation.outvars]
        outputs = tuple(Variable(tuple(aval.shape), aval.dtype) for aval in avals)
        made = Equation(equation, tuple(inputs), outputs, at.within, at.place(equation))
        self.equations.append(made)
        return outputs

    def unrolled(
        self, params: Mapping[str, typing.Any], inputs: list[Value], at: _Scope
    ) -> list[Value] | None:
        """A loop over known arrays (layers of one shape), step by step; None for any other."""
        carried = params["num_consts"], params["num_consts"] + params["num_carry"]
        fixed, carry, over = inputs[: carried[0]], inputs[slice(*carried)], inputs[carried[1] :]
        made = len(params["jaxpr"].out_avals) - params["num_carry"]
        if made or any(isinstance(each, Variable) for each in over):
            return None
        turns = range(params["length"])
        for turn in reversed(turns) if params["reverse"] else turns:
            items = [typing.cast(jax.Array, each)[turn] for each in over]
            carry = self.call(params["jaxpr"], [*fixed, *carry, *items], at)
        return carry


def _draws(name: str) -> bool:
    """Whether a primitive makes random numbers: never at tracing, they would be the same for ever."""
    return name.startswith(("random_", "rng_", "threefry"))


def _read(values: Mapping[typing.Any, typing.Any], of: typing.Any) -> typing.Any:
    if isinstance(of, Literal):
        return jax.numpy.asarray(of.val, of.aval.dtype)  # pyright: ignore[reportAttributeAccessIssue]
    return of if isinstance(of, jax.Array | np.ndarray) else values[of]


def _evaluated(equation: JaxprEqn, inputs: Sequence[jax.Array]) -> list[jax.Array]:
    """What an equation makes of arrays: it is none of those calls that JAX binds otherwise."""
    made = equation.primitive.bind(*inputs, **equation.params)
    return list(made) if equation.primitive.multiple_results else [made]


def _place(equation: JaxprEqn) -> str:
    """File, line and function of the user's source, the innermost outside of libraries."""
    traceback = equation.source_info.traceback
    for frame in traceback.frames if traceback is not None else ():
        if not any(part in frame.file_name for part in _LIBRARIES) and frame.line_num:
            name = frame.function_name.rsplit(".", 1)[-1]
            return f"{os.path.basename(frame.file_name)}:{frame.line_num}, {name}"
    return "no line of yours"
