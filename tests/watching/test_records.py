"""Records: plain data, bounded and printable, of every event; and what is told of a worker that died."""

import json

import pytest
from watched import across, samples, value

from pqjax.engine.visit import Visit
from pqjax.errors import Drift, PeerGone, Refused, SessionEnded
from pqjax.watching import Log, Metrics, Records, Sinks
from pqjax.watching.logs import Form, Refusals
from pqjax.watching.records import MOST_TEXT, event, fault, printable, short
from pqjax.wire.channel import local_pair

NASTY = "\x1b[2J\r\nfake line\u202e\ud800\u2028\x00" + "a" * 10**6
OWNER = "certificate " + "0123456789abcdef" * 4


def visits(count):
    """Sessions that nothing has been said in."""
    for number in range(count):
        yield Visit(local_pair()[0], f"127.0.0.1:{number}", OWNER, model="net@2")


def lines(records, form: Form = "text"):
    said = []
    log = Log(said.append, form)
    for record in records:
        log(record)
    return said


def test_every_event_is_one_record_of_json():
    heard = []
    events = Records(heard.append)
    one, two = visits(2)

    events.began(one)
    events.done(one, "offline", 0.25, 0)
    events.done(one, "online", 0.5, 3)
    events.ended(one, None, Drift("another step"))
    events.ended(two, None, PeerGone("too late to begin"))
    events.refused("127.0.0.1:7", Refused("no room", "busy"))
    events.noted("127.0.0.1:8", "2 stored preparations thrown away")
    events.stopping([one], 7.0)

    assert heard == list(across(heard))
    kinds = ["began", "done", "done", "ended", "ended", "refused", "noted", "stopping"]
    assert [record["event"] for record in heard] == kinds
    assert [record.get("session") for record in heard] == [1, 1, 1, 1, 2, None, None, None]
    assert heard[2]["answers"] == heard[3]["answers"] == 3 and heard[3]["inferences"] == 1
    assert heard[3]["error"] == {"type": "Drift", "reason": "", "text": "another step"}
    events.ended(two, None, None)
    assert heard[-1]["error"] is None and heard[-1]["session"] == 3
    assert heard[5]["error"]["reason"] == "busy"
    assert json.loads(lines(heard, "json")[0])["owner"] == "certificate 0123456789ab"
    assert heard[7]["sessions"][0]["client"] == one.client and heard[7]["drain_s"] == 7.0
    times = [record["time"] for record in heard[:4]]
    assert times == sorted(times)


def test_text_that_others_chose_is_printable_cut_and_on_one_line():
    heard = []
    events = Records(heard.append)
    (visit,) = visits(1)
    visit.progress(NASTY, 0, 1)

    events.ended(visit, None, SessionEnded(NASTY, "left"))
    events.refused("127.0.0.1:7", Drift(NASTY))
    events.noted("127.0.0.1:7", NASTY)
    events.stopping([visit], 1.0)
    heard.append(event("reload_failed", text=NASTY))

    said = [*lines(heard), *lines(heard[:4], "json")]
    assert len(said) == 6 + 4
    assert all(line.isprintable() and len(line) < 3 * MOST_TEXT for line in said)
    assert all(
        "\\x1b[2J\\r\\nfake line\\u202e\\ud800" in line for line in lines(heard) if "fake" in line
    )
    assert sum("fake line" in line for line in lines(heard)) == 5


@pytest.mark.parametrize("text", ["", "plain", "é ü 漢", "a" * MOST_TEXT])
def test_text_that_steers_nothing_stays_as_it_is(text):
    assert printable(text) == text


def test_a_flood_of_refusals_is_a_few_lines():
    moment, said = [0.0], []
    log = Log(said.append, now=lambda: moment[0])
    refusal = event("refused", client="127.0.0.1:9", error=fault(PeerGone("gone")))

    for _ in range(1000):
        log(refusal)
    moment[0] += Refusals.every_s
    log(refusal)

    assert len(said) == Refusals.most + 2
    assert said[-2].endswith(f" {1000 - Refusals.most} more connections were refused meanwhile")
    assert said[-1].endswith(" 127.0.0.1:9 connection refused: gone")


def test_a_certificate_is_shown_by_a_few_digits():
    assert short(OWNER) == "certificate 0123456789ab"
    assert short("127.0.0.1") == "127.0.0.1"


def test_a_dead_workers_sessions_end_and_no_others():
    heard = []
    metrics = Metrics()
    sinks = Sinks(heard.append, metrics)
    for worker in (1, 2):
        events = Records(lambda record, worker=worker: sinks(record | {"worker": worker}))
        for visit in visits(2):
            events.began(visit)
            events.done(visit, "online", 0.5, 1)
    events.ended(visit, None, None)

    sinks(event("worker_died", worker=1, code=-9, sessions=2))
    sinks(event("worker_died", worker=1, code=-9, sessions=0))

    ends = [record for record in heard if record["event"] == "ended"]
    assert [(record["worker"], record["session"]) for record in ends] == [(2, 2), (1, 1), (1, 2)]
    assert {record["error"]["type"] for record in ends[1:]} == {"PeerGone"}
    assert [record["answers"] for record in ends] == [1, 1, 1]
    now = samples(metrics.text({}).decode())
    assert value(now, "sessions", model="net@2") == 1
    assert value(now, "worker_deaths_total") == 2
    assert value(now, "sessions_ended_total", model="net@2", result="PeerGone", reason="") == 2
    said = lines(heard)
    assert any("worker 1 died (code -9) with 2 sessions" in line for line in said)
    assert sum("session ended: the worker process" in line for line in said) == 2


def test_a_sink_that_fails_keeps_no_other_from_hearing(capsys):
    heard = []

    def fail(record):
        raise KeyError("of its own")

    Sinks(fail, heard.append)({"event": "reloaded"})

    assert len(heard) == 1 and heard[0]["time"] > 0 and "of its own" in capsys.readouterr().err


def test_memory_and_what_is_in_store_are_as_the_state_says():
    metrics = Metrics()
    state = {"workers": [{"resident_bytes": 5}, {"resident_bytes": 7}], "stored": 3}

    now = samples(metrics.text(state).decode())

    assert value(now, "resident_bytes", process="workers") == 12
    assert value(now, "stored_preparations") == 3
