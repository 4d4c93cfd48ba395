"""Answers of many inputs, the integer network's and private ones, by processes or a Ray cluster."""

import contextlib
import functools
import itertools
import multiprocessing
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor
from typing import Any, Protocol

import numpy as np
from jaxtyping import Int

from pqjax.engine import run_local
from pqjax.engine.process import settle
from pqjax.errors import InputError, WireError
from pqjax.fleet.ray import attached
from pqjax.graph import Graph, load_model, reference
from pqjax.planner import plan
from pqjax.planner.plan import Plan

Question = tuple[Any, ...]


def answers(path: str, x: Int[np.ndarray, "n ..."]) -> Int[np.ndarray, "n ..."]:
    """The integer network's, of the network file at a path."""
    graph, weights, _ = _model(path)
    return np.asarray(reference(graph, weights, x))


def differences(path: str, protocol: str, x: Int[np.ndarray, "*shape"]) -> int:
    """How many outputs of a private inference, both parties in this process, are not the network's."""
    graph, weights, _ = _model(path)
    private = np.asarray(run_local(_plan(path, protocol), weights, x).output)
    return int((private != np.asarray(reference(graph, weights, x[None]))[0]).sum())


@functools.cache
def _model(path: str) -> tuple[Graph, dict[str, np.ndarray], dict[str, Any]]:
    settle()  # of a process that is there for this alone
    return load_model(path)


@functools.cache
def _plan(path: str, protocol: str) -> Plan:
    return plan(_model(path)[0], protocol)


class Hands(Protocol):
    """Where questions are answered.

    Attributes:
      count: how many at a time.
    """

    count: int

    def begin(self, function: Callable, question: Question) -> Callable[[], Any]:
        """Starts one; what waits for the answer."""
        ...


@contextlib.contextmanager
def processes(count: int) -> Iterator[Hands]:
    """So many processes of this machine.

    Raises:
      WireError: one of them died.
    """
    if count < 1:
        raise InputError(f"at least 1 process expected, got {count}")
    # Forking a process that computes with threads may leave locks held in the child.
    with ProcessPoolExecutor(count, multiprocessing.get_context("spawn")) as pool:

        class Local:
            """The pool's."""

            def __init__(self) -> None:
                self.count = count

            def begin(self, function: Callable, question: Question) -> Callable[[], Any]:
                """As `Hands`."""
                return pool.submit(function, *question).result

        try:
            yield Local()
        except BrokenExecutor as error:
            raise WireError(f"a process that evaluates died (out of memory?): {error}") from error
        finally:
            pool.shutdown(cancel_futures=True)


@contextlib.contextmanager
def cluster(address: str) -> Iterator[Hands]:
    """The cores of a Ray cluster, see `attached`; files are read on the nodes.

    Raises:
      InputError, PeerGone: Ray is not installed, or no cluster is there.
      WireError: a node died too often.
    """
    with attached(address) as made:

        class Remote:
            """The cluster's."""

            def __init__(self) -> None:
                self.count = max(1, int(made.cluster_resources().get("CPU", 1)))

            def begin(self, function: Callable, question: Question) -> Callable[[], Any]:
                """As `Hands`."""
                task = made.remote(num_cpus=1)(function).remote(*question)
                return functools.partial(made.get, task)

        try:
            yield Remote()
        except made.exceptions.RayTaskError as error:
            raise error.cause from error
        except made.exceptions.RayError as error:
            raise WireError(f"the cluster cannot go on: {error}") from error


def in_order(hands: Hands, function: Callable, questions: Iterable[Question]) -> Iterator[Any]:
    """Answers in the questions' order; no more are begun than keep all hands at work."""
    under_way: deque[Callable[[], Any]] = deque()
    for question in questions:
        under_way.append(hands.begin(function, question))
        if len(under_way) >= 2 * hands.count:
            yield under_way.popleft()()
    while under_way:
        yield under_way.popleft()()


def right_among(outputs: Int[np.ndarray, "n ..."], labels: Int[np.ndarray, " n"], top: int) -> int:
    """How many labels are among the `top` likeliest classes; of equal outputs the first counts as more.

    Of a network that answers with a class, how many are that class.
    """
    flat = outputs.reshape(len(outputs), -1)
    if flat.shape[1] == 1:
        return int((flat[:, 0] == labels).sum())
    likeliest = np.argsort(-flat, axis=1, kind="stable")[:, :top]
    return int((likeliest == labels[:, None]).any(axis=1).sum())


def parts(count: int, most: int) -> Sequence[slice]:
    """Slices of at most so many that cover `count`."""
    return [slice(i, min(i + most, count)) for i in itertools.islice(range(0, count, most), count)]
