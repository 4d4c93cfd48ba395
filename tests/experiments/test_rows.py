"""Every network's table has the same columns, whatever was run for it."""

import numpy as np
import pytest
from networks import resnet32

from experiments import rows
from experiments.two_processes import Run
from pqjax import plan, save_model

EACH = [{"offline": 1.0, "online": 2.0}, {"offline": 0.25, "online": 0.5}]


def run_of(each, outputs=2):
    trace = [
        {"inference": i, "phase": phase, "sent_bytes": 100, "received_bytes": 11}
        for i in range(outputs)
        for phase in ("setup", "install", "offline", "online")
    ]
    seconds = {"connect": 4.0, "install": 8.0, "each": each}
    return Run(
        np.zeros((outputs, 3)), {"peak_bytes": 1 << 20},
        {"seconds": seconds, "trace": trace, "peak_bytes": 3 << 20}, 1.0, 0.125,
    )  # fmt: skip


@pytest.fixture
def network(tmp_path):
    graph, weights, x = resnet32(3, blocks=1, stages=(4, 8, 16))
    path = tmp_path / "net.npz"
    save_model(path, graph, weights)
    return path, graph, np.stack([x, x])


def test_a_row_says_first_and_next_inference_apart(network):
    _, graph, _ = network
    made = plan(graph, "pqjax", inferences=100)

    row = rows.row_of(made, run_of(EACH), "pqjax")

    assert row["first_s"] == 4 + 8 + 3 and row["loopback_s"] == 0.75 and row["online_s"] == 0.5
    later = sum(line.cost.bits for line in made.schedule(1))
    assert row["first_bytes"] * 8 == made.cost().bits > later == row["next_bytes"] * 8
    assert row["offline_bytes"] == 111 and row["server_MiB"] == 1 and row["client_MiB"] == 3
    shown = rows.columns(row)
    assert shown["first MB"] == round(row["first_bytes"] / 1e6, 3) and shown["first s"] == 15
    assert shown["MiB server, client"] == "1, 3" and "200 Mbit/s s" not in shown


def test_a_session_of_one_has_no_later_inference_to_tell_of(network):
    made = plan(network[1], "pqjax-ot")

    row = rows.row_of(made, run_of(EACH[:1], 1), "pqjax-ot")

    assert row["loopback_s"] == 3.0 and row["hint_s"] == 0.0
    assert "made in s" not in rows.columns(row)


@pytest.mark.parametrize("patience", [0.0, 1e9])
def test_what_the_slow_link_would_hold_up_too_long_is_not_run_over_it(
    network, patience, monkeypatch
):
    path, graph, inputs = network
    made, asked = plan(graph, "pqjax"), []
    monkeypatch.setattr(rows, "PATIENCE_S", patience)

    def checked(path, protocol, inputs, link=None):
        asked.append((len(inputs), link))
        return made, run_of(EACH[: len(inputs)], len(inputs))

    monkeypatch.setattr(rows, "checked", checked)

    row, *_ = rows.measure(path, "pqjax", inputs, 1)

    assert asked == [(2, None), (1, rows.LINK)][: 2 if patience else 1]
    assert ("wan_s" in row) == bool(patience)
    if patience:
        assert row["wan_s"] == 3.0 and row["wan_first_s"] == 15.0 and row["wan_online_s"] == 2.0
