"""A network between two processes of one machine: a relay with a rate, a delay and a bounded queue.

    with Relay("127.0.0.1:7700", Link(200, 13)) as relay:
        wire = dial(relay.address)

Bytes read at time t leave the link at  max(t, end of those before) + size / rate + rtt / 2,  each
direction for itself, shared by all connections. When a queue is full the relay stops reading, so
TCP holds the sender back. Only what TCP carries counts towards the rate, no packet headers. The
relay is a process of its own, so it takes no turn of the parties' interpreter locks; it is also a
program:

    python -m pqjax.wire.relay 127.0.0.1:7700 --link 200mbps,13ms
"""

import argparse
import collections
import contextlib
import errno
import os
import pathlib
import select
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Sequence

import pqjax.errors
from pqjax.errors import AddressError, InputError, PqjaxError, WireError
from pqjax.wire.address import Place, format_address, is_loopback, resolve
from pqjax.wire.link import Link, parse_link

_CHUNK_S = 1e-3  # the link time one read may take: a message's first bytes wait no longer
_CHUNK_BYTES = (2 << 10, 64 << 10)
_QUEUE_S = 0.05  # queued beyond what is in flight: outlasts a pause of the relay's process
_MIN_QUEUE_BYTES = 256 << 10
_CONNECT_S = 10.0
_START_S = 60.0
_NO_ROOM_S = 0.05
_SELECT_DESCRIPTORS = 1024  # what select(2) can wait for
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)

_END, _RESET = "end", "reset"


def default_queue_bytes(link: Link) -> int:
    """What is in flight at full rate, and 50 ms more."""
    in_time = (link.rtt_ms / 2e3 + _QUEUE_S) * link.mbps * 1e6 / 8
    return max(_MIN_QUEUE_BYTES, int(in_time))


class Relay:
    """A relay in a process of its own; it ends with `close`, or when this process dies.

    Attributes:
      address: where to dial instead of the target.
    """

    def __init__(self, target: str, link: Link, queue_bytes: int | None = None):
        """Starts the process and waits until it listens.

        Every accepted connection is forwarded to `target`, "host:port" on loopback; `queue_bytes` is the
        most held per connection and direction, those in flight included.
        """
        _resolve_target(target)
        root = str(pathlib.Path(pqjax.errors.__file__).parents[1])
        path = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
        command = [sys.executable, "-m", "pqjax.wire.relay", target, "--link", str(link)]
        if queue_bytes is not None:
            command += ["--queue-bytes", str(queue_bytes)]
        self._process = subprocess.Popen(
            [*command, "--until-stdin-closes"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": path},
            start_new_session=True,  # a Ctrl-C is for the parties; the relay sees its pipe close
        )
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], _START_S)
        self.address = self._process.stdout.readline().decode().strip() if ready else ""
        if not self.address:
            self.close()
            raise WireError(f"the relay to {target} did not start")

    def close(self) -> None:
        """Ends the process and with it all connections through it."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        try:
            self._process.wait(5.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def __enter__(self) -> "Relay":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _resolve_target(target: str) -> list[Place]:
    places = resolve(target)
    if not is_loopback(places):
        raise AddressError(f"a relay forwards to loopback addresses only, got {target}")
    return places


class _Lane:
    """One direction of the link: it sends one byte after the other and is free again at `free`."""

    def __init__(self, link: Link):
        self.bytes_per_s = link.mbps * 1e6 / 8
        self.delay_s = link.rtt_ms / 2e3
        self.free = 0.0

    def arrival(self, nbytes: int, now: float) -> float:
        """Puts `nbytes` on the link; when the last of them comes out at the far end."""
        self.free = max(self.free, now) + nbytes / self.bytes_per_s
        return self.free + self.delay_s


class _Pipe:
    """One direction of one connection: what is between `source` and `sink`."""

    def __init__(self, source: socket.socket, sink: socket.socket, lane: _Lane, limit: int):
        self.source, self.sink, self.lane, self.limit = source, sink, lane, limit
        self.chunk = int(min(max(lane.bytes_per_s * _CHUNK_S, _CHUNK_BYTES[0]), _CHUNK_BYTES[1]))
        self.queue: collections.deque[tuple[float, memoryview | str]] = collections.deque()
        self.queued = 0
        self.ended = False  # nothing more comes from the source
        self.blocked = False  # the sink takes no more for now
        self.done = False  # the sink knows that nothing more comes
        self.broken = False  # the sink was lost: reset the connection

    @property
    def hungry(self) -> bool:
        """Room for another chunk?"""
        return not self.ended and self.queued < self.limit

    def read(self, now: float) -> None:
        """Takes one chunk from the source."""
        try:
            chunk = self.source.recv(min(self.chunk, self.limit - self.queued))
        except BlockingIOError:
            return
        except OSError:
            self.stop(_RESET, now)
            return
        if not chunk:
            self.stop(_END, now)
            return
        self.queued += len(chunk)
        self.queue.append((self.lane.arrival(len(chunk), now), memoryview(chunk)))

    def stop(self, how: str, now: float) -> None:
        """The source is over: the sink hears of it after all that is in flight."""
        self.ended = True
        self.queue.append((self.lane.arrival(0, now), how))

    def deliver(self, now: float) -> str | None:
        """Hands the sink what is due; returns _RESET when the connection has to go."""
        self.blocked = False
        while self.queue and self.queue[0][0] <= now:
            due, item = self.queue[0]
            if isinstance(item, str):
                self.queue.popleft()
                self.done = True
                if item == _RESET:
                    return _RESET
                with contextlib.suppress(OSError):
                    self.sink.shutdown(socket.SHUT_WR)
                return None
            try:
                n = self.sink.send(item)
            except BlockingIOError:
                self.blocked = True
                return None
            except OSError:
                self.queue.clear()
                self.ended = self.done = self.broken = True
                return None
            self.queued -= n
            if n < len(item):
                self.queue[0] = (due, item[n:])
            else:
                self.queue.popleft()
        return None


class _Connection:
    """A client, the target, and a pipe each way."""

    def __init__(
        self, client: socket.socket, target: socket.socket, lanes: tuple[_Lane, _Lane], limit: int
    ):
        for sock in (client, target):
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sockets = (client, target)
        there, back = lanes
        self.pipes = (_Pipe(client, target, there, limit), _Pipe(target, client, back, limit))

    def turn(self, now: float) -> bool:
        """Delivers what is due; False once the connection is over."""
        over = False
        for pipe, back in (self.pipes, self.pipes[::-1]):
            if pipe.deliver(now) == _RESET:
                self._close(reset=True)
                return False
            if pipe.broken:
                # The sink died: the source hears of it after what is in flight to it.
                pipe.broken = False
                if back.done:
                    over = True
                else:
                    back.stop(_RESET, now)
        if over or all(pipe.done for pipe in self.pipes):
            self._close(reset=over)
            return False
        return True

    def _close(self, *, reset: bool) -> None:
        for sock in self.sockets:
            if reset:
                with contextlib.suppress(OSError):
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            sock.close()


def run_relay(
    listener: socket.socket, places: Sequence[Place], link: Link, queue_bytes: int, stop: int | None
) -> None:
    """Forwards until the file descriptor `stop` is closed at its other end (None: for ever)."""
    lanes = (_Lane(link), _Lane(link))
    connections: list[_Connection] = []
    # select(2), not epoll: its timeout has microseconds, and we emulate a few milliseconds.
    while True:
        now = time.perf_counter()
        connections = [connection for connection in connections if connection.turn(now)]
        pipes = [pipe for connection in connections for pipe in connection.pipes]
        readers = {pipe.source: pipe for pipe in pipes if pipe.hungry}
        writers = [pipe.sink for pipe in pipes if pipe.blocked]
        dues = [pipe.queue[0][0] for pipe in pipes if pipe.queue and not pipe.blocked]
        timeout = max(0.0, min(dues) - time.perf_counter()) if dues else None
        always = [listener] if stop is None else [listener, stop]
        ready, _, _ = select.select([*always, *readers], writers, [], timeout)
        now = time.perf_counter()
        if stop is not None and stop in ready and not os.read(stop, 4096):
            return
        if listener in ready:
            connection = _accept(listener, places, lanes, queue_bytes)
            if connection is not None:
                connections.append(connection)
        for source, pipe in readers.items():
            if source in ready:
                pipe.read(now)


def _accept(
    listener: socket.socket, places: Sequence[Place], lanes: tuple[_Lane, _Lane], queue_bytes: int
) -> _Connection | None:
    try:
        client, _ = listener.accept()
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
            time.sleep(_NO_ROOM_S)  # it waits in the listener's queue; do not spin meanwhile
        return None
    for family, place in places:
        with contextlib.ExitStack() as undo, contextlib.suppress(OSError):
            target = undo.enter_context(socket.socket(family, socket.SOCK_STREAM))
            target.settimeout(_CONNECT_S)
            target.connect(place)
            if max(client.fileno(), target.fileno()) >= _SELECT_DESCRIPTORS:
                break
            made = _Connection(client, target, lanes, queue_bytes)
            undo.pop_all()
            return made
    with client, contextlib.suppress(OSError):
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
    return None


def main(arguments: Sequence[str] | None = None) -> int:
    """The program: prints the address it listens on, then forwards."""
    parser = argparse.ArgumentParser(prog="pqjax.wire.relay", description="Emulates a network.")
    parser.add_argument("target", help="host:port to forward to")
    parser.add_argument("--link", required=True, help='for example "200mbps,13ms" or "lan"')
    parser.add_argument("--queue-bytes", type=int, help="most bytes held per direction")
    parser.add_argument("--until-stdin-closes", action="store_true", help=argparse.SUPPRESS)
    chosen = parser.parse_args(arguments)
    try:
        link = parse_link(chosen.link)
        if link is None:
            raise InputError("a relay needs a link to emulate, got none")
        queue_bytes = default_queue_bytes(link)
        if chosen.queue_bytes is not None:
            queue_bytes = chosen.queue_bytes
        if queue_bytes < 1:
            raise InputError(f"a relay's queue holds at least 1 byte, got {queue_bytes}")
        places = _resolve_target(chosen.target)
    except PqjaxError as error:
        print(f"pqjax.wire.relay: {error}", file=sys.stderr)
        return 2
    with socket.create_server(("127.0.0.1", 0), backlog=16) as listener:
        listener.setblocking(False)
        print(format_address(*listener.getsockname()[:2]), flush=True)
        stop = sys.stdin.fileno() if chosen.until_stdin_closes else None
        with contextlib.suppress(KeyboardInterrupt):
            run_relay(listener, places, link, queue_bytes, stop)
    return 0


if __name__ == "__main__":
    sys.exit(main())
