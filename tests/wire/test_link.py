import pytest

from pqjax.errors import InputError
from pqjax.wire.link import LAN, Link, parse_link


@pytest.mark.parametrize(
    ("text", "link"),
    [
        ("200mbps,13ms", Link(200.0, 13.0)),
        (" 200 Mbps , 13 ms ", Link(200.0, 13.0)),
        ("1.5gbps,0.25ms", Link(1500.0, 0.25)),
        ("500kbps,0ms", Link(0.5, 0.0)),
        ("lan", Link(1000.0, 0.3)),
        ("LAN", LAN),
        ("none", None),
    ],
)
def test_links_are_read(text, link):
    assert parse_link(text) == link


@pytest.mark.parametrize("link", [Link(200, 13), Link(0.25, 0.3), LAN])
def test_a_link_is_read_back_from_its_text(link):
    assert parse_link(str(link)) == link


@pytest.mark.parametrize(
    "text", ["", "fast", "200mbps", "13ms", "200,13", "-1mbps,3ms", "1mbps,-3ms", "x" * 5000]
)
def test_bad_text_is_answered_with_examples(text):
    with pytest.raises(InputError, match="200mbps,13ms") as caught:
        parse_link(text)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("bad", [(0, 1), (-1, 1), (1, -1), (float("nan"), 1), (1, float("inf"))])
def test_impossible_links_are_refused(bad):
    with pytest.raises(InputError):
        Link(*bad)


def test_zero_rate_in_text_is_refused():
    with pytest.raises(InputError, match="above 0"):
        parse_link("0mbps,13ms")


def test_seconds_are_traffic_over_rate_plus_half_a_round_trip_per_flow():
    link = Link(mbps=200, rtt_ms=13)

    assert link.seconds(150_000_000, 50_000_000, 10) == pytest.approx(1.0 + 0.065)
    assert link.seconds(0, 0, 0) == 0
