"""What several diagrams draw: the letters of the papers, a network, a coder with its bits."""

from __future__ import annotations

from notebooks.diagram_style import Diagram, Node

WIDTH = 106.0
X, X_HAT, X_TILDE = "$x$", r"$\hat{x}$", r"$\tilde{x}$"
Y, Y_HAT, Y_TILDE = "$y$", r"$\hat{y}$", r"$\tilde{y}$"
Z, Z_HAT, Z_TILDE = "$z$", r"$\hat{z}$", r"$\tilde{z}$"
G_A, G_S, H_A, H_S = "$g_a$", "$g_s$", "$h_a$", "$h_s$"


def network(d: Diagram, x: float, y: float, name: str, role: str = "transform") -> Node:
    return d.box(x, y, 8, 7, name, role, size=18)


def coder_pair(d: Diagram, x: float, y: float, stream: str, gap: float) -> tuple[Node, Node]:
    """AE, the stream's bits and AD around x; returns AE and AD."""
    writer = d.box(x - gap, y, 6.4, 5, "AE", "coder", weight="bold")
    bits = d.box(x, y, 8.4, 5, stream, "stream")
    reader = d.box(x + gap, y, 6.4, 5, "AD", "coder", weight="bold")
    d.chain(writer, bits, reader)
    return writer, reader
