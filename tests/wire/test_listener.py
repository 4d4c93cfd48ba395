"""What `accept` itself can meet: connections that are gone, and no room for the next one."""

import errno
import time

import pytest
from peers import silent

from pqjax.wire.address import format_address
from pqjax.wire.listener import Listener


class Flaky:
    """A listening socket whose first calls of `accept` fail."""

    def __init__(self, sock, failures):
        self.sock, self.failures = sock, failures
        self.fileno, self.close = sock.fileno, sock.close

    def accept(self):
        if self.failures:
            raise OSError(self.failures.pop(0), "as asked")
        return self.sock.accept()


@pytest.mark.parametrize(
    ("code", "sheds"),
    [
        (errno.ECONNABORTED, 0), (errno.EPROTO, 0), (errno.EPERM, 0),
        (errno.EMFILE, 3), (errno.ENFILE, 3), (errno.ENOBUFS, 3), (errno.ENOMEM, 3),
    ],
    ids=lambda value: errno.errorcode.get(value, ""),
)  # fmt: skip
def test_accepting_goes_on_whatever_it_meets(code, sheds, monkeypatch):
    asked = []
    with Listener("127.0.0.1:0") as listener, silent(listener.address) as dialled:
        monkeypatch.setattr(listener, "_sock", Flaky(listener._sock, [code] * 3))

        sock, client = listener.accept(30.0, shed=lambda: asked.append(1))
        assert client == format_address(*dialled.getsockname())
        sock.close()

    assert len(asked) == sheds


def test_accepting_does_not_spin_while_there_is_no_room(monkeypatch):
    asked = []
    with Listener("127.0.0.1:0") as listener, silent(listener.address):
        failing = Flaky(listener._sock, [errno.EMFILE] * 10**6)
        monkeypatch.setattr(listener, "_sock", failing)

        with pytest.raises(Exception, match="nobody dialled"):
            listener.accept(0.5, shed=lambda: asked.append(time.monotonic()))

    assert 1 <= len(asked) <= 11
