"""How a client comes by a plan's hints: it is told which they are, and gets those it lacks.

1. server -> client   their digest and seed, in every session.   `HINTS_BITS` bits
2. client -> server   if it has no such hints: the first layer whose hint it lacks
3. server -> client   the hints from there on
"""

import contextlib
import io
import pathlib
import shutil
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np

from pqjax.engine.commands import INSTALL, ask
from pqjax.engine.execute import Progress
from pqjax.engine.hints import (
    DIGEST_BYTES,
    HintFolder,
    Hints,
    header,
    hint_bytes,
    places,
    read_hints,
)
from pqjax.engine.memory import available_bytes, check_room
from pqjax.errors import CheckpointError
from pqjax.planner.plan import HINTS_BITS, HINTS_LAYER, Plan, Step
from pqjax.protocols.party import Party

_MESSAGE_BYTES = 1 << 22  # the next one travels while this one is written to a disk


def hint_messages(bits: int) -> Iterator[slice]:
    """How a hint of so many bits is cut into messages, as slices of its bytes."""
    n = bits // 8
    for at in range(0, n, _MESSAGE_BYTES):
        yield slice(at, min(at + _MESSAGE_BYTES, n))


def announce_hints(party: Party, hints: Hints) -> None:
    """Rank 0 says which hints it has, 1."""
    with party.messenger.layer("setup", HINTS_LAYER):
        told = np.frombuffer(hints.digest + hints.seed, np.uint8)
        party.messenger.send(told, HINTS_BITS)


def send_hints(
    party: Party, plan: Plan, hints: Hints, place: int, progress: Progress | None
) -> None:
    """Rank 0 sends the hints of `plan.hinted` from a place on, 3."""
    own = hints.by_layer(plan)
    for i, step in enumerate(plan.hinted[place:], place):
        with _layer(party, plan, i, progress):
            for part in hint_messages(step.cost.install.bits):
                packed = own[step.node.name][part]
                party.messenger.send(packed, 8 * packed.size)


class Installation:
    """A client's hints for one session: found in a file, or asked for."""

    def __init__(
        self, party: Party, plan: Plan, folder: pathlib.Path | None, file: pathlib.Path | None
    ):
        """Hears which hints the server has, 1, and looks for them: in the file, then in the folder.

        Raises:
          CheckpointError: the file cannot be used with this server, or at all.
        """
        self._party, self._plan = party, plan
        self._folder = HintFolder(folder) if folder else None
        with party.messenger.layer("setup", HINTS_LAYER):
            told = party.messenger.receive(HINTS_BITS).tobytes()
        self._digest, self._seed = told[:DIGEST_BYTES], told[DIGEST_BYTES:]
        self.hints: Hints | None = None
        if file is not None:
            self.hints = read_hints(file, plan)
            if self.hints.digest != self._digest:
                raise CheckpointError(
                    f"{file} holds hints of another version of the model than the server has: get the "
                    "server's, or connect without a file of hints"
                )
        elif self._folder is not None:
            self.hints = self._folder.find(self._digest, plan)

    def complete(self, progress: Progress | None) -> Hints:
        """The hints; what is lacking is asked for, 2 and 3, and kept where there is a folder.

        Raises:
          CheckpointError: what came, or an earlier part of it, is not what the server announced; or the
            folder cannot be written to.
          PlanError: there is no room for them.
        """
        if self.hints is None:
            if self._folder is None:
                check_room(hint_bytes(self._plan), available_bytes(), "memory")
                file = io.BytesIO()
                self._fetch(0, file, progress)
                self.hints = self._checked(Hints.of(np.frombuffer(file.getbuffer(), np.uint8)))
            else:
                try:
                    self.hints = self._kept(self._folder, progress)
                except OSError as error:
                    why = error.strerror or error
                    raise CheckpointError(
                        f"cannot keep hints in {self._folder}: {why}: make room, or keep them elsewhere"
                    ) from error
        return self.hints

    def _kept(self, folder: HintFolder, progress: Progress | None) -> Hints:
        own = places(self._plan)
        with folder.part(self._digest) as path:
            lacking = hint_bytes(self._plan) - (path.stat().st_size if path.exists() else 0)
            check_room(lacking, shutil.disk_usage(path.parent).free, f"room in {path.parent}")
            with open(path, "r+b" if path.exists() else "w+b") as file:
                whole_layers = [part for part in own.values() if part.stop <= path.stat().st_size]
                file.truncate(whole_layers[-1].stop if whole_layers else 0)
                file.seek(0, 2)
                self._fetch(len(whole_layers), file, progress)
            try:
                found = self._checked(Hints.of(np.memmap(path, np.uint8, "r")))
            except CheckpointError:
                path.unlink()
                raise
            folder.keep(path, self._digest)
        return found

    def _fetch(self, place: int, file: BinaryIO, progress: Progress | None) -> None:
        """Writes the header, if nothing is there, and the hints from a place on."""
        plan, party = self._plan, self._party
        if not place:
            file.write(header(plan, self._seed))
        if place == len(plan.hinted):
            return
        ask(party, INSTALL, party.messenger.trace.stored, place)
        for i, step in enumerate(plan.hinted[place:], place):
            with _layer(party, plan, i, progress):
                parts = hint_messages(step.cost.install.bits)
                sizes = [8 * (part.stop - part.start) for part in parts]
                for packed in party.messenger.receive_each(sizes):
                    file.write(packed.data)

    def _checked(self, found: Hints) -> Hints:
        found.check(self._plan, "what the server sent")
        if found.digest != self._digest:
            raise CheckpointError(
                "the hints are not those that the server announced: they were altered on the way or on "
                "this machine's disk. They are dropped; connect again to get them anew"
            )
        return found


@contextlib.contextmanager
def _layer(party: Party, plan: Plan, i: int, progress: Progress | None):
    step: Step = plan.hinted[i]
    if progress is not None:
        progress(f"install/{step.node.name}", i, len(plan.hinted))
    with party.messenger.layer("install", step.node.name):
        yield
    if progress is not None and i + 1 == len(plan.hinted):
        progress("install", i + 1, i + 1)
