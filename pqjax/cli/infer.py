"""`pqjax infer`: asks a server about a picture or integers."""

import argparse
import contextlib
import pathlib
import time
from collections.abc import Sequence

import numpy as np

from pqjax.cli.console import BANNER, Bar, say
from pqjax.cli.options import Commands, command, connection, link_option, network_options, positive
from pqjax.cli.report import report, write_report
from pqjax.engine import connect
from pqjax.engine.process import settle
from pqjax.errors import DataError, InputError, PlanError, WireError, shown
from pqjax.graph import load_model
from pqjax.graph.strict_json import parse
from pqjax.pictures import picture_input, read_picture
from pqjax.planner import Plan, check_class_names
from pqjax.wire.handshake import DOCUMENT_LIMIT_BYTES
from pqjax.wire.relay import Relay


def add(commands: Commands) -> None:
    """Adds the command."""
    text = "ask a server about a picture or an .npy file of integers"
    made = command(commands, "infer", _infer, text)
    made.add_argument("address", metavar="HOST:PORT")
    made.add_argument("input", help="picture, or .npy with one input or a batch of them")
    link_option(made, "emulate a network, e.g. 200mbps,13ms, lan, none")
    labels = (
        "class names instead of the server's: a JSON list, or a network file (.npz) that has them"
    )
    made.add_argument("--labels", metavar="FILE", help=labels)
    top = "name the N likeliest classes"
    made.add_argument("--top", type=positive(int), default=1, metavar="N", help=top)
    patience = "keep dialling while nobody listens"
    made.add_argument("--patience", type=float, default=0.0, metavar="SECONDS", help=patience)
    made.add_argument("--verbose", action="store_true", help="print all outputs")
    network_options(made)


def _inputs(path: str) -> np.ndarray | None:
    """Integers from an .npy file; None for anything that may be a picture."""
    scheme, url, rest = path.partition("://")
    if url:
        hint = rest if scheme == "file" else f"fetch it first (curl -O {shown(path)})"
        raise DataError(
            f"{shown(path)} is a URL, pqjax reads files only: {hint}, and give the file"
        )
    if not path.endswith(".npy"):
        return None
    try:
        # Mapped, not read: a header that declares more than the file holds is refused, not allocated.
        given = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError, OverflowError, MemoryError, SyntaxError) as error:
        raise DataError(f"cannot read the input {path}: {error}") from error
    if not isinstance(given, np.ndarray) or given.ndim == 0 or given.size == 0:
        raise DataError(f"{path} holds no input: one array expected, with at least one element")
    return given


def _infer(args: argparse.Namespace) -> int:
    settle()
    say(BANNER)
    given = _inputs(args.input)
    picture = read_picture(args.input) if given is None else None
    names = _labels(args.labels)
    with contextlib.ExitStack() as stack:
        address = args.address
        if args.link is not None:
            address = stack.enter_context(Relay(address, args.link)).address
        begin = time.perf_counter()
        options = connection(args, "client") | {"patience_s": args.patience, "progress": Bar()}
        try:
            session = stack.enter_context(connect(address, **options))
        except WireError as error:
            if args.link is None:
                raise
            raise WireError(
                f"{error} [{address} is the relay of --link to {args.address}]"
            ) from error
        graph = session.plan.source
        labels = _names(names, args.labels, session.plan)
        if picture is not None:
            given = picture_input(graph, picture)[None]
        assert given is not None
        batch = given[None] if given.shape == graph.input.out.shape else given
        outputs, times = [], []
        connected = time.perf_counter()
        for x in batch:
            start = time.perf_counter()
            session.prepare()
            ready = time.perf_counter()
            outputs.append(session.infer(x).output)
            times.append({"offline": ready - start, "online": time.perf_counter() - ready})
        trace, made = session.trace, session.plan
    for y in outputs:
        said = ", ".join(_named(i, labels) for i in _likeliest(y, args.top))
        print(f"{said}  {y.tolist()}" if args.verbose else said, flush=True)
    seconds = {"connect": connected - begin, "each": times}
    answers = {"outputs": [y.tolist() for y in outputs]}
    write_report(args.trace, report(made, trace, seconds, 1) | answers)
    sent, received = trace.bytes()
    say(
        f"pqjax: {len(outputs)} inferences, {made.protocol}: {sent} bytes out, {received} in, "
        f"{sum(t['offline'] + t['online'] for t in times):.2f} s"
    )
    return 0


def _labels(path: str | None) -> list[str] | None:
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


def _names(given: list[str] | None, path: str, made: Plan) -> Sequence[str]:
    """The user's names, if there are as many as classes, or the server's."""
    if given is None:
        return made.classes
    try:
        return check_class_names(made.source, given)
    except PlanError as error:
        raise DataError(f"{path}: {error}") from error


def _likeliest(y: np.ndarray, count: int) -> list[int]:
    """Classes by output, the largest first; of a network that answers with a class, that one."""
    return [int(y[0])] if y.size == 1 else np.argsort(-y, kind="stable")[:count].tolist()


def _named(index: int, labels: Sequence[str]) -> str:
    """A class by number and name; names are the server's, so what could steer a terminal is left out."""
    name = "".join(c for c in labels[index] if c.isprintable()) if labels else ""
    return f"{index} {name}" if name else str(index)
