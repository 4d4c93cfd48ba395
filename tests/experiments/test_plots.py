import pytest

from experiments.plots import grouped_bars, heatmaps, save, stacked_bars

FIGURES = {
    "bars": lambda: grouped_bars(
        ["a", "b"], {"ours": [1.0, 2.0], "theirs": [1.5, 2.5]}, "GiB", "Bars", ("theirs",)
    ),
    "log": lambda: grouped_bars(["a", "b"], {"x": [1.0, 2e4]}, "MiB", "Logarithmic", log=True),
    "stack": lambda: stacked_bars(
        ["a"], ["(1)", "(2)"], {"one": [[1.0, 2.0]], "two": [[0.5, 0.0]]}, "GiB", "Stacked"
    ),
    "map": lambda: heatmaps(
        {"p": [[1.0, 2.0]], "q": [[0.0, 3.0]]}, ["r"], ["c", "d"], "GiB", "Map"
    ),
}


@pytest.mark.parametrize("name", FIGURES)
def test_a_second_run_draws_the_same_bytes(name, tmp_path):
    folders = tmp_path / "first", tmp_path / "second"
    for folder in folders:
        text = save(FIGURES[name](), name, "A caption: all predicted.", folder)
        assert f"![{name}]({name}.png)" in text and "*A caption: all predicted.*" in text
    for suffix in ("png", "svg"):
        first, second = ((folder / f"{name}.{suffix}").read_bytes() for folder in folders)
        assert first == second
    assert b"<dc:date>" not in first
