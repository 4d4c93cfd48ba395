"""Pictures of the experiments: one look, made from result files alone, the same bytes every time.

A picture's caption says of every kind of number in it whether it is predicted by a formula, measured
between two parties, or quoted from a paper; quoted ones are hatched.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from experiments import record

# Okabe and Ito's colours, which the colour-blind tell apart, in an order of falling contrast.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#999999")
QUOTED_HATCH = "////"
STYLE: dict[Any, Any] = {
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 10,
    "figure.constrained_layout.use": True,
    "figure.dpi": 150,
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "grid.color": "#dddddd",
    "hatch.linewidth": 0.6,
    "legend.frameon": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "pqjax",
}


def grouped_bars(
    groups: Sequence[str],
    series: Mapping[str, Sequence[float]],
    unit: str,
    title: str,
    quoted: Sequence[str] = (),
    log: bool = False,
) -> Figure:
    """Bars side by side.

    Args:
      groups: labels along the axis.
      series: one bar a group each; the key is the legend's, a quoted one has the colour of the series
        before it.
      unit: of the values, for the axis.
      title: of the picture.
      quoted: the series that are quoted.
      log: logarithmic values.
    """
    with rc_context(STYLE):
        figure = Figure(figsize=(_width(len(groups) * len(series)), 3.6))
        axes = figure.subplots()
        width = 0.82 / len(series)
        colour = -1
        for i, (name, values) in enumerate(series.items()):
            colour += 0 if name in quoted and i else 1
            at = [g + (i - (len(series) - 1) / 2) * width for g in range(len(groups))]
            axes.bar(at, values, width, label=name, **filled(COLOURS[colour], name in quoted))
        _finish(axes, groups, unit, title)
        if log:
            axes.set_yscale("log")
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.yaxis.set_major_formatter("{x:,g}")
            axes.yaxis.set_minor_locator(NullLocator())
        _legend(figure, list(series))
        return figure


def stacked_bars(
    groups: Sequence[str],
    bars: Sequence[str],
    parts: Mapping[str, Sequence[Sequence[float]]],
    unit: str,
    title: str,
) -> Figure:
    """Bars side by side, each stacked from the same parts.

    Args:
      groups: labels along the axis.
      bars: labels of the bars of a group.
      parts: from the name of a part to its values, one row a group and one value a bar.
      unit: of the values.
      title: of the picture.
    """
    with rc_context(STYLE):
        figure = Figure(figsize=(_width(len(groups) * len(bars)), 3.6))
        axes = figure.subplots()
        width = 0.82 / len(bars)
        for i, bar in enumerate(bars):
            at = [g + (i - (len(bars) - 1) / 2) * width for g in range(len(groups))]
            below = [0.0] * len(groups)
            for colour, (name, rows) in zip(COLOURS, parts.items(), strict=False):
                values = [row[i] for row in rows]
                label = None if i else name
                axes.bar(at, values, 0.92 * width, below, label=label, **filled(colour, False))
                below = [b + v for b, v in zip(below, values, strict=True)]
            for x, top in zip(at, below, strict=True):
                place = {"xytext": (0, 2), "textcoords": "offset points", "ha": "center"}
                axes.annotate(bar, (x, top), fontsize=7, **place)
        _finish(axes, groups, unit, title)
        _legend(figure, list(parts))
        return figure


def curves(
    series: Mapping[str, Sequence[tuple[float, float]]],
    across: str,
    up: str,
    title: str,
    level: tuple[str, float] | None = None,
) -> Figure:
    """Lines through points, such as fronts of accuracy against cost.

    Args:
      series: points (x, y) of each line, joined by growing x.
      across: what x is, with its unit.
      up: what y is.
      title: of the picture.
      level: name and value of a horizontal line.
    """
    with rc_context({**STYLE, "axes.grid.axis": "both"}):
        figure = Figure(figsize=(6.0, 3.6))
        axes = figure.subplots()
        for colour, mark, (name, points) in zip(COLOURS, "os^Dvx+", series.items(), strict=False):
            x, y = zip(*sorted(points), strict=True)
            look = {"color": colour, "markersize": 5, "linewidth": 1.2}
            axes.plot(x, y, f"{mark}-", label=name, **look)
        names = list(series)
        if level is not None:
            axes.axhline(level[1], color="#444444", linewidth=0.8, linestyle="--", label=level[0])
            names.append(level[0])
        axes.set_xlabel(across)
        axes.set_ylabel(up)
        axes.set_title(title, loc="left")
        _legend(figure, names)
        return figure


def heatmaps(
    panels: Mapping[str, Sequence[Sequence[float]]],
    rows: Sequence[str],
    columns: Sequence[str],
    unit: str,
    title: str,
    marks: Mapping[str, Sequence[Sequence[str]]] | None = None,
) -> Figure:
    """Panels of numbers side by side, on one colour scale.

    Args:
      panels: from a panel's title to its values, row by row.
      rows: labels of the rows.
      columns: labels of the columns.
      unit: of the values.
      title: of the picture.
      marks: small text after a value, by panel.
    """
    with rc_context({**STYLE, "axes.grid": False}):
        # Drawn two in a row: a page is not wide.
        height = -(-len(panels) // 2)
        figure = Figure(figsize=(0.55 * len(columns) * 2 + 2.2, height * (0.36 * len(rows) + 0.75)))
        places = figure.subplots(height, 2, squeeze=False).reshape(-1)
        top = max(v for values in panels.values() for row in values for v in row)
        image = None
        for axes, (name, values) in zip(places, panels.items(), strict=False):
            image = axes.imshow(values, vmin=0, vmax=top, cmap="cividis", aspect="auto")
            for i, row in enumerate(values):
                for j, value in enumerate(row):
                    mark = marks[name][i][j] if marks else ""
                    ink = "white" if value < 0.55 * top else "black"
                    centred = {"ha": "center", "va": "center"}
                    axes.text(j, i, f"{value:.2f}{mark}", color=ink, fontsize=7, **centred)
            axes.set_xticks(range(len(columns)), columns)
            axes.set_yticks(range(len(rows)), rows)
            axes.set_title(name)
        for axes in places[len(panels) :]:
            axes.set_visible(False)
        assert image is not None
        figure.colorbar(image, ax=list(places), label=unit, shrink=0.8)
        figure.suptitle(title, fontsize=10)
        return figure


def save(figure: Figure, name: str, caption: str) -> str:
    """Writes `<name>.svg` beside the report; returns Markdown that shows the picture with its caption.

    Args:
      figure: to be saved.
      name: of the file.
      caption: what is to be seen, and how each kind of number came to be.
    """
    with rc_context(STYLE):
        figure.draw_without_rendering()  # the layout settles on its second pass
        # A fresh canvas: the SVG's identifiers count from its own start.
        path = record.written(f"{name}.svg")
        FigureCanvasSVG(figure).print_svg(path, metadata={"Date": None})
    return f"![{name}]({name}.svg)\n\n*{caption}*\n"


def filled(colour: str, quoted: bool) -> dict:
    """How a bar is filled: quoted ones are hatched."""
    if quoted:
        return {"facecolor": "white", "edgecolor": colour, "hatch": QUOTED_HATCH, "linewidth": 0.8}
    return {"facecolor": colour, "edgecolor": colour, "linewidth": 0.8}


def _finish(axes: Axes, groups: Sequence[str], unit: str, title: str) -> None:
    axes.set_xticks(range(len(groups)), groups)
    axes.set_ylabel(unit)
    axes.set_title(title, loc="left")
    axes.margins(x=0.01)


def _legend(figure: Figure, names: Sequence[str]) -> None:
    """Below the axes, in as many columns as there is room for."""
    letters = 5 + max(map(len, names))
    columns = min(len(names), max(1, int(figure.get_figwidth() * 15 / letters)))
    figure.legend(loc="outside lower center", fontsize=8, ncols=columns)


def _width(bars: int) -> float:
    """Inches for so many bars, that a page still holds."""
    return min(max(6.0, 0.24 * bars), 12.0)
