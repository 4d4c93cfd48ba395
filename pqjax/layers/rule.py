"""The shape of a rule: what one kind of node costs, and how both parties run it.

A rule sees a task (a node, the formats it reads, what was chosen for it) and a setting (what holds for
the whole network), never a plan.
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np
from jaxtyping import UInt, UInt8

from pqjax.graph.ir import Node, TensorType, Weights
from pqjax.he import Version
from pqjax.linear.choice import Choice
from pqjax.linear.job import Parts
from pqjax.linear.keys import Keys, Secrets
from pqjax.ot.source import Source
from pqjax.ot.tuning import Tuning
from pqjax.protocols.forms import Forms
from pqjax.protocols.party import Party
from pqjax.ring import Ring
from pqjax.wire.cost import NOTHING, Cost, total, work

Share = UInt[np.ndarray, "..."]


@dataclasses.dataclass(frozen=True)
class Setting:
    """How a network is run, whatever it computes.

    Attributes:
      source: how OTs are made.
      forms: forms of the small protocols.
      tuning: how much travels or is worked on at a time.
      masked_input: whether the client's input is shared by a message, as published systems do; else
        the client's share is the input itself and the server's is 0.
      batch: how many inputs an inference answers.
    """

    source: Source
    forms: Forms = Forms()
    tuning: Tuning = Tuning()
    masked_input: bool = True
    batch: int = 1


@dataclasses.dataclass(frozen=True)
class Task:
    """One node as it is to be run: the formats that it reads and, of a linear layer, its choice.

    Of a batch all tensors begin with an axis more, which their formats do not tell of.

    Attributes:
      own: whether what it reads is the client's own input, in the clear at the client.
      batch: how many inputs are worked on at a time.
    """

    node: Node
    sources: tuple[TensorType, ...]
    choice: Choice | None = None
    own: bool = False
    batch: int = 1

    @property
    def several(self) -> tuple[int, ...]:
        """How many inputs there are, where they are several: what shapes begin with."""
        return (self.batch,) if self.batch > 1 else ()

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the result."""
        return *self.several, *self.node.out.shape

    @property
    def elements(self) -> int:
        """Of the result."""
        return self.batch * self.node.out.n


@dataclasses.dataclass(frozen=True)
class StepCost:
    """A task's cost: work before the input is known, after it, and once for every client.

    Random OTs that it draws are counted, and priced where they are made.
    """

    offline: Cost = NOTHING
    online: Cost = NOTHING
    install: Cost = NOTHING

    @property
    def bits(self) -> int:
        """Payload bits of an inference."""
        return self.offline.bits + self.online.bits

    @property
    def both(self) -> Cost:
        """An inference's phases one after the other."""
        return self.offline + self.online


class Rule:
    """One kind of node. Rules without weights or an offline phase leave those parts as they are."""

    def cost(self, at: Setting, task: Task) -> StepCost:
        """What the task sends, exactly, and the random OTs that it draws."""
        return StepCost()

    def load(self, task: Task, weights: Weights, version: Version) -> object:
        """What the server keeps of a layer's weights for all sessions; None where there are none."""
        return None

    def hint(self, task: Task, own: Any, version: Version) -> UInt8[np.ndarray, " bytes"]:
        """What every client gets once, of what `load` made: `StepCost.install` bits."""
        return np.zeros(0, np.uint8)

    def prepare(self, party: Party, at: Setting, task: Task, own: Any, keys: Keys | None) -> object:
        """The part that needs no input, at both parties at once; what `run` uses up.

        `own` is what this party alone has: what `load` made, at the server; at the client the hint.
        `keys` are the inference's, where it has any.
        """
        return None

    def run(self, party: Party, at: Setting, task: Task, own: Any, ready: Any, *x: Share) -> Share:
        """Shares of the node's tensor, in its shape, from shares of what it reads."""
        raise NotImplementedError


class Multiplying(Rule):
    """A rule for what is done in one of several ways: the task's choice says in which.

    Attributes:
      parts: of a cost, as reports call them.
    """

    parts: ClassVar[tuple[str, ...]]

    def unfit(self, task: Task) -> str | None:
        """Why a layer cannot be computed as its choice says; None where it can."""
        raise NotImplementedError

    def guards(self, choice: Choice) -> bool:
        """Whether shares made in a way have guard bits."""
        raise NotImplementedError

    def exact(self, choice: Choice) -> bool:
        """Whether sums made in a way are never off by one."""
        return True

    def options(self, task: Task, inferences: int) -> Sequence[Choice]:
        """Its choice with all that is to be found for the layer, for so many inferences of a client."""
        raise NotImplementedError

    def secrets(self, task: Task) -> Secrets:
        """What it uses of an inference's secrets."""
        return Secrets()

    def by_part(self, at: Setting, task: Task) -> Parts:
        """The cost of each of `parts` in every phase; those that are not there are left out."""
        raise NotImplementedError

    def describe(self, task: Task) -> str:
        """The layer's geometry in a sentence."""
        raise NotImplementedError

    def misguarded(self, task: Task) -> str | None:
        """Why its format is not its shares': guard bits where its way leaves none, or the other way."""
        assert task.choice is not None
        guards, guard = self.guards(task.choice), task.node.out.guard
        if guards == bool(guard):
            return None
        return f"leaves {'guard bits' if guards else 'no guard bits'}, but declares {guard}"

    def cost(self, at: Setting, task: Task) -> StepCost:
        """That of all parts, in their order."""
        install, offline, online = (total(parts.values()) for parts in self.by_part(at, task))
        return StepCost(offline, online, install)


@dataclasses.dataclass(frozen=True)
class Local(Rule):
    """Nothing is sent: every party does the same to its share, by step(node, *shares)."""

    step: Callable[..., Share]

    def cost(self, at: Setting, task: Task) -> StepCost:
        """No message."""
        read = task.batch * sum(x.n for x in task.sources)
        return StepCost(online=work("steps", 1) + work("words", read + task.elements))

    def run(self, party: Party, at: Setting, task: Task, own: Any, ready: Any, *x: Share) -> Share:
        """`step(node, *x)`, of shares with as many guard bits as the result's."""
        guard = task.node.out.guard
        each = (_guarded(y, t, guard) for y, t in zip(x, task.sources, strict=True))
        return self.step(task.node, *each).reshape(task.shape)


def _guarded(share: Share, x: TensorType, guard: int) -> Share:
    """Shares of 2^g x + e with e = 0, or of as many more guard bits: shifted in the wider ring."""
    ring = Ring(x.bits + guard)
    return share if guard == x.guard else ring.shift_left(share.astype(ring.dtype), guard - x.guard)


@dataclasses.dataclass(frozen=True)
class Elementwise(Rule):
    """The same for every element: cut into tiles, so that memory does not grow with the image.

    Attributes:
      price: (setting, node, its source's format, n) -> what n elements of the result cost.
      step: (party, setting, node, its source's format, share) -> shares of a tile's result; the share
        is cut along its last axis.
      spread: (node, share) -> the share in the form that is cut: by default flat.
    """

    price: Callable[[Setting, Any, TensorType, int], Cost]
    step: Callable[[Party, Setting, Any, TensorType, Share], Share]
    spread: Callable[[Any, Share], Share] = lambda node, x: x.reshape(-1)

    def cost(self, at: Setting, task: Task) -> StepCost:
        """Tile after tile; all are alike but the last."""
        price = functools.partial(self.price, at, task.node, task.sources[0])
        each = [(work("steps", 1) + price(n)).repeated(k) for n, k in _tiles(at, task) if k]
        return StepCost(online=total(each))

    def tiles(self, at: Setting, task: Task) -> list[int]:
        """How many elements of the result are worked on at a time, one tile after the other."""
        return list(itertools.chain(*([n] * k for n, k in _tiles(at, task))))

    def run(self, party: Party, at: Setting, task: Task, own: Any, ready: Any, *x: Share) -> Share:
        """Tile by tile."""
        node, source = task.node, task.sources[0]
        whole, done, first = self.spread(node, x[0]), [], 0
        for n in self.tiles(at, task):
            done.append(self.step(party, at, node, source, whole[..., first : first + n]))
            first += n
        return (done[0] if len(done) == 1 else np.concatenate(done)).reshape(task.shape)


def _tiles(at: Setting, task: Task) -> tuple[tuple[int, int], ...]:
    """How many elements of the result are worked on at a time, and how often: twice such a pair."""
    n = task.elements
    if not n:
        return ()
    # Alike, and of whole bytes of bits.
    each = -(-n // -(-n // at.tuning.tile_elements) // 8) * 8
    return (each, n // each), (n % each, int(n % each > 0))
