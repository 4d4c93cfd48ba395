"""Ray, which fleets run on: imported here alone, when it is needed."""

import contextlib
import functools
import importlib
import logging
import os
import socket
import warnings
from collections.abc import Iterator
from typing import Any

from pqjax.errors import InputError, PeerGone, shown
from pqjax.wire.address import parse_address

NAMESPACE = "pqjax"
DIRECTORY = "pqjax-directory"  # the actor
_DIAL_S = 10.0


@functools.cache
def ray(part: str = "") -> Any:
    """The package, or a part of it ("serve").

    Raises:
      InputError: it is not installed.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what it imports: nothing to be done here
            return importlib.import_module(f"ray.{part}" if part else "ray")
    except ImportError as error:
        raise InputError(f"this needs Ray ({error}): pip install pqjax[fleet]") from error


@contextlib.contextmanager
def attached(address: str) -> Iterator[Any]:
    """Ray, connected to a running cluster: "auto" for this machine's, or "host:port" of its head.

    Raises:
      InputError: Ray is not installed.
      PeerGone: no cluster is there.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is told to anybody else
    os.environ.setdefault("RAY_DEDUP_LOGS", "0")
    made = ray()
    if made.is_initialized():  # in a program that uses Ray itself
        yield made
        return
    try:
        if address != "auto":  # Ray itself would try for a minute
            socket.create_connection(parse_address(address), _DIAL_S).close()
        made.init(
            address=address, namespace=NAMESPACE, log_to_driver=False, logging_level=logging.ERROR
        )
    except (ConnectionError, ValueError, RuntimeError, TimeoutError, OSError) as error:
        raise PeerGone(
            f"no Ray cluster at {shown(address)} ({str(error).splitlines()[0]}): start one with ray "
            "start --head, or say where it is with --ray"
        ) from error
    try:
        yield made
    finally:
        made.shutdown()
