"""Tickets: good once, soon, and for whom they were made."""

from pqjax.fleet.tickets import Tickets


def test_a_ticket_is_good_once_and_for_its_owner_alone():
    tickets = Tickets()
    mine, other = tickets.issue("me"), tickets.issue("other")

    assert len(mine) == 32 and mine != other
    assert not tickets.take(mine, "other")  # a thief cannot spend it
    assert not tickets.take(bytes(32), "me") and not tickets.take(b"", "me")
    assert tickets.take(mine, "me")  # and it is still there for whose it is
    assert not tickets.take(mine, "me")
    assert tickets.take(other, "other")


def test_tickets_grow_old_and_hold_no_seat_then():
    now = [0.0]
    tickets = Tickets(30.0, lambda: now[0])
    first = tickets.issue("me")
    now[0] = 20.0
    second = tickets.issue("me")

    assert tickets.owners == {"me": 2}
    now[0] = 30.0
    assert tickets.owners == {"me": 1}
    assert not tickets.take(first, "me") and tickets.take(second, "me")
    assert tickets.owners == {}
    third = tickets.issue("me")
    now[0] = 60.0
    assert not tickets.take(third, "me")


def test_no_ticket_is_kept_as_it_is():
    tickets = Tickets()
    ticket = tickets.issue("me")

    assert ticket not in tickets._issued and ticket.hex() not in repr(vars(tickets))
