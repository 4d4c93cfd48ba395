"""Convolutions and dense layers: a product by the method that was chosen, then the server's bias."""

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Int, UInt8

from pqjax.graph.ir import Conv, Dense, Weights
from pqjax.he import Version
from pqjax.layers.rule import Multiplying, Setting, Share, Task
from pqjax.linear.choice import Choice
from pqjax.linear.job import Job, Parts
from pqjax.linear.keys import Keys, Secrets
from pqjax.linear.map import LinearMap
from pqjax.linear.shared import SHARED
from pqjax.linear.way import Way, way_of
from pqjax.protocols.party import Party
from pqjax.ring import Ring

_mapped = functools.lru_cache(maxsize=1 << 10)(LinearMap)


@dataclasses.dataclass(frozen=True, repr=False)  # the model
class Loaded:
    """A layer's parameters at the server: the weights as its way uses them, and the bias."""

    encoded: Any
    bias: Int[np.ndarray, " K"]


def job_of(task: Task) -> Job:
    """What a linear layer multiplies."""
    node, x = task.node, task.sources[0]
    assert isinstance(node, (Conv, Dense))
    if isinstance(node, Dense):
        geometry = LinearMap.pointwise((1, 1), x.n, node.out.n, task.batch)
    else:
        high, wide, channels = x.shape
        windows = node.kernel, node.stride, node.padding, node.dilation
        channels = channels, node.out.shape[2]
        geometry = _mapped((high, wide), *windows, node.groups, *channels, task.batch)
    out, known = node.out, (node.square_bits, node.overflows)
    return Job(geometry, node.weight_bits, x, out.bits, out.guard, *known)


class LinearRule(Multiplying):
    """A linear layer: its choice says in which way."""

    parts = (
        "hint",
        "key",
        "low bits",
        "extension",
        "product",
        "wrap & mux",
        "masked input",
        "ciphertexts",
        "reply",
        "wraps",
    )

    def unfit(self, task: Task) -> str | None:
        """Why a layer cannot be computed as its choice says; None where it can."""
        assert task.choice is not None
        if task.choice.method in SHARED:
            return "multiplies two shared operands"
        return _way(task).unfit(job_of(task), task.own)

    def guards(self, choice: Choice) -> bool:
        """Whether shares made in a way have guard bits."""
        return way_of(choice).guards

    def exact(self, choice: Choice) -> bool:
        """Whether sums made in a way are never off by one."""
        return way_of(choice).exact

    def options(self, task: Task, inferences: int) -> Sequence[Choice]:
        """Its choice with all that is to be found for the layer."""
        choice = task.choice
        assert choice is not None
        return way_of(choice).options(choice, job_of(task), inferences)

    def secrets(self, task: Task) -> Secrets:
        """What it uses of an inference's secrets."""
        return _way(task).secrets(job_of(task))

    def by_part(self, at: Setting, task: Task) -> Parts:
        """The cost of each of `parts` in every phase; those that are not there are left out."""
        return _way(task).parts(at.source, at.forms, job_of(task))

    def describe(self, task: Task) -> str:
        """The layer's geometry in a sentence."""
        job = job_of(task)
        m = job.map
        groups = f"in {m.groups} groups, each " if m.groups > 1 else ""
        columns = m.images * math.prod(m.out_image)
        shape = f"({m.fan_out} x {m.terms}) ({m.terms} x {columns})"
        return f"As a product {groups}{shape}, accumulated in {job.bits} bits"

    def load(self, task: Task, weights: Weights, version: Version) -> Loaded:
        """Weights encoded once, bias at the accumulator's scale."""
        name = task.node.name
        weight = np.asarray(weights[f"{name}/weight"])
        encoded = _way(task).load(job_of(task), weight, name, version)
        bias = np.array(weights[f"{name}/bias"])
        bias.flags.writeable = False
        return Loaded(encoded, bias)

    def hint(self, task: Task, own: Loaded, version: Version) -> UInt8[np.ndarray, " bytes"]:
        """What every client gets once."""
        return _way(task).hint(job_of(task), own.encoded, task.node.name, version)

    def prepare(self, party: Party, at: Setting, task: Task, own: Any, keys: Keys | None) -> object:
        """What needs no input, in the layer's way; `own` is the client's hint, or what `load` made."""
        own = own.encoded if party.rank == 0 else own
        return _way(task).prepare(party, job_of(task), task.node.name, own, keys)

    def run(self, party: Party, at: Setting, task: Task, own: Any, ready: Any, *x: Share) -> Share:
        """Shares of W x + b."""
        job, out = job_of(task), task.node.out
        share = x[0].reshape(job.map.in_shape)
        encoded = own.encoded if party.rank == 0 else own
        y = _way(task).run(party, at.forms, job, encoded, share, ready).reshape(task.shape)
        if party.rank == 1:
            return y
        ring = Ring(out.share_bits)
        return ring.add(y, ring.reduce(own.bias.astype(np.int64) << out.guard))


def _way(task: Task) -> Way:
    assert task.choice is not None
    return way_of(task.choice)


LINEAR = LinearRule()
