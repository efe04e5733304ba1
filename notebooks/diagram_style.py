"""The drawing helpers of the study's diagrams: boxes, arrows, quantisers, grids.

One unit is a tenth of an inch, x runs to the right and y runs down. Everything is drawn on
an opaque light panel with rounded corners, so that a diagram reads the same on a light and
on a dark page, and all text becomes paths, so that it needs no font of the reader.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyBboxPatch, Polygon, Rectangle
from matplotlib.text import Text

Point = tuple[float, float]

UNITS_PER_INCH = 10.0
# Element ids that do not change from run to run, and text as paths.
SVG_STYLE = {"svg.hashsalt": "learned-image-compression", "svg.fonttype": "path"}
FONTS = {"family": "DejaVu Sans", "math_fontfamily": "dejavuserif"}  # both ship with matplotlib
INK = "#1f2933"
MUTED = "#52606d"
PANEL = "#fbfbf9"
PANEL_EDGE = "#c9ced6"
# What a colour means, in every diagram: (fill, edge).
ROLES = {
    "data": ("#ffffff", "#8a94a3"),  # images and tensors
    "transform": ("#dbe8f7", "#2f6aa8"),  # analysis and synthesis networks
    "entropy": ("#dcf0de", "#2f8042"),  # what models a probability
    "coder": ("#fde6cc", "#bf6a12"),  # arithmetic (range) coder
    "stream": ("#fff5c2", "#a08408"),  # bits and stored tables
    "quantiser": ("#fadbd8", "#b03f36"),
    "loss": ("#eadff5", "#7548a0"),
    "context": ("#d3eef0", "#1d7f88"),  # autoregressive part
    "activation": ("#edf0f3", "#76818f"),
}


@dataclass(frozen=True)
class Node:
    """A drawn shape: its centre, width and height; arrows start and end on its sides."""

    x: float
    y: float
    width: float
    height: float

    @property
    def left(self) -> Point:
        return self.x - self.width / 2, self.y

    @property
    def right(self) -> Point:
        return self.x + self.width / 2, self.y

    @property
    def top(self) -> Point:
        return self.x, self.y - self.height / 2

    @property
    def bottom(self) -> Point:
        return self.x, self.y + self.height / 2

    def on_top(self, dx: float) -> Point:
        """The point of the upper side that lies dx right of the middle."""
        return self.x + dx, self.y - self.height / 2

    def on_bottom(self, dx: float) -> Point:
        """The point of the lower side that lies dx right of the middle."""
        return self.x + dx, self.y + self.height / 2


class Diagram:
    """A panel of `width` x `height` units with a title; drawing methods return `Node`s.

    `texts`, `boxed` (text and the node around it) and `lines` (the corners of every arrow)
    record the layout, so that a test can look for overlaps.
    """

    def __init__(self, width: float, height: float, title: str):
        self.width, self.height, self.title = width, height, title
        self.texts: list[Text] = []
        self.boxed: list[tuple[Text, Node]] = []
        self.lines: list[list[Point]] = []
        self.figure = Figure(figsize=(width / UNITS_PER_INCH, height / UNITS_PER_INCH))
        self.figure.patch.set_alpha(0)
        self.axes = self.figure.add_axes((0, 0, 1, 1))
        self.axes.set_axis_off()
        self.axes.set(xlim=(0, width), ylim=(height, 0))
        self._round(0.3, 0.3, width - 0.6, height - 0.6, 1.6, PANEL, PANEL_EDGE, 1.0, zorder=0)
        self.text(3, 3.2, title, size=13, ha="left", weight="bold")

    def text(
        self,
        x: float,
        y: float,
        text: str,
        size: float = 10.5,
        color: str = INK,
        ha: str = "center",
        va: str = "center",
        weight: str = "normal",
    ) -> Text:
        """Text at (x, y); mathtext between dollar signs; lines split at newlines."""
        artist = self.axes.text(
            x, y, text, size=size, color=color, ha=ha, va=va, weight=weight, linespacing=1.3,
            zorder=5, **FONTS,
        )
        self.texts.append(artist)
        return artist

    def note(self, x: float, y: float, text: str, size: float = 9.5, ha: str = "center") -> Text:
        """A muted remark; (x, y) is its centre, or the middle of its left or right side."""
        return self.text(x, y, text, size=size, color=MUTED, ha=ha)

    def box(
        self,
        x: float,
        y: float,
        width: float,
        height: float,
        text: str,
        role: str,
        size: float = 10.5,
        weight: str = "normal",
    ) -> Node:
        """A rounded rectangle with its centre at (x, y)."""
        fill, edge = ROLES[role]
        self._round(x - width / 2, y - height / 2, width, height, 0.7, fill, edge, 1.3, zorder=3)
        node = Node(x, y, width, height)
        self.boxed.append((self.text(x, y, text, size=size, weight=weight), node))
        return node

    def tensor(self, x: float, y: float, text: str, size: float = 17) -> Node:
        """A named tensor without a frame; letters of one row share their base line."""
        artist = self.text(x, y + 0.035 * size, text, size=size, va="baseline")
        return Node(x, y, max(self._text_width(artist) + 1.2, 3.2), 4.0)

    def quantiser(self, x: float, y: float, letter: str) -> Node:
        """A circle: Q rounds, U adds uniform noise, Q|U does the one or the other."""
        fill, edge = ROLES["quantiser"]
        radius = 2.1
        self.axes.add_patch(Circle((x, y), radius, fc=fill, ec=edge, lw=1.3, zorder=3))
        node = Node(x, y, 2 * radius, 2 * radius)
        size = 12 if len(letter) == 1 else 10
        self.boxed.append((self.text(x, y, letter, size=size, weight="bold"), node))
        return node

    def joint(self, x: float, y: float) -> Node:
        """A dot where a line forks."""
        self.axes.add_patch(Circle((x, y), 0.35, fc=INK, ec="none", zorder=3))
        return Node(x, y, 0, 0)

    def region(
        self, x0: float, y0: float, x1: float, y1: float, title: str, title_at: str = "left"
    ) -> None:
        """A dashed frame around (x0, y0) .. (x1, y1), titled inside an upper corner."""
        frame = self._round(x0, y0, x1 - x0, y1 - y0, 1.2, "none", "#9aa5b1", 1.0, zorder=1)
        frame.set_linestyle((0, (4, 3)))
        x = x0 + 1.4 if title_at == "left" else x1 - 1.4
        self.text(x, y0 + 1.8, title, size=10.5, color=MUTED, ha=title_at, weight="bold")

    def arrow(
        self,
        *corners: Point,
        label: str = "",
        side: int = 1,
        dashed: bool = False,
        head: bool = True,
        color: str = INK,
        size: float = 15,
    ) -> None:
        """A line through `corners` with a head at the end.

        The label stands at the middle of the first piece: above a horizontal one and to the
        right of a vertical one for side = 1, below or left for side = -1.
        """
        points = [(float(x), float(y)) for x, y in corners]
        self.lines.append(list(points))
        if head:
            points[-1] = self._head(points[-2], points[-1], color)
        xs, ys = zip(*points, strict=True)
        style = (0, (3.5, 2.5)) if dashed else "solid"
        self.axes.plot(
            xs, ys, color=color, lw=1.3, ls=style, solid_joinstyle="round",
            solid_capstyle="butt", zorder=2,
        )
        if label:
            (x0, y0), (x1, y1) = corners[0], corners[1]
            x, y = (x0 + x1) / 2, (y0 + y1) / 2
            if abs(x1 - x0) >= abs(y1 - y0):
                self.text(x, y - side * 0.5, label, size, va="bottom" if side > 0 else "top")
            else:
                self.text(x + side * 0.6, y, label, size, ha="left" if side > 0 else "right")

    def link(self, first: Node, second: Node, label: str = "", **kwargs) -> None:
        """A straight arrow between the facing sides of two nodes of one row or column."""
        if abs(first.y - second.y) < 1e-9:
            ends = (first.right, second.left) if second.x > first.x else (first.left, second.right)
        elif abs(first.x - second.x) < 1e-9:
            ends = (first.bottom, second.top) if second.y > first.y else (first.top, second.bottom)
        else:
            raise ValueError(f"{first} and {second} share neither a row nor a column; use arrow()")
        self.arrow(*ends, label=label, **kwargs)

    def chain(self, *nodes: Node) -> None:
        """Straight arrows from each node to the next."""
        for first, second in zip(nodes[:-1], nodes[1:], strict=True):
            self.link(first, second)

    def grid(
        self,
        x: float,
        y: float,
        cell: float,
        fills: Sequence[Sequence[str]],
        texts: Sequence[Sequence[str]] | None = None,
        size: float = 9.5,
    ) -> Node:
        """Rows of square cells with the upper left corner at (x, y), coloured and lettered."""
        rows, columns = len(fills), len(fills[0])
        for i in range(rows):
            for j in range(columns):
                corner = (x + j * cell, y + i * cell)
                self.axes.add_patch(
                    Rectangle(corner, cell, cell, fc=fills[i][j], ec="#76818f", lw=0.8, zorder=3)
                )
                if texts is not None and texts[i][j]:
                    middle = (corner[0] + cell / 2, corner[1] + cell / 2)
                    self.text(*middle, texts[i][j], size=size)
        width, height = columns * cell, rows * cell
        return Node(x + width / 2, y + height / 2, width, height)

    def outline(
        self, x: float, y: float, width: float, height: float, color: str = INK, line: float = 2.4
    ) -> None:
        """An empty rectangle over grid cells."""
        self.axes.add_patch(
            Rectangle((x, y), width, height, fc="none", ec=color, lw=line, zorder=4)
        )

    def legend(self, y: float, entries: Sequence[tuple[str, str]], x: float = 3) -> None:
        """A row of (role, meaning) swatches that starts at x."""
        for role, meaning in entries:
            fill, edge = ROLES[role]
            self._round(x, y - 0.8, 2.4, 1.6, 0.4, fill, edge, 1.1, zorder=3)
            artist = self.note(x + 3.1, y, meaning, ha="left")
            x += 3.1 + self._text_width(artist) + 2.6

    def render(self, kind: str = "svg") -> bytes:
        """The picture as 'svg' (the same bytes every time) or 'png'."""
        buffer = io.BytesIO()
        metadata = {"Title": self.title}
        if kind == "svg":
            metadata |= {"Date": None, "Creator": None}
        with matplotlib.rc_context(SVG_STYLE):
            self.figure.savefig(buffer, format=kind, metadata=metadata, dpi=120)
        return buffer.getvalue()

    def _text_width(self, artist: Text) -> float:
        return artist.get_window_extent().width / self.figure.dpi * UNITS_PER_INCH

    def _round(
        self, x: float, y: float, width: float, height: float, radius: float, fill: str,
        edge: str, line: float, zorder: float,
    ) -> FancyBboxPatch:
        patch = FancyBboxPatch(
            (x, y), width, height, boxstyle=f"round,pad=0,rounding_size={radius}",
            fc=fill, ec=edge, lw=line, zorder=zorder,
        )
        return self.axes.add_patch(patch)

    def _head(self, before: Point, tip: Point, color: str) -> Point:
        """Draw an arrow head at `tip`; returns where the line under it has to stop."""
        dx, dy = tip[0] - before[0], tip[1] - before[1]
        length = (dx * dx + dy * dy) ** 0.5
        dx, dy = dx / length, dy / length
        long, half = 1.15, 0.5
        foot = (tip[0] - long * dx, tip[1] - long * dy)
        across = (half * dy, half * dx)
        corners = [
            tip,
            (foot[0] - across[0], foot[1] + across[1]),
            (foot[0] + across[0], foot[1] - across[1]),
        ]
        self.axes.add_patch(Polygon(corners, closed=True, fc=color, ec="none", zorder=2))
        return foot
