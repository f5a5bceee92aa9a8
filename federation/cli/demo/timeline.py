"""The play as one picture (SVG): GPUs in use by cluster, what waited, and where each struck group ran before and after.

Pure: numbers in, text out. The figures come from the kubelets' run logs and the decision log.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

from federation.cli.demo.evidence import Run

WIDTH: Final = 1160
LEFT: Final = 78
RIGHT: Final = 150
USE_H: Final = 230
WAIT_H: Final = 90
ROW_H: Final = 7
ROWS_MAX: Final = 90  # struck groups drawn; more would not be told apart
GAP: Final = 62
TOP: Final = 64
STEPS: Final = 400  # samples over the whole time
COLOURS: Final = ("#2b6cb0", "#dd8a1f", "#2f9e6e", "#9a4fb5", "#c2433f")
INK, FAINT, ALARM = "#1f2933", "#c9d1d9", "#c2433f"


@dataclass(frozen=True, slots=True)
class Mark:
    """A moment worth a line."""

    at_s: float
    text: str
    grave: bool = False


@dataclass(frozen=True, slots=True)
class Picture:
    """What is drawn. Times are seconds from the start of the play, runs in the machine's clock from `began_s`."""

    title: str
    began_s: float
    length_s: float
    gpus: Mapping[str, int]  # of each cluster, in the order drawn
    runs: Sequence[Run]
    pending: Sequence[tuple[float, int]]  # (at_s, groups waiting), by time
    marks: Sequence[Mark]
    struck: Sequence[str]  # uids whose lanes are drawn
    names: Mapping[str, str]  # uid -> name


def draw(picture: Picture) -> str:
    """The whole document."""
    return _Drawing(picture).document()


class _Drawing:
    def __init__(self, picture: Picture) -> None:
        self.it = picture
        self.colour = {name: COLOURS[at % len(COLOURS)] for at, name in enumerate(picture.gpus)}
        self.lanes = _lanes(picture)
        self.use_y = TOP
        self.wait_y = self.use_y + USE_H + GAP
        self.lane_y = self.wait_y + WAIT_H + GAP
        self.bottom = self.lane_y + ROW_H * max(1, len(self.lanes)) + 44
        self.parts: list[str] = []

    def document(self) -> str:
        self._text(LEFT, 26, self.it.title, size=16, weight="600")
        self._usage()
        self._waiting()
        self._struck()
        self._marks()
        body = "\n".join(self.parts)
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {self.bottom}" width="{WIDTH}" '
            f'height="{self.bottom}" font-family="system-ui, sans-serif">\n'
            f'<rect width="100%" height="100%" fill="white"/>\n{body}\n</svg>\n'
        )

    # --- the three panels ---

    def _usage(self) -> None:
        """Stacked areas, one per cluster, under the line of all GPUs."""
        total = sum(self.it.gpus.values())
        self._heading(self.use_y, f"GPUs in use (of {total:,})")
        times = [step * self.it.length_s / STEPS for step in range(STEPS + 1)]
        floor = [0] * len(times)
        for name in self.it.gpus:
            top = [low + used for low, used in zip(floor, self._used(name, times), strict=True)]
            self._area(times, floor, top, total, self.colour[name])
            floor = top
        for share in (0, total // 2, total):
            self._grid(self.use_y + USE_H * (1 - share / total), f"{share:,}")
        for at, name in enumerate(self.it.gpus):
            y = self.use_y + 16 + 20 * at
            self._rect(WIDTH - RIGHT + 14, y - 9, 11, 11, self.colour[name])
            self._text(WIDTH - RIGHT + 31, y, f"{name} ({self.it.gpus[name]})", size=12)

    def _used(self, cluster: str, times: Sequence[float]) -> list[int]:
        """GPUs of running containers at each time."""
        steps: list[tuple[float, int]] = []
        for run in (run for run in self.it.runs if run.cluster == cluster):
            steps.append((run.started_s - self.it.began_s, len(run.gpus)))
            if run.ended_s is not None:
                steps.append((run.ended_s - self.it.began_s, -len(run.gpus)))
        steps.sort()
        found, used, at = list[int](), 0, 0
        for time_s in times:
            while at < len(steps) and steps[at][0] <= time_s:
                used += steps[at][1]
                at += 1
            found.append(used)
        return found

    def _waiting(self) -> None:
        most = max((count for _, count in self.it.pending), default=0) or 1
        self._heading(self.wait_y, "groups waiting")
        points: list[tuple[float, float]] = []
        for at_s, count in self.it.pending:
            points.append((self._x(at_s), self.wait_y + WAIT_H * (1 - count / most)))
        for share in (0, most):
            self._grid(self.wait_y + WAIT_H * (1 - share / most), str(share))
        if points:
            line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
            self.parts.append(f'<polyline points="{line}" fill="none" stroke="{INK}" stroke-width="1.5"/>')

    def _struck(self) -> None:
        self._heading(
            self.lane_y, f"where each group of the cut cluster ran ({len(self.lanes)} of {len(self.it.struck)})"
        )
        for row, (uid, runs) in enumerate(self.lanes):
            y = self.lane_y + ROW_H * row
            for run in runs:
                left = self._x(run.started_s - self.it.began_s)
                ended_s = self.it.length_s if run.ended_s is None else run.ended_s - self.it.began_s
                tip = f"{self.it.names.get(uid, uid)}: {run.pod} in {run.cluster}"
                self._rect(left, y, max(0.8, self._x(ended_s) - left), ROW_H - 1.5, self.colour[run.cluster], tip=tip)
        axis_y = self.lane_y + ROW_H * max(1, len(self.lanes)) + 16
        for at_s in range(0, int(self.it.length_s) + 1, 10):
            self._text(self._x(at_s), axis_y, f"{at_s} s", size=11, anchor="middle")

    def _marks(self) -> None:
        """Lines through all panels; their words take turns on two heights, so that neighbours stay legible."""
        low = self.lane_y + ROW_H * max(1, len(self.lanes))
        for at, mark in enumerate(self.it.marks):
            x, colour = self._x(mark.at_s), ALARM if mark.grave else INK
            y = self.use_y + USE_H + 16 + 14 * (at % 3)
            self.parts.append(
                f'<line x1="{x:.1f}" y1="{self.use_y}" x2="{x:.1f}" y2="{low}" stroke="{colour}" '
                f'stroke-width="1" stroke-dasharray="4 3"/>'
            )
            self._text(x + 4, y, mark.text, size=11, colour=colour)

    # --- strokes ---

    def _x(self, at_s: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * min(1.0, max(0.0, at_s / self.it.length_s))

    def _area(self, times: Sequence[float], low: Sequence[int], high: Sequence[int], total: int, colour: str) -> None:
        def point(at_s: float, gpus: int) -> str:
            return f"{self._x(at_s):.1f},{self.use_y + USE_H * (1 - gpus / total):.1f}"

        up = [point(*one) for one in zip(times, high, strict=True)]
        down = [point(*one) for one in zip(times, low, strict=True)]
        self.parts.append(f'<polygon points="{" ".join(up + down[::-1])}" fill="{colour}" fill-opacity="0.85"/>')

    def _heading(self, y: float, text: str) -> None:
        self._text(LEFT, y - 8, text, size=13, weight="600")

    def _grid(self, y: float, label: str) -> None:
        self.parts.append(
            f'<line x1="{LEFT}" y1="{y:.1f}" x2="{WIDTH - RIGHT}" y2="{y:.1f}" stroke="{FAINT}" stroke-width="0.7"/>'
        )
        self._text(LEFT - 8, y + 4, label, size=11, anchor="end")

    def _rect(self, x: float, y: float, width: float, height: float, colour: str, *, tip: str = "") -> None:
        inner = f"<title>{escape(tip)}</title>" if tip else ""
        self.parts.append(
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" fill="{colour}">{inner}</rect>'
        )

    def _text(
        self, x: float, y: float, text: str, *, size: int, weight: str = "400", anchor: str = "start", colour: str = INK
    ) -> None:
        self.parts.append(
            f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" font-weight="{weight}" text-anchor="{anchor}" '
            f'fill="{colour}" paint-order="stroke" stroke="white" stroke-width="3">{escape(text)}</text>'
        )


def _lanes(picture: Picture) -> list[tuple[str, list[Run]]]:
    """One representative pod per placement of each struck group: its first to start. By first start."""
    found: list[tuple[str, list[Run]]] = []
    for uid in picture.struck:
        by_token: dict[str, Run] = {}
        for run in picture.runs:
            if run.group == uid:
                by_token.setdefault(run.token, run)
        if by_token:
            found.append((uid, list(by_token.values())))
    found.sort(key=lambda lane: (lane[1][0].started_s, lane[0]))
    return found[:ROWS_MAX]
