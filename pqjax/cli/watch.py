"""What --log and --metrics of a server ask for: its log, metrics, spans, and the door to them."""

import argparse
import contextlib
import dataclasses
from collections.abc import Callable, Iterator

from pqjax.cli.console import say
from pqjax.engine.events import Events
from pqjax.watching import Door, Log, Metrics, Records, Sinks, Spans, tracer
from pqjax.watching.door import State
from pqjax.watching.records import event
from pqjax.wire.address import is_loopback, resolve


def add_options(made: argparse.ArgumentParser) -> None:
    """Adds --log and --metrics."""
    form = "how the log on standard error is written: for people, or a JSON object a line"
    made.add_argument("--log", choices=("text", "json"), default="text", help=form)
    where = "serve /metrics (Prometheus), /health and /state there over HTTP; see `pqjax top`"
    made.add_argument("--metrics", metavar="HOST:PORT", help=where)


@dataclasses.dataclass(frozen=True)
class Watch:
    """All that watches a server.

    Attributes:
      take: where records go (`pqjax.watching.records`).
      layers: whether records of layers are wanted, too.
    """

    take: Sinks
    layers: bool
    _metrics: Metrics | None
    _address: str | None

    @property
    def events(self) -> Events:
        """Of a server in this process; one in another process has its own `Records`."""
        return Records(self.take, self.layers)

    @contextlib.contextmanager
    def door(self, state: Callable[[], State], ready: Callable[[], bool]) -> Iterator[None]:
        """Open meanwhile, if --metrics asks for one: arguments as of `Door`.

        Raises:
          AddressError: it cannot be there.
        """
        if self._metrics is None or self._address is None:
            yield
            return
        with Door(self._address, state, ready, self._metrics) as door:
            if not is_loopback(resolve(self._address)):
                say(
                    f"pqjax: WARNING: whoever reaches {door.address} can read the addresses of clients "
                    "and how much they ask: let your monitoring alone reach it"
                )
            self.take(event("watched", address=door.address))
            yield


def watching(args: argparse.Namespace) -> Watch:
    """What the options ask for.

    Raises:
      InputError: --metrics without prometheus-client.
    """
    metrics = None if args.metrics is None else Metrics()
    made = tracer()
    sinks = Log(say, args.log), metrics, None if made is None else Spans(made)
    return Watch(Sinks(*filter(None, sinks)), made is not None, metrics, args.metrics)
