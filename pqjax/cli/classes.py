"""What an answer is called: class names of the user's or the server's, and answers in words."""

import pathlib
from collections.abc import Sequence

from pqjax.errors import DataError, InputError, PlanError
from pqjax.graph import load_model
from pqjax.graph.strict_json import parse
from pqjax.planner import Plan, check_class_names
from pqjax.wire.handshake import DOCUMENT_LIMIT_BYTES


def read_names(path: str | None) -> list[str] | None:
    """Class names: a JSON list, or what a network file's description says."""
    if path is None:
        return None
    if path.endswith(".npz"):
        names = load_model(path)[2].get("classes")
        if names is None:
            raise DataError(f"{path} carries no class names; give a JSON list of them")
    else:
        try:
            names = parse(pathlib.Path(path).read_bytes(), DOCUMENT_LIMIT_BYTES)
        except (OSError, InputError) as error:
            raise DataError(f"cannot read the class names in {path}: {error}") from error
    if not isinstance(names, list):
        raise DataError(f"{path}: a JSON list of class names expected, got {type(names).__name__}")
    return [str(name) for name in names]


def names_of(given: list[str] | None, path: str, made: Plan) -> Sequence[str]:
    """The user's names, if there are as many as classes, or the server's."""
    if given is None:
        return made.classes
    try:
        return check_class_names(made.source, given)
    except PlanError as error:
        raise DataError(f"{path}: {error}") from error


def in_words(classes: list[dict], scores: bool) -> str:
    """Some classes in a line, with their scores or without."""
    said = []
    for each in classes:
        score = f" ({each['score']:.4g})" if scores and each["score"] is not None else ""
        said.append(f"{each['class']}{' ' + each['name'] if each['name'] else ''}{score}")
    return ", ".join(said) or "no classes: the output is no vector, see --verbose"
