"""Clocks that jump by hours and days, both ways: sessions do not notice, budgets are not given twice."""

import datetime
import pathlib

import numpy as np
import pytest
from serving import X
from trial import PATIENT_S, RIGHT, ask, case, in_process, in_thread, still_serves

import pqjax
from pqjax.engine.desk import Answers
from pqjax.wire import tls as tls_module
from pqjax.wire.tls import Tls, make_certificates

HERE = pathlib.Path(__file__).parent
HOUR_S, DAY_S = 3600.0, 86400.0
GROUP = "clock"


class Clock:
    """What a server's process takes for the time."""

    def __init__(self, file):
        self.file = file
        self.before = (
            f"import sys; sys.path.insert(0, {str(HERE)!r})\n"
            f"import clocked; clocked.follow({str(file)!r})\n"
        )

    def jump(self, off_s):
        self.file.write_text(str(off_s))


@pytest.mark.slow
@pytest.mark.parametrize("hours", [-30, -1, 1, 30])
def test_a_session_does_not_notice_that_its_server_s_clock_jumps(hours, frames, tmp_path):
    clock = Clock(tmp_path / "clock")
    with in_process(tmp_path, before=clock.before) as server:
        still_serves(server)
        with case(GROUP, f"{hours:+} h in the middle of a session", "right answer", "done"):
            with pqjax.connect(server.address, deadline_s=PATIENT_S) as session:
                session.prepare()
                clock.jump(hours * HOUR_S)
                np.testing.assert_array_equal(session.infer(X).output, RIGHT)
            end = server.ended(10.0)
            assert end is not None and end.what == "done"
        still_serves(server)


@pytest.mark.slow
def test_a_day_s_answers_are_not_given_twice_whichever_way_the_clock_jumps(frames, tmp_path):
    clock = Clock(tmp_path / "clock")
    words = ("--answers-a-day", 1, "--books", tmp_path / "books")
    with in_process(tmp_path, *words, before=clock.before) as server:
        still_serves(server)
        with case(GROUP, "a day's answers: the same day", "Refused (spent)"):
            assert ask(server.address).name == "Refused (spent)"
        for day in (-1, -30, 0):
            clock.jump(day * DAY_S)
            with case(GROUP, f"a day's answers: {day:+} d", "Refused (spent)"):
                assert ask(server.address).name == "Refused (spent)"
        clock.jump(DAY_S)
        while server.ended(0.0):
            pass
        with case(GROUP, "a day's answers: the next day", "right answer", "done"):
            still_serves(server)
    clock.jump(0)
    with in_process(tmp_path, *words, before=clock.before) as server:
        with case(
            GROUP, "a day's answers: back again, a new start", "Refused (spent)", "Refused (spent)"
        ):
            assert ask(server.address).name == "Refused (spent)"


@pytest.mark.slow
def test_what_is_stored_survives_a_clock_that_goes_back_and_grows_old_by_one_that_goes_on(
    frames, tmp_path
):
    clock, kept = Clock(tmp_path / "clock"), tmp_path / "client"
    words = ("--store", tmp_path / "kept", "--store-days", 2)
    with in_process(tmp_path, *words, before=clock.before) as server:
        for days, stored in ((-40, 1), (1, 1), (3, 0)):
            clock.jump(0)
            with pqjax.connect(server.address, store=kept, deadline_s=PATIENT_S) as session:
                session.keep()
            clock.jump(days * DAY_S)
            with case(GROUP, f"stored preparations: {days:+} d", "right answer"):
                options = {"store": kept, "spend": 1, "deadline_s": PATIENT_S}
                with pqjax.connect(server.address, **options) as session:
                    np.testing.assert_array_equal(session.infer(X).output, RIGHT)
                    assert session.stored == stored
        still_serves(server)


def certificates(folder, monkeypatch, off_s):
    """As a machine makes them whose clock is off: the same as if this one's had jumped the other way."""

    class Off(datetime.datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime.datetime.now(tz) + datetime.timedelta(seconds=off_s)

    class Module:
        datetime, timedelta, UTC = Off, datetime.timedelta, datetime.UTC

    with monkeypatch.context() as patched:
        patched.setattr(tls_module, "datetime", Module)
        make_certificates(folder)
    return [
        Tls(*(folder / name for name in (f"{role}.pem", f"{role}.key", "ca.pem")))
        for role in ("server", "client")
    ]


@pytest.mark.slow
@pytest.mark.parametrize("hours", [-12, 12, 48, -24 * 365 * 20])
def test_certificates_count_by_the_clock_and_a_few_hours_do_not_matter(
    hours, frames, tmp_path, monkeypatch
):
    pytest.importorskip("cryptography")
    server_tls, client_tls = certificates(tmp_path, monkeypatch, hours * HOUR_S)
    fits = abs(hours) <= 12
    name = "right answer" if fits else "HandshakeError"
    with in_thread(tls=server_tls) as server:
        with case(GROUP, f"certificates made at {hours:+} h", name):
            assert ask(server.address, tls=client_tls).what == name


def test_answers_of_a_day_are_not_forgotten_when_the_clock_goes_back(tmp_path, monkeypatch):
    today = ["2031-05-02"]
    monkeypatch.setattr("pqjax.engine.desk._today", lambda: today[0])
    books = tmp_path / "books"
    answers = Answers(books)
    answers.add("somebody", 3)

    for today[0] in ("2031-05-01", "2031-05-02", "1999-01-01"):
        assert answers.of("somebody") == Answers(books).of("somebody") == 3

    today[0] = "2031-05-03"
    assert answers.of("somebody") == Answers(books).of("somebody") == 0
