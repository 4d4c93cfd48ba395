"""How a secret would look wherever it might lie, and where to look: texts, streams, and memory."""

import base64
import contextlib
import json
import pathlib
import re
import socket
import threading

import numpy as np

from pqjax.ring import Ring, pack
from pqjax.wire.address import parse_address

_LEAST = 24  # elements of a run that is looked for: 96 bits of entropy and more
_CHUNK = 64 << 20
_PAGE = 4096


def of_integers(values, bits):
    """An array in memory and in messages: numbers of every size, rings' elements, packed; and as text.

    `bits` are widths of rings that it may be an element of.
    """
    flat = np.asarray(values).reshape(-1)
    run = flat[:_LEAST]
    assert len(set(run.tolist())) > 5, "what occurs by itself is no canary"
    kinds = (np.int8, np.int16, np.int32, np.int64, np.float32, np.float64)
    found = [run.astype(kind).tobytes() for kind in kinds]
    for width in bits:
        ring = Ring(width)
        found += [ring.reduce(run).tobytes(), ring.neg(ring.reduce(run)).tobytes()]
        found.append(pack(ring.reduce(flat), width).tobytes())
    texts = (str(run.tolist())[1:-1], json.dumps(run.tolist(), separators=(",", ":"))[1:-1],
             " ".join(map(str, run.tolist())))  # fmt: skip
    told = [run.astype(kind).tobytes() for kind in (np.int8, np.int32, np.int64)]
    hidden = [x.hex().encode() for x in told] + [base64.b64encode(x)[:-4] for x in told]
    return set(found) | set(hidden) | {text.encode() for text in texts}


def of_key(key):
    """A key as it is, and as text."""
    return {key, key.hex().encode(), base64.b64encode(key), repr(key)[2:-1].encode()}


def there(looks, *contents):
    """Which of the looks are in any of the contents."""
    return {look for look in looks for content in contents if look in content}


def in_memory(pid, *groups):
    """Of every group of looks those that lie in what a process may write to.

    Raises:
      PermissionError: its memory is not to be read.
    """
    found = [set() for _ in groups]
    most = max(len(look) for group in groups for look in group)
    with open(f"/proc/{pid}/mem", "rb", 0) as memory:
        for begin, end in _regions(pid):
            for at in range(begin, end, _CHUNK):
                memory.seek(at)
                try:
                    content = memory.read(min(end - at, _CHUNK + most))
                except OSError:  # such as the kernel's own pages
                    continue
                for part in _written(content):
                    for into, group in zip(found, groups, strict=True):
                        into |= there(group - into, part)
    return found


def _written(content):
    """Its parts but for pages of zeros, of which a process has far more than it has touched."""
    whole = len(content) // _PAGE * _PAGE
    pages = np.frombuffer(content, np.uint64, whole // 8).reshape(-1, _PAGE // 8).any(1)
    edges = np.flatnonzero(np.diff(np.concatenate([[False], pages, [False]])))
    for begin, end in edges.reshape(-1, 2):
        yield content[begin * _PAGE : (end + 1) * _PAGE]  # integers may end in zeros
    yield content[whole:]


def _regions(pid):
    for line in pathlib.Path(f"/proc/{pid}/maps").read_text().splitlines():
        match = re.match(r"([0-9a-f]+)-([0-9a-f]+) rw", line)
        if match and "/dev/" not in line:
            yield int(match[1], 16), int(match[2], 16)


class Recorder:
    """Hands connections on to a server, one after the other, and keeps every byte."""

    def __init__(self, target):
        self._target = parse_address(target)
        self._listener = socket.create_server(("127.0.0.1", 0))
        host, port = self._listener.getsockname()
        self.address, self.bytes = f"{host}:{port}", (bytearray(), bytearray())
        self._sockets, self._threads = [self._listener], []
        self._begin(self._accept)

    def _begin(self, target, *args):
        thread = threading.Thread(target=target, args=args, daemon=True, name="recorder")
        self._threads.append(thread)
        thread.start()

    def _accept(self):
        while True:
            try:
                ours, _ = self._listener.accept()
            except OSError:
                return
            theirs = socket.create_connection(self._target)
            self._sockets += [ours, theirs]
            for i, (source, sink) in enumerate(((ours, theirs), (theirs, ours))):
                self._begin(self._pump, source, sink, self.bytes[i])

    def _pump(self, source, sink, kept):
        try:
            while content := source.recv(1 << 16):
                kept += content
                sink.sendall(content)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def close(self):
        for each in self._sockets:
            with contextlib.suppress(OSError):  # its other end is gone, or it has none
                each.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10.0)
        for each in self._sockets:
            each.close()
