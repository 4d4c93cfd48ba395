"""A server as a program that says, for every line on its standard input, what it takes up."""

import json
import os
import pathlib
import sys
import threading

from serving import PLAN, WEIGHTS

import pqjax


def resident_bytes():
    """Memory of this process that is in use now."""
    pages = pathlib.Path("/proc/self/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def main(folder=None):
    tls = None
    if folder is not None:
        files = (pathlib.Path(folder) / name for name in ("server.pem", "server.key", "ca.pem"))
        tls = pqjax.Tls(*files)
    server = pqjax.Server(PLAN, WEIGHTS, "127.0.0.1:0", tls=tls, deadline_s=30.0)
    running = threading.Thread(target=server.run)
    running.start()
    print(server.address, flush=True)
    for _ in sys.stdin:
        now = {
            "threads": threading.active_count(),
            "descriptors": len(os.listdir("/proc/self/fd")),
            "bytes": resident_bytes(),
        }
        print(json.dumps(now), flush=True)
    server.close()
    running.join()


if __name__ == "__main__":
    main(*sys.argv[1:])
