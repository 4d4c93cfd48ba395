"""A small network served in a thread, for tests of what can happen to a server."""

import contextlib
import io
import pathlib
import queue
import subprocess
import sys
import threading
import typing
from typing import Any

import numpy as np
from networks import random_network

import pqjax
from pqjax.cli import main
from pqjax.engine.events import Events

# The command line, as if started from a terminal: children of a background job ignore Ctrl-C.
HEARING = """import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from pqjax.cli import main
from pqjax.engine.events import Events
sys.exit(main(sys.argv[1:]))"""
ROOT = pathlib.Path(__file__).parents[1]
GRAPH, WEIGHTS, X = random_network(3)
PLAN = pqjax.plan(GRAPH)


class Ends(Events):
    """Puts how connections end into a queue."""

    def __init__(self, ends):
        self.ends = ends

    def ended(self, visit, trace, error):
        self.ends.put(error or trace)

    def refused(self, client, error):
        self.ends.put(error)


@contextlib.contextmanager
def serving(
    deadline_s=30.0,
    plan=PLAN,
    most_sessions=None,
    weights=WEIGHTS,
    address="127.0.0.1:0",
    **options,
):
    """A server in a thread; yields its address and the queue of how its connections ended."""
    ends = queue.Queue()
    options.setdefault("events", Ends(ends))
    server = pqjax.Server(plan, weights, address, deadline_s=deadline_s, **options)
    thread = threading.Thread(target=server.run, args=(most_sessions,), daemon=True)
    thread.start()
    try:
        yield server.address, ends
    finally:
        server.close()
        thread.join(10)
        assert not thread.is_alive()
        assert [t.name for t in threading.enumerate() if t.name == "pqjax-client"] == []


def answers(address, deadline_s=60.0, **options):
    """Whether the server still serves."""
    with pqjax.connect(address, deadline_s=deadline_s, **options) as session:
        y = session.infer(X).output
    np.testing.assert_array_equal(y, pqjax.reference(GRAPH, WEIGHTS, X))


def command(*words, **options):
    """One command of the command line, to its end."""
    return subprocess.run(
        [sys.executable, "-m", "pqjax.cli", *map(str, words)],
        cwd=ROOT, capture_output=True, text=True, timeout=120, **options,
    )  # fmt: skip


def command_here(*words):
    """The same in this process, where a process of its own would add nothing but seconds."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), contextlib.chdir(ROOT):
        try:
            code = main([*map(str, words)])
        except SystemExit as stopped:
            code = typing.cast(int, stopped.code)
    return subprocess.CompletedProcess(words, code, out.getvalue(), err.getvalue())


@contextlib.contextmanager
def served_process(tmp_path, *words, program=HEARING, stderr: Any = subprocess.PIPE):
    """`pqjax serve` in a process of its own: its address and the process."""
    model = tmp_path / "net.npz"
    pqjax.save_model(model, GRAPH, WEIGHTS)
    np.save(tmp_path / "x.npy", X)
    server = subprocess.Popen(
        [sys.executable, "-c", program, "serve", str(model), "--listen", "127.0.0.1:0",
         *map(str, words)],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=stderr, text=True,
    )  # fmt: skip
    assert server.stdout is not None
    try:
        yield server.stdout.readline().split()[-1], server
    finally:
        server.kill()
        server.communicate()
