"""Processes that end with this one, however that comes about."""

import os
import pathlib
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pqjax
from pqjax.graph.strict_json import parse

_LINE_BYTES = 8 << 20

COMMAND_LINE = "from pqjax.cli import main\nsys.exit(main(sys.argv[1:]))"
# It ends when its input does.
_WATCH = """import os, signal, sys, threading, time
def watch():
    while os.read(0, 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(5)
    os._exit(1)
threading.Thread(target=watch, daemon=True).start()
"""


def child(program: str, *words: str) -> subprocess.Popen[str]:
    """A program in Python with these words, its input and outputs pipes of text."""
    root = str(pathlib.Path(pqjax.__file__).parents[1])
    path = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
    return subprocess.Popen(
        [sys.executable, "-c", _WATCH + program, *words],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": path},
        start_new_session=True,  # Ctrl-C is for this process
    )  # fmt: skip


def told_by(program: str, *words: str) -> Iterator[Any]:
    """What a program says, in lines of JSON; it is ended when nobody listens any more."""
    process = child(program, *words)
    assert process.stdout is not None and process.stderr is not None
    threading.Thread(target=process.stderr.read, daemon=True).start()
    try:
        for line in process.stdout:
            yield parse(line, _LINE_BYTES)
    finally:
        end(process)


def end(process: subprocess.Popen[str], patience_s: float = 5.0) -> None:
    """Ends it, and closes its pipes."""
    process.terminate()
    try:
        process.wait(patience_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            pipe.close()
