"""The models that a server has, by name and version."""

import dataclasses
import re
from collections.abc import Sequence

from pqjax.engine.model import ServedModel
from pqjax.errors import InputError, listed, shown
from pqjax.wire.handshake import Asked, name_digest

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclasses.dataclass(frozen=True)
class Title:
    """What a model is called: a name, and which version of it, if there are several.

    As text NAME or NAME@VERSION, letters, digits and ._- each.
    """

    name: str
    version: str = ""

    @classmethod
    def parse(cls, text: str) -> "Title":
        """Of its text.

        Raises:
          InputError: it is none.
        """
        name, at, version = text.partition("@")
        if not _NAME.fullmatch(name) or (at and not _NAME.fullmatch(version)):
            raise InputError(
                f"NAME or NAME@VERSION expected, 64 letters, digits and ._- at most, got {shown(text)}"
            )
        return cls(name, version)

    def __str__(self) -> str:
        return f"{self.name}@{self.version}" if self.version else self.name


class Catalogue:
    """Models by title; who names none gets the first, who names no version the last one of it.

    Attributes:
      models: by title, in order.
    """

    def __init__(self, models: Sequence[tuple[Title, ServedModel]]):
        """Checks that titles tell models apart.

        Raises:
          InputError: there is no model, or two have one title.
        """
        if not models:
            raise InputError("a server has at least one model")
        self.models = dict(models)
        if len(self.models) < len(models):
            twice = [str(t) for i, (t, _) in enumerate(models) if t in dict(models[:i])]
            raise InputError(f"{listed(twice)}: two models of one name and version")
        self._first = models[0][1]
        self._named = {name_digest(title.name): model for title, model in models}
        self._named |= {name_digest(str(title)): model for title, model in models}
        self._planned = {model.plan.digest: model for _, model in reversed(models)}
        self._titles = {id(model): title for title, model in models}

    @classmethod
    def of_one(cls, model: ServedModel, name: str = "model") -> "Catalogue":
        """One model."""
        return cls([(Title(name), model)])

    def find(self, asked: Asked) -> ServedModel | None:
        """What a client asks for; None where it is not there.

        Two models of one plan differ in their weights: who asks by the plan gets the first of them.
        """
        if asked.named:
            return self._named.get(asked.digest)
        return self._first if asked.any else self._planned.get(asked.digest)

    def title(self, model: ServedModel) -> Title:
        """What a model of this catalogue is called."""
        return self._titles[id(model)]
