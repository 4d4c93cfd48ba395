"""A connection that ends before any frame of a session: both sides say so at once, and on it goes."""

import collections

import numpy as np
import pytest
from proxy import CLIENT, PIECES, SERVER, Place, closed, half_closed, reset
from trial import PLAN, groups, judged, still_serves, through

ENDINGS = {"closed": closed, "reset": reset, "half closed": half_closed}
SENDERS = {"from the client": CLIENT, "from the server": SERVER}


def cut(server, known, how, frames):
    """The connection ends before this frame; what was wrong with how the sides ended."""
    trial = through(server, {known.place: ENDINGS[how]})
    revealed = last(frames).place in {place for place, _ in trial.seen}
    client = {"right answer"} if revealed and known.phase == "goodbye" else {"PeerGone"}
    problems = judged(f"connection {how}", f"before {known.label}", trial, client, {"PeerGone"})
    still_serves(server)
    return problems


def last(frames):
    """The frame with the answer."""
    return next(known for known in frames if known.layer == "reveal")


def test_a_session_s_frames_are_those_of_its_plan(frames):
    carried = collections.defaultdict(lambda: [[], []])
    for known in frames:
        carried[known.phase, known.layer][known.place.sender].append(known.nbytes)

    expected = collections.defaultdict(lambda: [0, 0])
    for line in PLAN.schedule():
        for sender in (SERVER, CLIENT):
            expected[line.phase, line.layer][sender] += line.cost.sent[sender]

    greeted = {("greeting", "greeting"), ("goodbye", "begin")}
    for place, of in carried.items():
        for sender in (SERVER, CLIENT):
            spare = 8 * sum(of[sender]) - expected[place][sender]
            assert place in greeted or 0 <= spare <= 7 * len(of[sender]), place
    sending = {place for place, bits in expected.items() if sum(bits)}
    assert sending == set(carried) - greeted


def test_a_connection_that_ends_somewhere(here, frames):
    every = [of[0] for of in groups(frames).values()]
    some = every[:: len(every) // 3]

    problems = [
        problem
        for at, known in enumerate(some)
        for problem in cut(here, known, [*ENDINGS][at % 3], frames)
    ]

    assert problems == []


@pytest.mark.slow
@pytest.mark.parametrize("whose", SENDERS)
@pytest.mark.parametrize("how", ENDINGS)
def test_a_connection_that_ends_before_any_frame(how, whose, served, frames):
    problems, tried = [], [known for known in frames if known.place.sender == SENDERS[whose]]
    for known in tried:
        problems += cut(served, known, how, frames)

    assert problems == [] and len(tried) > 20


@pytest.mark.slow
@pytest.mark.parametrize("how", ENDINGS)
def test_a_connection_that_ends_inside_of_tls(how, certified, frames):
    server, tls = certified
    good = through(server, {}, framed=False, tls=tls)
    assert good.client.what == "right answer"
    count = collections.Counter(place.sender for place, _ in good.seen)
    problems = []
    for sender in (CLIENT, SERVER):
        # How much comes in a piece is not the same every time: the last ones may not come.
        for step in (0, 1, *np.linspace(2, count[sender] // 2, 6).astype(int)):
            place = Place(sender, PIECES, int(step))
            trial = through(server, {place: ENDINGS[how]}, framed=False, tls=tls)
            client = {"PeerGone"} | ({"HandshakeError"} if step < 2 else set())
            who = "client" if sender == CLIENT else "server"
            where = f"before the {who}'s piece {step}" + (" (handshake)" if step < 2 else "")
            problems += judged(f"TLS connection {how}", where, trial, client, client)
            still_serves(server, tls=tls)

    assert problems == []
