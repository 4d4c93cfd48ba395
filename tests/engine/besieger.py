"""A crowd at a server's door, as a program: resets, silent sockets, slow writers, all at once.

Who is dropped comes again after a second. Ends when its standard input does; prints what it did.
"""

import contextlib
import json
import select
import socket
import sys
import time

from peers import HELLO, RECORD, reset

TICK_S, AGAIN_S, BYTE_S = 0.02, 1.0, 0.2


class Besieger:
    """One connection that is opened again and again."""

    def __init__(self, place, content):
        self.place, self.content = place, content
        self.sock, self.next, self.at, self.opened = None, 0.0, 0, 0

    def turn(self, now):
        if now < self.next:
            return
        if self.sock is None:
            self.sock = socket.create_connection(self.place, timeout=10.0)
            self.sock.setblocking(False)
            self.opened, self.at = self.opened + 1, 0
        with contextlib.suppress(OSError):
            if self.content:
                self.sock.send(self.content[self.at : self.at + 1])
                self.at += 1
        self.next = now + BYTE_S
        poller = select.poll()
        poller.register(self.sock, select.POLLIN)
        if poller.poll(0):  # nothing is ever said to it: this is the end
            self.sock.close()
            self.sock, self.next = None, now + AGAIN_S


def main(address, content, resets, silents, writers):
    host, _, port = address.rpartition(":")
    place = (host, int(port))
    crowd = [Besieger(place, b"") for _ in range(int(silents))]
    crowd += [Besieger(place, content) for _ in range(int(writers))]
    left = int(resets)
    told = False
    while not select.select([sys.stdin], [], [], TICK_S)[0]:
        for besieger in crowd:
            besieger.turn(time.monotonic())
        for _ in range(min(10, left)):  # 500 a second
            reset(address)
            left -= 1
        if not told:
            told = True
            print("all are there", flush=True)
    opened = [besieger.opened for besieger in crowd]
    print(json.dumps({"resets": int(resets) - left, "silent": sum(opened[: int(silents)]),
                      "slow": sum(opened[int(silents) :])}))  # fmt: skip


if __name__ == "__main__":
    main(sys.argv[1], RECORD if sys.argv[2] == "tls" else HELLO, *sys.argv[3:])
