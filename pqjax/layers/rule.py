"""The shape of a rule: what one kind of node costs, and how both parties run it.

A rule sees a task (a node, the formats it reads, what was chosen for it) and a setting (what holds for
the whole network), never a plan. What it costs is said in pieces, in the order in which it runs them:
before each piece the random OTs that it draws are made, if the network is so large that they are made
where they are used.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import UInt, UInt8

from pqjax.graph.ir import Node, TensorType, Weights
from pqjax.he import Version
from pqjax.linear.choice import Choice
from pqjax.linear.keys import Keys
from pqjax.ot.source import Source
from pqjax.ot.tuning import Tuning
from pqjax.protocols.forms import Forms
from pqjax.protocols.party import Party
from pqjax.ring import Ring
from pqjax.wire.cost import Cost, work

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
      streamed: whether random OTs are made where they are used, and not all ahead.
    """

    source: Source
    forms: Forms = Forms()
    tuning: Tuning = Tuning()
    masked_input: bool = True
    streamed: bool = False


@dataclasses.dataclass(frozen=True)
class Task:
    """One node as it is to be run: the formats that it reads and, of a linear layer, its choice.

    `own` is whether what it reads is the client's own input, in the clear at the client.
    """

    node: Node
    sources: tuple[TensorType, ...]
    choice: Choice | None = None
    own: bool = False


class Pieces(NamedTuple):
    """What a task costs, piece by piece: before the input is known, after it, and once a client."""

    offline: tuple[Cost, ...] = ()
    online: tuple[Cost, ...] = ()
    install: tuple[Cost, ...] = ()  # once, what depends on the weights alone


class Rule:
    """One kind of node. Rules without weights or an offline phase leave those parts as they are."""

    def cost(self, at: Setting, task: Task) -> Pieces:
        """What the task sends, exactly, and the random OTs that it draws."""
        return Pieces()

    def load(self, task: Task, weights: Weights, version: Version) -> object:
        """What the server keeps of a layer's weights for all sessions; None where there are none."""
        return None

    def hint(self, task: Task, own: Any, version: Version) -> UInt8[np.ndarray, " bytes"]:
        """What every client gets once, of what `load` made: `Pieces.install` bits."""
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


@dataclasses.dataclass(frozen=True)
class Local(Rule):
    """Nothing is sent: every party does the same to its share, by step(node, *shares)."""

    step: Callable[..., Share]

    def cost(self, at: Setting, task: Task) -> Pieces:
        """No message."""
        read = sum(x.n for x in task.sources)
        return Pieces(online=(work("steps", 1) + work("words", read + task.node.out.n),))

    def run(self, party: Party, at: Setting, task: Task, own: Any, ready: Any, *x: Share) -> Share:
        """`step(node, *x)`, of shares with as many guard bits as the result's."""
        guard = task.node.out.guard
        return self.step(
            task.node, *(_guarded(y, t, guard) for y, t in zip(x, task.sources, strict=True))
        )


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

    def cost(self, at: Setting, task: Task) -> Pieces:
        """A piece per tile."""
        parts = _tiles(at, task)
        price = functools.partial(self.price, at, task.node, task.sources[0])
        each = {n: work("steps", 1) + price(n) for n in dict.fromkeys(parts)}
        return Pieces(online=tuple(each[n] for n in parts))

    def run(self, party: Party, at: Setting, task: Task, own: Any, ready: Any, *x: Share) -> Share:
        """Tile by tile."""
        node, source = task.node, task.sources[0]
        whole, done, first = self.spread(node, x[0]), [], 0
        for n in _tiles(at, task):
            make_ots(party, at, lambda n=n: self.price(at, node, source, n))
            done.append(self.step(party, at, node, source, whole[..., first : first + n]))
            first += n
        return (done[0] if len(done) == 1 else np.concatenate(done)).reshape(node.out.shape)


def _tiles(at: Setting, task: Task) -> list[int]:
    """How many elements of the result are worked on at a time."""
    n = task.node.out.n
    if not n:
        return []
    # Alike, and of whole bytes of bits.
    each = -(-n // -(-n // at.tuning.tile_elements) // 8) * 8
    return [each] * (n // each) + [n % each] * (n % each > 0)


def make_ots(party: Party, at: Setting, price: Callable[[], Cost]) -> None:
    """Makes the random OTs that a piece of that price will draw, where that is done piece by piece."""
    if at.streamed:
        party.fill(price().rots)
