"""How far along an inference is, and how long it will take."""

import dataclasses

import pytest
from serving import GRAPH, WEIGHTS

import pqjax
from pqjax.errors import PlanError
from pqjax.ot.tuning import Tuning
from pqjax.planner import PRESETS
from pqjax.planner.plan import STOCK_LAYER
from pqjax.web.outlook import Outlook, foreseen
from pqjax.web.way import Way


@pytest.fixture(scope="module")
def outlook():
    return Outlook.of(pqjax.plan(GRAPH, inferences=100))


def test_a_preset_is_told_with_what_its_plan_predicts(outlook):
    made = pqjax.plan(GRAPH, "pqjax", inferences=100)

    assert outlook.told["bytes"]["online"] == -(-made.cost("online").bits // 8)
    assert outlook.told["seconds"]["offline"] == pytest.approx(
        made.predicted()["offline"], abs=0.01
    )
    assert outlook.told["rates"] == "nominal"
    assert [row["layer"] for row in outlook.steps] == [s.node.name for s in made.steps]


def told(outlook, phase):
    """What `Progress` is told of a phase, in order."""
    names = [row["layer"] for row in outlook.steps]
    yield from ((f"{phase}/{name}", i, len(names)) for i, name in enumerate(names))
    yield phase, len(names), len(names)


def test_the_bar_goes_up_to_its_end_and_the_time_left_down(outlook):
    now = [0.0]
    way, seen = Way(outlook, lambda: now[0]), []
    assert way.fraction == 0 and way.left_s == pytest.approx(sum(
        outlook.seconds[phase] for phase in ("offline", "online")))  # fmt: skip

    for phase in ("offline", "online"):
        for at in told(outlook, phase):
            way(*at)
            now[0] += 1.0
            seen.append(way.fraction)

    assert seen == sorted(seen) and seen[-1] == 1 and way.left_s == 0
    assert (way.phase, way.layer) == ("online", "")


def test_at_twice_the_time_the_rest_takes_twice_as_long(outlook):
    now = [0.0]
    way = Way(outlook, lambda: now[0])
    for at in told(outlook, "offline"):
        way(*at)
    now[0] = 2 * outlook.seconds["offline"]

    assert way.left_s == pytest.approx(2 * outlook.seconds["online"])


def test_a_first_layer_that_takes_long_makes_the_rest_take_longer(outlook):
    now = [0.0]
    way = Way(outlook, lambda: now[0])
    first = next(iter(outlook.spans["offline"]))
    way(f"offline/{first}", 0, 9)
    left = way.left_s
    now[0] = 3 * outlook.within("offline", first)[1]

    assert way.fraction < 0.05 and way.left_s == pytest.approx(3 * left)


def test_random_ots_made_beside_the_layers_are_spread_over_them():
    preset = dataclasses.replace(PRESETS["pqjax"], tuning=Tuning(stream_above=0))
    made = pqjax.plan(GRAPH, preset, inferences=100)
    streamed = Outlook.of(made)

    assert made.streamed
    whole = made.predicted(inference=0)
    for phase in ("offline", "online"):
        assert streamed.seconds[phase] == pytest.approx(whole[phase])
    begin, end = streamed.within("online", STOCK_LAYER)
    assert begin == end


def test_an_installation_counts_where_there_is_one(outlook):
    with_it, without = Way(outlook, lambda: 0.0), Way(outlook, lambda: 0.0)
    with_it("install", 1, 1)
    with_it("offline", 1, 1)
    without("offline", 1, 1)

    install = outlook.seconds["install"]
    assert (with_it.fraction > without.fraction) == (install > 0)
    assert with_it.left_s == pytest.approx(without.left_s)


def test_another_process_foresees_the_same(outlook, tmp_path, monkeypatch):
    pqjax.save_model(tmp_path / "net.npz", GRAPH, WEIGHTS)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))  # where no rates are

    made = foreseen(tmp_path / "net.npz", "pqjax")
    kept = foreseen(tmp_path / "net.npz", "pqjax")

    for found in (made, kept):
        assert found.told == outlook.told and found.steps == outlook.steps
        assert found.within("online", "") == outlook.within("online", "")
    assert len(list(tmp_path.glob("pqjax/hints/*.plan"))) == 1
    with pytest.raises(PlanError, match="unknown protocol 'another'"):
        foreseen(tmp_path / "net.npz", "another")
