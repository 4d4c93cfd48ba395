"""Frames that are cut off, too long, altered, late or never read: a typed error in time, and on it goes.

The parties are semi-honest: what a frame carries is not authenticated but by TLS. So an altered payload
may make a wrong answer. What it must not make is a hang, a crash, or an error of no type.
"""

import proxy
import pytest
from proxy import CLIENT, SERVER
from trial import DEADLINE_S, PATIENT_S, groups, judged, limit_of, still_serves, through

HEADERS = {
    "a byte shorter": proxy.shorter,
    "a byte longer": proxy.longer,
    "a terabyte by its header": proxy.enormous,
    "with another number": proxy.flipped_step,
    "with another clock": proxy.flipped_clock,
}
PAYLOADS = {"first bit flipped": proxy.flipped_first, "last bit flipped": proxy.flipped_last}
TYPED = {
    "right answer", "wrong answer", "done", "PeerGone", "Drift", "HandshakeError", "WireError",
    "DeadlineExceeded", "CheckpointError", "PlanError", "SessionEnded (drift)", "SessionEnded (left)",
    "SessionEnded (slow)", "SessionEnded (refused)", "SessionEnded (fault)", "SessionEnded (closing)",
    "SessionEnded (idle)", "Refused (unknown model)", "Refused (no ticket)",
}  # fmt: skip


def some_of_each(frames):
    """The first frame of either side in every phase and layer, but for those that carry nothing."""
    found = []
    for of in groups(frames).values():
        for sender in (CLIENT, SERVER):
            found += [known for known in of if known.place.sender == sender and known.nbytes][:1]
    return found


def ends(known, receiver, other):
    """How (client, server) are to end, by what the frame's receiver and its sender make of it."""
    return (receiver, other) if known.place.sender == SERVER else (other, receiver)


def header(server, known, name):
    """A frame whose header does not fit its place."""
    trial = through(server, {known.place: HEADERS[name]}, deadline_s=PATIENT_S)
    greeting = known.phase == "greeting"
    receiver = {"HandshakeError"} if greeting else {"Drift"}
    other = {"SessionEnded (drift)"}
    if greeting:
        other |= {"HandshakeError", "PeerGone", "SessionEnded (refused)"}
    problems = judged(f"frame {name}", known.label, trial, *ends(known, receiver, other))
    still_serves(server)
    return problems


def payload(server, known, name):
    """A frame that carries something else."""
    trial = through(server, {known.place: PAYLOADS[name]}, deadline_s=DEADLINE_S)
    wait_s = max(limit_of(known, SERVER), limit_of(known, CLIENT))
    problems = judged(f"payload, {name}", known.label, trial, TYPED, TYPED, wait_s)
    still_serves(server)
    return problems


def test_a_damaged_frame_ends_its_session_only(here, frames):
    some = some_of_each(frames)

    problems = header(here, some[len(some) // 3], "with another number")
    problems += header(here, some[-2], "a terabyte by its header")
    problems += payload(here, some[len(some) // 2], "first bit flipped")

    assert problems == []


@pytest.mark.slow
@pytest.mark.parametrize("name", HEADERS)
def test_a_frame_with_another_header_is_refused_wherever_it_is(name, served, frames):
    problems = []
    for known in some_of_each(frames):
        if (known.phase, known.layer) != ("goodbye", "begin"):
            problems += header(served, known, name)

    assert problems == []


@pytest.mark.slow
@pytest.mark.parametrize("name", PAYLOADS)
def test_a_frame_that_carries_something_else_does_no_more_than_a_wrong_answer(name, served, frames):
    problems = []
    for known in some_of_each(frames):
        problems += payload(served, known, name)

    assert problems == []


@pytest.mark.slow
def test_a_frame_that_is_cut_off_is_noticed_wherever_it_is(served, frames):
    problems = []
    for known in some_of_each(frames):
        trial = through(served, {known.place: proxy.cut_off})
        client = {"right answer"} if known.phase == "goodbye" else {"PeerGone"}
        problems += judged("frame cut off", known.label, trial, client, {"PeerGone"})
        still_serves(served)

    assert problems == []


@pytest.mark.slow
def test_bytes_behind_a_frame_are_noticed_wherever_they_are(served, frames):
    problems, last = [], {known.place.sender: known.place for known in frames}
    for known in some_of_each(frames):
        if known.place in last.values():  # nothing more is read
            continue
        trial = through(served, {known.place: proxy.trailed}, deadline_s=DEADLINE_S)
        greeting = known.phase == "greeting"
        receiver = {"HandshakeError", "Drift"} if greeting else {"Drift"}
        other = {"SessionEnded (drift)"} | ({"PeerGone", "HandshakeError"} if greeting else set())
        expected = ends(known, receiver, other)
        problems += judged("bytes behind a frame", known.label, trial, *expected, DEADLINE_S)
        still_serves(served)

    assert problems == []


@pytest.mark.slow
@pytest.mark.parametrize("how", ["held", "trickled"])
@pytest.mark.parametrize("whose", ["client", "server"])
def test_frames_that_come_late_or_never_are_not_waited_for(how, whose, served, frames):
    """The receiver gives up after its deadline, and tells the other one, who is more patient."""
    sender = CLIENT if whose == "client" else SERVER
    problems = []
    for known in some_of_each(frames):
        if known.place.sender != sender or known.phase == "goodbye":
            continue
        # At the server the same deadline holds for both; so a client that waits has a shorter one.
        deadline_s = PATIENT_S if sender == CLIENT else DEADLINE_S / 2
        act = getattr(proxy, how)
        trial = through(served, {known.place: act}, deadline_s=deadline_s)
        greeting = known.phase == "greeting"
        limit_s = max(limit_of(known, 1 - sender), DEADLINE_S)
        other = {"SessionEnded (slow)", "SessionEnded (idle)"} | (
            {"PeerGone"} if greeting else set()
        )
        expected = ends(known, {"DeadlineExceeded"}, other)
        group = (
            f"frame {how}: "
            + {"held": "nothing is read any more", "trickled": "a byte a second"}[how]
        )
        problems += judged(group, known.label, trial, *expected, limit_s)
        still_serves(served)

    assert problems == []
