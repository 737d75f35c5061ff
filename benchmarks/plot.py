"""The picture of a run: for each figure a bar of ours and of python-socketio's, where the reference server is 1."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape

from .measure import ratio_of
from .scenarios import MAIN, TABLES

if TYPE_CHECKING:
    from .measure import Runs
    from .scenarios import Figure

COLOURS = {"trio": "#2f6fb0", "python": "#c9a227"}
NAMES = {"trio": "trio_socketio", "python": "python-socketio (uvicorn, uvloop)"}
LEFT, WIDTH, BAR, GAP, TOP = 250, 520, 9, 14, 78
LEAST, MOST = 0.02, 100.0  # the ends of the axis, which is logarithmic


def draw(runs: Runs) -> str:
    """An SVG. More is better in it, also where less is better: there the ratio is turned over."""
    title, figures = next(iter(TABLES.items()))
    rows = [(figure.label, ratios) for figure in figures if (ratios := _ratios(figure, runs))]
    row_height = len(COLOURS) * BAR + GAP
    height = TOP + len(rows) * row_height + 10
    shapes = [_text(10, 22, f"{title}: socket.io in Node.js is 1; further to the right is better", size=14)]
    for i, server in enumerate(COLOURS):
        shapes += [_bar(10 + i * 150, 34, 12, COLOURS[server]), _text(28 + i * 150, 43, NAMES[server])]
    for tick in (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50):
        strong = "#555" if tick == 1 else "#ddd"
        shapes.append(f'<path d="M{_x(tick):.1f} {TOP - 4}V{height - 8}" stroke="{strong}"/>')
        shapes.append(_text(_x(tick), TOP - 8, f"{tick:g}", anchor="middle"))
    for i, (label, ratios) in enumerate(rows):
        y = TOP + i * row_height + GAP / 2
        shapes.append(_text(LEFT - 8, y + BAR + 4, label, anchor="end"))
        for j, (server, ratio) in enumerate(ratios.items()):
            start, end = sorted((_x(1), _x(ratio)))
            title = f"{NAMES[server]}: {ratio:.2g}"
            shapes.append(_bar(start, y + j * BAR, max(end - start, 1), COLOURS[server], title))
    body = "\n".join(shapes)
    size = f'width="{LEFT + WIDTH + 20}" height="{height}" viewBox="0 0 {LEFT + WIDTH + 20} {height}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" fill="#222">'
    return f'{head}\n<rect width="100%" height="100%" fill="#fff"/>\n{body}\n</svg>\n'


def _ratios(figure: Figure, runs: Runs) -> dict[str, float]:
    ratios = {server: ratio_of(figure, runs, server, MAIN[1]) for server in COLOURS}
    return {server: 1 / ratio if figure.less else ratio for server, ratio in ratios.items() if ratio}


def _x(ratio: float) -> float:
    part = math.log(min(max(ratio, LEAST), MOST) / LEAST) / math.log(MOST / LEAST)
    return LEFT + WIDTH * part


def _bar(x: float, y: float, width: float, colour: str, title: str = "") -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{BAR}"'
    return f'<rect {place} fill="{colour}"><title>{escape(title)}</title></rect>'


def _text(x: float, y: float, text: str, *, size: int = 11, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}">{escape(text)}</text>'
