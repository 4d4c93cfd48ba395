"""The table of predicted and measured seconds, from rows of a result file."""

from experiments.seconds import LINKS, NETWORKS, report
from pqjax.wire.link import parse_link


def row(phase, told, seen, link="none"):
    shared = {"network": "minionn", "link": link, "phase": phase, "load": 0.25}
    return {**shared, "predicted_s": told, "measured_s": seen}


def test_ratios_are_of_each_inference_and_both_phases_are_summed_in_it():
    runs = [
        row("install", [0.2], [0.1]),
        row("offline", [1.0, 0.5, 0.5], [1.0, 0.5, 9.5]),
        row("online", [1.0, 1.0, 1.0], [1.2, 1.1, 2.0]),
        row("online", [3.0], [2.0], "200mbps,13ms"),
    ]

    text = report({"config": {"protocol": "pqjax"}, "runs": runs})

    assert "1 of 2 sessions" in text
    cells = [
        [c.strip() for c in line.split("|")[1:-1]]
        for line in text.splitlines()
        if "minionn" in line
    ]
    assert cells[0][:3] == ["minionn", "loopback", "both"]
    assert cells[0][5:] == ["0.91", "1.6 .. 11.5", "0.2"]
    assert [x[5] for x in cells[1:]] == ["1.50", "2.00", "1.00", "0.83", "1.50"]


def test_every_link_and_network_can_be_asked_for():
    links = [parse_link(text) for text in LINKS]

    assert links[0] is None and None not in links[1:]
    assert set(NETWORKS) == {"minionn", "resnet32", "resnet18", "mobilenetv2", "resnet50"}
    assert all(NETWORKS[name][0]().exists() for name in ("minionn", "resnet32"))
