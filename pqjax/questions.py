"""What a server is asked about: read before dialling, fitted once the network is known."""

import io
import math
import typing

import numpy as np
from jaxtyping import Int, UInt8

from pqjax.errors import DataError, InputError, listed, shown
from pqjax.graph import Graph
from pqjax.graph.reference import check_input
from pqjax.graph.strict_json import parse
from pqjax.pictures import picture_input, read_picture
from pqjax.planner import Plan

# What numpy may raise over a file.
_UNREADABLE = (OSError, ValueError, EOFError, OverflowError, MemoryError, SyntaxError)


class Picture(typing.NamedTuple):
    """A picture file: its path and its pixels."""

    path: str
    pixels: UInt8[np.ndarray, "h w 3"]


class Integers(typing.NamedTuple):
    """An array file: its path and what is in it, mapped."""

    path: str
    values: Int[np.ndarray, "*shape"]


def read_question(path: str) -> Picture | Integers:
    """Reads an .npy file of integers, or a picture.

    Raises:
      DataError: it is neither, or an array of something else.
    """
    scheme, url, rest = path.partition("://")
    if url:
        what = f"give {shown(rest)}" if scheme == "file" else "download it first, and give the file"
        raise DataError(f"{shown(path)} is a URL, and pqjax reads files only: {what}")
    if not path.endswith(".npy"):
        return Picture(path, read_picture(path))
    try:
        # Mapped, not read: a header that declares more than the file holds is refused, not allocated.
        given = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError as error:
        raise DataError(f"no input at {path}") from error
    except _UNREADABLE as error:
        raise DataError(f"cannot read the input {path}: {error}") from error
    return _integers(path, given)


def question_of(raw: bytes, called: str) -> Picture | Integers:
    """The same of what is in such a file, for errors to call so; of integers in lists, too.

    Args:
      raw: a picture, an .npy file, or JSON: {"input": lists of lists of integers}.
      called: what it is called.

    Raises:
      DataError: it is none of these.
    """
    if raw.startswith(np.lib.format.MAGIC_PREFIX):
        return _integers(called, _array(raw, called))
    if not raw.lstrip()[:1] == b"{":
        return Picture(called, read_picture(io.BytesIO(raw), called))
    try:
        tree = parse(raw, len(raw))
        if set(tree) != {"input"}:
            raise InputError(f"an object with one key, input, expected, got {listed(tree)}")
        return _integers(called, np.asarray(tree["input"]))
    except (InputError, ValueError, OverflowError) as error:
        raise DataError(f"cannot read the input {called}: {error}") from error


def _array(raw: bytes, called: str) -> np.ndarray:
    """The array in an .npy file's bytes, not copied."""
    form, file = np.lib.format, io.BytesIO(raw)
    try:
        version = form.read_magic(file)
        read = form.read_array_header_1_0 if version == (1, 0) else form.read_array_header_2_0
        shape, by_columns, dtype = read(file)
        count = math.prod(shape)
        given = np.frombuffer(raw, dtype, count, file.tell()) if count else np.empty(0, dtype)
        return given.reshape(shape, order="F" if by_columns else "C")
    except _UNREADABLE as error:
        raise DataError(f"cannot read the input {called}: {error}") from error


def _integers(path: str, given: np.ndarray) -> Integers:
    if not isinstance(given, np.ndarray) or given.ndim == 0 or given.size == 0:
        raise DataError(f"{path} holds no input: one array expected, with at least one element")
    if given.dtype.kind not in "iu":
        raise DataError(
            f"{path} holds {given.dtype}, and the network takes integers: of a picture with 8-bit "
            "pixels pixel - 128 where the input is signed (see `pqjax plan`), as numpy.int64"
        )
    return Integers(path, given)


def likely_inputs(given: Picture | Integers) -> int:
    """How many inputs these are, before the network is known: one has one axis or three."""
    return 1 if isinstance(given, Picture) or given.values.ndim % 2 else len(given.values)


def fitted(
    graph: Graph, given: Picture | Integers, shorter: int | None = None
) -> tuple[Int[np.ndarray, "*shape"], str]:
    """A batch of inputs for a network, checked, and what was done to make it (empty: nothing).

    Pictures are scaled as `fit_picture` says.

    Raises:
      DataError: it does not fit the network's input; shows both.
    """
    out = graph.input.out
    if isinstance(given, Picture):
        height, width = given.pixels.shape[:2]
        try:
            batch = picture_input(graph, given.pixels, shorter)[None]
        except InputError as error:
            raise DataError(f"{given.path}: {error}") from error
        done = []
        if (height, width) != out.shape[:2]:
            done.append(f"scaled and cut from {width}x{height} to {out.shape[1]}x{out.shape[0]}")
        if out.shape[2] == 1 and (given.pixels != given.pixels[..., :1]).any():
            done.append("made grey")
        return batch, " and ".join(done)
    try:
        return check_input(graph, given.values), ""
    except InputError as error:
        shape, dtype = given.values.shape, given.values.dtype
        raise DataError(f"{given.path}, {dtype} of shape {shape}: {error}") from error


def in_batches(plan: Plan, inputs: Int[np.ndarray, "n ..."]) -> list[Int[np.ndarray, "..."]]:
    """What each inference is asked about: one input, or as many as the plan is for.

    Raises:
      DataError: they are not a whole number of batches.
    """
    if plan.batch == 1:
        return list(inputs)
    if len(inputs) % plan.batch:
        raise DataError(
            f"the server answers {plan.batch} inputs at a time, got {len(inputs)}: give a multiple, or "
            "ask for a plan for another batch"
        )
    return list(inputs.reshape(-1, plan.batch, *inputs.shape[1:]))
