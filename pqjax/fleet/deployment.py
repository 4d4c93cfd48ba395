"""What a fleet is deployed as: models, bounds, and what every replica gets of its node."""

import dataclasses
import pathlib

from pqjax.engine.desk import Answers, Limits
from pqjax.engine.server import DRAIN_S
from pqjax.errors import InputError
from pqjax.fleet.scaling import Scale
from pqjax.service.offer import Offer
from pqjax.wire.tls import Tls


@dataclasses.dataclass(frozen=True)
class Deployment:
    """A fleet. Files in it are read by every replica on its own node: a shared folder, or one image.

    Attributes:
      offer: the models, all of which every replica serves.
      scale: how many replicas, and seats of each.
      each: sessions of one client at a time, in the whole fleet; None: as many as there are.
      answers: of one client in a day (UTC), in the whole fleet; None: no limit.
      books: a file in which the directory counts them, so that another one in its place forgets none.
      cores: of a node, for a replica; as many worker processes serve its sessions.
      memory_bytes: likewise; what its sessions may take together.
      tls: a server's certificates; all replicas have the same.
      insecure_plaintext: do without off loopback, on purpose.
      drain_s: a replica that is ended lets sessions finish for so long.
    """

    offer: Offer
    scale: Scale = Scale()
    each: int | None = None
    answers: int | None = None
    books: pathlib.Path | None = None
    cores: int = 1
    memory_bytes: int | None = None
    tls: Tls | None = None
    insecure_plaintext: bool = False
    drain_s: float = DRAIN_S

    def __post_init__(self) -> None:
        if self.cores < 1:
            raise InputError(f"a replica needs at least 1 core, got {self.cores}")
        for what, n in ("session", self.each), ("answer a day", self.answers):
            if n is not None and n < 1:
                raise InputError(f"a client may have at least 1 {what}, got {n}")
        _ = self.limits  # checks them

    @property
    def limits(self) -> Limits:
        """Of one replica."""
        return Limits(self.scale.seats, memory_bytes=self.memory_bytes)

    @property
    def titles(self) -> frozenset[str]:
        """By what clients may ask for the models: NAME@VERSION, or NAME."""
        titles = {title for title, _ in self.offer.models}
        return frozenset(titles | {title.partition("@")[0] for title in titles})

    def check_files(self) -> None:
        """Says what is not there now, rather than from a replica.

        Raises:
          InputError: a model's file or a certificate cannot be read here.
          DataError: the books cannot.
        """
        for _, path in self.offer.models:
            if not pathlib.Path(path).is_file():
                raise InputError(f"no network file at {path}")
        if self.tls is not None:
            self.tls.context(server=True)
        Answers(self.books)
