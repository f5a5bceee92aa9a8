"""Pictures of simulations as SVG, by matplotlib: the extra `plots`, imported only where something is drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

Line = Sequence[tuple[float, float]]

COLOURS: Final = ("tab:blue", "tab:red", "tab:orange")


def draw(path: Path, title: str, x_label: str, lines: Mapping[str, Sequence[Line]]) -> None:
    """Write each name's mean over its runs, and every run thinly behind it. The same lines give the same bytes.

    Values are percent of all GPUs. At most as many names as there are colours. ImportError without the extra `plots`.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context({"svg.hashsalt": title, "svg.fonttype": "none"}):
        figure = Figure(figsize=(8.0, 5.0), layout="constrained")
        axes = figure.add_subplot(xlabel=x_label, ylabel="% of all GPUs", title=title)
        for (name, runs), colour in zip(lines.items(), COLOURS[: len(lines)], strict=True):
            if len(runs) > 1:
                for line in runs:
                    axes.plot(*zip(*line, strict=True), color=colour, linewidth=0.5, alpha=0.3)
            mean = _mean(runs)
            axes.plot([at for at, _ in mean], [value for _, value in mean], color=colour, label=name)
        axes.legend(loc="upper left")
        axes.grid(visible=True, linewidth=0.3)
        figure.savefig(path, format="svg", metadata={"Date": None})


def _mean(runs: Sequence[Line]) -> Line:
    """Per place the mean of the runs that have a value there."""
    found: dict[float, list[float]] = {}
    for line in runs:
        for at, value in line:
            found.setdefault(at, []).append(value)
    return [(at, sum(values) / len(values)) for at, values in sorted(found.items())]
