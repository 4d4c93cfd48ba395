"""A server that is watched in every way there is, for tests of what its watchers are told."""

import contextlib
import http.client
import json
import threading

from prometheus_client.parser import text_string_to_metric_families
from serving import PLAN, WEIGHTS

import pqjax
from pqjax.engine.events import All, Events
from pqjax.watching import Door, Log, Metrics, Records, Sinks
from pqjax.wire.address import parse_address


class Gate:
    """A progress that stops in the first layer of the first such phase until it is opened."""

    def __init__(self, phase):
        self.phase, self.reached, self.open = phase, threading.Event(), threading.Event()

    def __call__(self, where, done, steps):
        if where.startswith(self.phase):
            self.reached.set()
            assert self.open.wait(60)


class Truth(Events):
    """What the server itself tells, and how many connections are over."""

    def __init__(self):
        self.phases, self.ends, self.refusals = [], [], []
        self._change = threading.Condition()

    def done(self, visit, phase, seconds, count):
        self.phases.append((phase, seconds, count))

    def ended(self, visit, trace, error):
        with self._change:
            self.ends.append((visit, trace, error))
            self._change.notify_all()

    def refused(self, client, error):
        with self._change:
            self.refusals.append((client, error))
            self._change.notify_all()

    def wait(self, ends=0, refusals=0):
        """Until so many are over: their clients may know before the server tells."""
        with self._change:
            assert self._change.wait_for(
                lambda: len(self.ends) >= ends and len(self.refusals) >= refusals, 30
            )


class Watched:
    """The server, and what every watcher has heard so far."""

    def __init__(self, *more, **options):
        self.records, self.lines, self.json_lines = [], [], []
        self.metrics, self.truth = Metrics(), Truth()
        self.door, self.scraped, self.told = "", {}, []
        texts, objects = Log(self.lines.append), Log(self.json_lines.append, "json")
        sinks = Sinks(self.records.append, self.metrics, texts, objects, *more)
        # The truth is told last: who has waited for it finds that all others have been told.
        events = All(Records(sinks, layers=True), self.truth)
        self.server = pqjax.Server(PLAN, WEIGHTS, "127.0.0.1:0", events=events, **options)
        self.address = self.server.address

    @contextlib.contextmanager
    def running(self):
        thread = threading.Thread(target=self.server.run, daemon=True)
        thread.start()
        try:
            with Door("127.0.0.1:0", self.state, lambda: self.server.open, self.metrics) as door:
                self.door = door.address
                yield self
        finally:
            self.server.close()
            thread.join(30)
            assert not thread.is_alive()

    def state(self):
        return {"sessions": self.server.state, "models": ["model"]}

    def ask(self, path, method="GET"):
        """Status and content of an answer at the door."""
        return ask(self.door, path, method)

    def samples(self):
        """What is scraped now: values by name and labels."""
        status, text = self.ask("/metrics")
        assert status == 200
        return samples(text)


def ask(address, path, method="GET"):
    asking = http.client.HTTPConnection(*parse_address(address), timeout=30)
    with contextlib.closing(asking):
        asking.request(method, path)
        answer = asking.getresponse()
        return answer.status, answer.read().decode()


def samples(text):
    """Values of metrics by name and labels."""
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text) for sample in family.samples
    }  # fmt: skip


def value(found, name, **labels):
    """One of `samples`, or 0."""
    return found.get((f"pqjax_{name}", *sorted(labels.items())), 0)


def across(records, worker=None):
    """Records as they come out of a pipe from a worker process."""
    for record in json.loads(json.dumps(records)):
        yield record if worker is None else record | {"worker": worker}
