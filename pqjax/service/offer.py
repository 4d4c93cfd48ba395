"""What a server is started with: models and how to plan, as data that workers get, too."""

import dataclasses
import pathlib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pqjax.engine.catalogue import Catalogue, Title
from pqjax.engine.execute import Progress
from pqjax.engine.model import ServedModel
from pqjax.errors import InputError
from pqjax.graph import Graph, load_model
from pqjax.planner import plan
from pqjax.planner.document import read_plan
from pqjax.planner.plan import Plan
from pqjax.service.kept_plans import kept_plan
from pqjax.wire.channel import DEADLINE_S
from pqjax.wire.link import parse_link
from pqjax.wire.work import Rates

_MOST_NAME = 64


@dataclasses.dataclass(frozen=True)
class Planning:
    """How models are planned for, see `pqjax.plan`; the link as text."""

    protocol: str = "pqjax"
    link: str | None = None
    inferences: int = 1
    ot: str | None = None
    objective: str | None = None
    batch: int = 1

    def plan(self, graph: Graph, meta: Mapping[str, Any], rates: Rates) -> Plan:
        """The plan for a network; clients are told what its file says of its answers."""
        return plan(
            graph, self.protocol, None if self.link is None else parse_link(self.link),
            classes=meta.get("classes"), inferences=self.inferences, ot=self.ot,
            objective=self.objective, rates=rates, batch=self.batch, shorter=meta.get("shorter"),
        )  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Offer:
    """Models to serve.

    Attributes:
      models: title and network file of each, in order.
      planning: for all of them.
      hints: a folder for what clients get once, and for plans; None: made anew by every server.
    """

    models: tuple[tuple[str, str], ...]
    planning: Planning = Planning()
    hints: str | None = None

    def catalogue(
        self,
        rates: Rates,
        documents: Sequence[bytes] | None = None,
        progress: Progress | None = None,
    ) -> Catalogue:
        """Reads, plans and checks all models.

        Args:
          rates: of this machine.
          documents: plans that were made before, in the models' order: these and no others.
          progress: told of hints that are made.

        Raises:
          CheckpointError, GraphError, PlanError, InputError: one of them cannot be served.
        """
        made = []
        for at, (title, path) in enumerate(self.models):
            graph, weights, meta = load_model(path)
            if documents is None:
                planned = self._planned(graph, meta, rates)
            else:
                planned = read_plan(documents[at], DEADLINE_S)
            served = ServedModel.of(planned, weights, self.hints, progress)
            made.append((Title.parse(title), served))
        return Catalogue(made)

    def _planned(self, graph: Graph, meta: Mapping[str, Any], rates: Rates) -> Plan:
        def make() -> Plan:
            return self.planning.plan(graph, meta, rates)

        if self.hints is None:
            return make()
        wishes = dataclasses.asdict(self.planning)
        return kept_plan(pathlib.Path(self.hints), wishes, graph, meta, rates, make)


def titled(texts: Iterable[str]) -> tuple[tuple[str, str], ...]:
    """Of FILE, NAME=FILE and NAME@VERSION=FILE: titles and files; a file's name is its title else.

    Raises:
      InputError: a title that is none.
    """
    found = []
    for text in texts:
        name, given, path = text.partition("=")
        if not given or pathlib.Path(text).exists():
            path = text
            name = re.sub(r"[^A-Za-z0-9._-]+", "-", pathlib.Path(text).stem).strip("-._")
            name = name[:_MOST_NAME] or "model"
        if not path:
            raise InputError(f"{text}: a network file expected behind the =")
        found.append((str(Title.parse(name)), path))
    return tuple(found)
