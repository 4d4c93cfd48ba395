"""The command line: `pqjax serve`, `infer`, `plan`, `explain`, `search`, `certs`, `relay`."""

from __future__ import annotations

import argparse
import json
import pathlib
import sys
import threading
import time
from collections.abc import Callable, Sequence

import numpy as np

from pqjax.engine.process import peak_bytes, settle, write_private
from pqjax.engine.server import Server
from pqjax.engine.client import connect
from pqjax.errors import DataError, InputError, PlanError, PqjaxError
from pqjax.graph import Graph, load_model
from pqjax.graph.sensitivity import read_sensitivities
from pqjax.graph.strict_json import parse
from pqjax.pictures import picture_input, read_picture
from pqjax.planner import PRESETS, Plan, check_class_names, plan
from pqjax.planner.report import SECURITY
from pqjax.search import Limit, Space, parse_bits, search, widths_report
from pqjax.wire.channel import DEADLINE_S
from pqjax.wire.handshake import DOCUMENT_LIMIT_BYTES
from pqjax.wire.link import Link, parse_link
from pqjax.wire.relay import Relay
from pqjax.wire.tls import Tls, make_certificates
from pqjax.wire.trace import Trace

_BANNER = "pqjax: two parties, semi-honest security, unaudited; see SECURITY.md for what leaks"
_INTERRUPTED = 130


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


class _Bar:
    """A progress bar on a terminal, nothing elsewhere."""

    def __init__(self) -> None:
        self._bar = None

    def __call__(self, where: str, done: int, steps: int) -> None:
        if not sys.stderr.isatty():
            return
        from tqdm import tqdm

        if self._bar is None:
            self._bar = tqdm(total=steps, unit="layer", leave=False, dynamic_ncols=True)
        self._bar.total, self._bar.n = steps, done
        self._bar.set_description_str(where)
        if done == steps:
            self._bar.close()
            self._bar = None


class _Refusals:
    """Says why connections were refused; of a flood a few a minute, then how many more there were."""

    most, every_s = 10, 60.0

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now, self._lock = now, threading.Lock()  # every connection has a thread of its own
        self._began, self._said, self._kept_back = now(), 0, 0

    def __call__(self, error: PqjaxError) -> None:
        with self._lock:
            if self._now() - self._began >= self.every_s:
                if self._kept_back:
                    _say(f"pqjax: {self._kept_back} more connections were refused meanwhile")
                self._began, self._said, self._kept_back = self._now(), 0, 0
            if self._said < self.most:
                self._said += 1
                _say(f"pqjax: connection refused: {error}")
            else:
                self._kept_back += 1


def _tls(args: argparse.Namespace, side: str) -> Tls | None:
    if args.tls is None:
        return None
    folder = pathlib.Path(args.tls)
    return Tls(folder / f"{side}.pem", folder / f"{side}.key", folder / "ca.pem")


def _report(plan: Plan, trace: Trace, seconds: dict[str, float], rank: int) -> dict:
    phases = {}
    for phase in ("setup", "offline", "online"):
        sent, received = trace.bits(phase)
        sent_bytes, received_bytes = trace.bytes(phase)
        phases[phase] = {
            "sent_bits": sent, "received_bits": received, "sent_bytes": sent_bytes,
            "received_bytes": received_bytes, "seconds": round(trace.seconds(phase), 4),
        }  # fmt: skip
    return {
        "protocol": plan.protocol,
        "rank": rank,
        "digest": plan.digest.hex(),
        "phases": phases,
        "seconds": seconds,
        "peak_bytes": peak_bytes(),
        "differences": plan.differences(trace, rank),
        "trace": trace.to_json(),
    }


def _write(path: str | None, tree: dict) -> None:
    if path:
        try:
            write_private(path, json.dumps(tree, indent=1) + "\n")
        except OSError as error:
            raise DataError(f"cannot write the trace to {path}: {error}") from error


def _serve(args: argparse.Namespace) -> int:
    settle()
    graph, weights, meta = load_model(args.model)
    made = plan(graph, args.protocol, args.link, classes=meta.get("classes"))
    failures = 0

    def ended(trace: Trace | None, error: PqjaxError | None) -> None:
        nonlocal failures
        if error is not None:
            failures += 1
            _say(f"pqjax: session ended: {error}")
        elif trace is not None:
            asked = sum(e.layer == "reveal" for e in trace.entries)
            sent, received = trace.bytes()
            _say(f"pqjax: session ended: {asked} inferences, {sent} bytes out, {received} in")
            try:
                _write(args.trace, _report(made, trace, {}, 0))
            except DataError as error:
                failures += 1
                _say(f"pqjax: {error}")

    server = Server(
        made, weights, args.listen, tls=_tls(args, "server"),
        insecure_plaintext=args.insecure_plaintext, deadline_s=args.deadline, on_end=ended,
        on_refused=_Refusals(), most_clients=args.clients, progress=_Bar(),
    )  # fmt: skip
    _say(_BANNER)
    print(f"listening on {server.address}", flush=True)
    server.run(args.sessions)
    return 1 if failures and args.sessions is not None else 0


def _inputs(path: str) -> np.ndarray | None:
    """Integers from an .npy file; None for anything that may be a picture."""
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
    import contextlib

    settle()
    _say(_BANNER)
    given = _inputs(args.input)
    picture = read_picture(args.input) if given is None else None
    names = _labels(args.labels)
    with contextlib.ExitStack() as stack:
        address = args.address
        if args.link is not None:
            address = stack.enter_context(Relay(address, args.link)).address
        begin = time.perf_counter()
        session = stack.enter_context(
            connect(
                address, tls=_tls(args, "client"), insecure_plaintext=args.insecure_plaintext,
                deadline_s=args.deadline, patience_s=args.patience, progress=_Bar(),
            )
        )  # fmt: skip
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
    report = _report(made, trace, seconds, 1)
    report["outputs"] = [y.tolist() for y in outputs]
    _write(args.trace, report)
    sent, received = trace.bytes()
    _say(
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


def _plan(args: argparse.Namespace) -> int:
    graph = _read_graph(args.model)
    print(plan(graph, args.protocol, args.link).table(args.variants))
    print(f"\n{SECURITY}")
    return 0


def _explain(args: argparse.Namespace) -> int:
    graph, _, _ = load_model(args.model)
    print(plan(graph, args.protocol, args.link).explain(args.layer))
    return 0


def _read_graph(path: str) -> Graph:
    """The graph of a network file, or of the JSON that `pqjax search --out` writes."""
    if not path.endswith(".json"):
        return load_model(path)[0]
    try:
        return Graph.from_json(pathlib.Path(path).read_text())
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read the graph {path}: {error}") from error


def _limit(args: argparse.Namespace) -> Limit:
    """The one limit that the options of `pqjax search` name."""
    if args.limit is not None and args.seconds is None:
        if args.link is not None:
            raise InputError(
                "a limit in bytes does not depend on a link: give --seconds with --link"
            )
        return Limit(parse_bits(args.limit), args.online)
    if args.seconds is not None and args.limit is None:
        if args.link is None:
            raise InputError("a limit in seconds needs --link, for instance --link 200mbps,13ms")
        return Limit(args.seconds, args.online, args.link)
    raise InputError("one limit expected: --limit 0.5GB, or --seconds 10 --link 200mbps,13ms")


def _search(args: argparse.Namespace) -> int:
    limit = _limit(args)
    graph, sensitivities = _read_graph(args.model), read_sensitivities(args.sensitivity)
    space = Space(
        _widths(args.bits) or Space.weights, _widths(args.activations), _widths(args.residual)
    )
    found = search(graph, sensitivities, limit, args.protocol, space, _say)
    print(widths_report(graph, sensitivities, limit, found))
    if args.out:
        _write_text(args.out, found.graph.to_json() + "\n")
    if args.widths:
        _write_text(args.widths, f"{found.widths}\n")
    return 0


def _widths(text: str | None) -> tuple[int, ...] | None:
    """Reads 2-8 or 4,6,8."""
    if text is None:
        return None
    try:
        first, dash, last = text.partition("-")
        if dash:
            return tuple(range(int(first), int(last) + 1))
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise InputError(f"cannot read the widths {text!r}; expected 2-8 or 4,6,8") from error


def _write_text(path: str, text: str) -> None:
    try:
        pathlib.Path(path).write_text(text)
    except OSError as error:
        raise DataError(f"cannot write {path}: {error}") from error


def _certs(args: argparse.Namespace) -> int:
    try:
        make_certificates(args.folder, *([tuple(args.name)] if args.name else []))
    except OSError as error:
        raise DataError(f"cannot write certificates to {args.folder}: {error}") from error
    print(f"wrote ca.pem, server.pem, server.key, client.pem and client.key to {args.folder}")
    return 0


def _relay(args: argparse.Namespace) -> int:
    if args.link is None:
        raise InputError("a relay needs --link, for instance --link 200mbps,13ms")
    with Relay(args.target, args.link) as relay:
        print(relay.address, flush=True)
        sys.stdin.read()
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="pqjax", description="Private inference of quantized networks between two parties."
    )
    commands = parser.add_subparsers(dest="command", required=True)

    def link(text: str) -> Link | None:
        try:
            return parse_link(text)
        except InputError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    def positive(kind: type):
        def read(text: str):
            value = kind(text)
            if not 0 < value < 1e9:
                raise argparse.ArgumentTypeError(f"must be above 0, got {text}")
            return value

        return read

    def add(name: str, run, text: str) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=text, description=text)
        made.set_defaults(run=run)
        return made

    def network(made: argparse.ArgumentParser) -> None:
        made.add_argument("--tls", metavar="DIR", help="folder that `pqjax certs` wrote")
        made.add_argument(
            "--insecure-plaintext", action="store_true", help="no TLS off loopback, on purpose"
        )
        made.add_argument(
            "--deadline", type=positive(float), default=DEADLINE_S, metavar="SECONDS",
            help="give up when nothing moves for so long",
        )  # fmt: skip
        made.add_argument("--trace", metavar="FILE", help="write the session's trace as JSON")

    serve = add("serve", _serve, "serve a network")
    serve.add_argument("model", help="network file (.npz)")
    serve.add_argument("--listen", default="127.0.0.1:7700", metavar="HOST:PORT")
    serve.add_argument("--protocol", default="pqjax", help=f"one of {', '.join(sorted(PRESETS))}")
    serve.add_argument("--sessions", type=positive(int), metavar="N", help="end after N sessions")
    serve.add_argument(
        "--clients", type=positive(int), default=2, metavar="N", help="clients at a time"
    )
    serve.add_argument("--link", type=link, default=None, help="plan for this network")
    network(serve)

    infer = add("infer", _infer, "ask a server about a picture or an .npy file of integers")
    infer.add_argument("address", metavar="HOST:PORT")
    infer.add_argument("input", help="picture, or .npy with one input or a batch of them")
    infer.add_argument(
        "--link", type=link, default=None, help="emulate a network, e.g. 200mbps,13ms, lan, none"
    )
    infer.add_argument(
        "--labels", metavar="FILE",
        help="class names instead of the server's: a JSON list, or a network file (.npz) that has them",
    )  # fmt: skip
    infer.add_argument(
        "--top", type=positive(int), default=1, metavar="N", help="name the N likeliest classes"
    )
    infer.add_argument("--patience", type=float, default=0.0, metavar="SECONDS",
                       help="keep dialling while nobody listens")  # fmt: skip
    infer.add_argument("--verbose", action="store_true", help="print all outputs")
    network(infer)

    def planned(made: argparse.ArgumentParser) -> argparse.ArgumentParser:
        known = ", ".join(sorted(PRESETS))
        made.add_argument("--protocol", default="pqjax", help=f"one of {known}")
        made.add_argument("--link", type=link, default=None, help="predict seconds on this network")
        return made

    shown = planned(add("plan", _plan, "print what every layer costs"))
    shown.add_argument("model", help="network file (.npz) or graph (.json)")
    shown.add_argument("--variants", action="store_true", help="also what was not chosen")

    explained = planned(add("explain", _explain, "print why a layer runs as it does"))
    explained.add_argument("model", help="network file (.npz)")
    explained.add_argument("layer", help="a layer's name, see `pqjax plan`")

    searched = planned(
        add("search", _search, "find the bit widths of least loss that keep to a limit")
    )
    searched.add_argument("model", help="network file (.npz) or graph (.json), at any widths")
    searched.add_argument(
        "--sensitivity", metavar="FILE", required=True,
        help="JSON that `python -m nets.sensitivity` writes",
    )  # fmt: skip
    searched.add_argument("--limit", metavar="BYTES", help="at most, e.g. 0.5GB or 400MiB")
    searched.add_argument("--online", action="store_true", help="--limit is of the online phase")
    searched.add_argument("--seconds", type=positive(float), help="at most, on --link")
    searched.add_argument("--bits", metavar="WIDTHS", help="of weights, 2-8 if not given")
    searched.add_argument("--activations", metavar="WIDTHS", help="to try, e.g. 4,5,6")
    searched.add_argument("--residual", metavar="WIDTHS", help="to try, e.g. 6,8")
    searched.add_argument("--out", metavar="FILE", help="write the graph as JSON")
    searched.add_argument(
        "--widths", metavar="FILE", help="write the widths for `python -m nets.train qat --bits`"
    )

    certs = add("certs", _certs, "make certificates for both sides")
    certs.add_argument("folder")
    certs.add_argument("--name", action="append", help="host name or address of the server")

    relay = add("relay", _relay, "emulate a network in front of a local server")
    relay.add_argument("target", metavar="HOST:PORT")
    relay.add_argument("--link", type=link, default=None)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; the exit code. Expected failures are one line, no traceback."""
    args = _parser().parse_args(arguments)
    try:
        return args.run(args)
    except PqjaxError as error:
        _say(f"pqjax: {error}")
        return 1
    except KeyboardInterrupt:
        _say("pqjax: interrupted")
        return _INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
