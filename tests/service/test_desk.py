"""Limits of a server: sessions, memory, and what one client may have."""

import datetime
import json

import pytest

from pqjax.engine import desk as desk_module
from pqjax.engine.desk import Limits, LimitsDesk
from pqjax.errors import DataError, InputError
from pqjax.wire.handshake import Objection

GB = 1 << 30


def enter(desk, guest, owner="a", takes=GB, ticket=b"", background=False):
    return desk.enter(guest, owner, takes, ticket, background)


def test_the_background_is_let_in_where_nobody_is_and_told_to_go_when_somebody_comes():
    went = []
    desk = LimitsDesk(Limits(most_clients=1))
    desk.give_way(lambda: went.append(1))

    assert enter(desk, 1, background=True) is None
    assert enter(desk, 2, background=True) is Objection.BUSY and went == []
    assert enter(desk, 3) is None and went == [1]  # it needs no seat of the other's
    assert enter(desk, 4) is Objection.BUSY
    desk.leave(1, served=True)
    assert enter(desk, 5, background=True) is Objection.BUSY
    desk.leave(3, served=True)
    assert enter(desk, 5, background=True) is None and went == [1]


def test_seats_are_for_all_and_for_each():
    desk = LimitsDesk(Limits(most_clients=3, each_clients=2))

    assert enter(desk, 1) is enter(desk, 2) is None
    assert enter(desk, 3) is Objection.TOO_MANY_SESSIONS
    assert enter(desk, 4, "b") is None
    assert enter(desk, 5, "c") is Objection.BUSY
    desk.leave(1, served=True)
    desk.leave(1, served=True)  # twice is once
    desk.leave(3, served=True)  # never in
    assert enter(desk, 6) is None and enter(desk, 7, "b") is Objection.BUSY


def test_memory_is_what_plans_take_or_what_was_measured_if_that_is_more():
    measured = [0]
    desk = LimitsDesk(Limits(9, memory_bytes=3 * GB), resident=lambda: measured[0])

    assert enter(desk, 1, takes=2 * GB) is None
    assert enter(desk, 2, takes=2 * GB) is Objection.NO_MEMORY
    assert enter(desk, 3) is None
    desk.leave(1, served=True)
    measured[0] = 5 * GB // 2
    assert enter(desk, 4) is Objection.NO_MEMORY
    measured[0] = 0
    assert enter(desk, 5) is None


def test_answers_are_counted_by_the_day_and_forgotten_by_no_new_start(tmp_path, monkeypatch):
    books, limits = tmp_path / "books.json", Limits(9, each_inferences=3)
    desk = LimitsDesk(limits, books)

    assert desk.permit("a", 2) and not desk.permit("a", 2) and desk.permit("a", 1)
    assert desk.permit("b", 3)
    assert enter(desk, 1) is Objection.SPENT
    assert not LimitsDesk(limits, books).permit("a", 1)
    assert books.stat().st_mode & 0o077 == 0
    tomorrow = datetime.datetime.now(datetime.UTC).date() + datetime.timedelta(days=1)
    monkeypatch.setattr(desk_module, "_today", tomorrow.isoformat)
    assert desk.permit("a", 3) and LimitsDesk(limits, books).permit("b", 3)
    assert json.loads(books.read_text())["answers"] == {"a": 3, "b": 3}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        '{"day": 1}',
        '{"day": "", "answers": []}',
        '{"day": "", "answers": {"a": -1}}',
    ],
)
def test_damaged_books_are_an_error(tmp_path, text):
    books = tmp_path / "books.json"
    books.write_text(text)

    with pytest.raises(DataError, match="books.json does not hold"):
        LimitsDesk(Limits(), books)


def test_a_ticket_is_asked_for_first_and_used_up():
    good = {(b"t" * 32, "a")}

    def take(ticket, owner):
        known = (ticket, owner) in good
        good.discard((ticket, owner))
        return known

    desk = LimitsDesk(Limits(1), tickets=take)

    assert enter(desk, 1) is enter(desk, 1, "b", ticket=b"t" * 32) is Objection.NO_TICKET
    assert enter(desk, 1, ticket=b"t" * 32) is None
    assert enter(desk, 2, ticket=b"t" * 32) is Objection.NO_TICKET


def test_after_so_many_sessions_it_is_over():
    desk = LimitsDesk(Limits(5))
    desk.close_after(2)

    assert enter(desk, 1) is None and enter(desk, 2) is None and enter(desk, 3) is Objection.BUSY
    desk.leave(1, served=False)  # never began
    assert enter(desk, 4) is None
    for guest in (2, 4):
        assert not desk.over
        desk.leave(guest, served=True)
    assert desk.over and enter(desk, 5) is Objection.BUSY


@pytest.mark.parametrize(
    "wrong",
    [{"most_clients": 0}, {"each_clients": 0}, {"each_inferences": -1}, {"memory_bytes": 0}],
)
def test_limits_of_nothing_are_an_input_error(wrong):
    with pytest.raises(InputError, match="at least 1"):
        Limits(**wrong)


def test_where_several_servers_count_together_both_have_to_permit():
    asked = []

    def permits(owner, count):
        asked.append((owner, count))
        return len(asked) != 3

    desk = LimitsDesk(Limits(each_inferences=2), permits=permits)

    assert desk.permit("a", 1) and desk.permit("b", 2)
    assert not desk.permit("a", 1) and desk.permit("a", 1) and not desk.permit("a", 1)
    assert asked == [("a", 1), ("b", 2), ("a", 1), ("a", 1), ("a", 1)]
