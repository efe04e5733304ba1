"""What is float and what is integer in the coding path."""

from __future__ import annotations

from notebooks.diagram_parts import (
    G_A,
    G_S,
    H_A,
    H_S,
    WIDTH,
    X_HAT,
    Y_HAT,
    Z_HAT,
    X,
    Y,
    Z,
    network,
)
from notebooks.diagram_style import Diagram


def integer_entropy_parameters() -> Diagram:
    """Which computations are float and which are exact, and where one becomes the other."""
    d = Diagram(WIDTH, 77, "Exact entropy parameters: what is float and what is integer")
    _freezing(d)
    d.region(2.5, 25, 34.3, 71.5, "float: fast")
    d.region(38.4, 25, 103.5, 71.5, "integer: the same on every device")
    analysis, fork = network(d, 16, 35, G_A), d.joint(27, 35)
    hyper_analysis = network(d, 27, 47, H_A, "entropy")
    synthesis = network(d, 27, 66, G_S)
    d.link(d.tensor(6.5, 35, X), analysis)
    d.arrow(analysis.right, fork.left, label=Y, head=False)
    d.arrow(fork.bottom, hyper_analysis.top)
    d.link(synthesis, d.tensor(6.5, 66, X_HAT))

    rounding, hyper_rounding = d.quantiser(44, 35, "Q"), d.quantiser(44, 47, "Q")
    coder = d.box(95, 35, 12, 6, "range coder\nAE  |  AD", "coder")
    hyper_synthesis = network(d, 56, 47, H_S, "entropy")
    parameters = d.box(74, 47, 14, 7, "entropy\nparameters", "context")
    context = d.box(56, 56.5, 14, 5.4, "context model", "context")
    total = d.box(84, 66, 14, 5, r"$\hat{y} = s + \mu$", "data", size=13)
    d.link(fork, rounding)
    d.link(rounding, coder, r"$s = \mathrm{round}(y - \mu)$", size=13)
    d.link(hyper_analysis, hyper_rounding, Z)
    d.link(hyper_rounding, hyper_synthesis, Z_HAT)
    d.link(hyper_synthesis, parameters, r"$\psi$")
    d.arrow(parameters.on_top(-4), (70, 40.5), (44, 40.5), rounding.bottom)
    d.text(57, 39.2, r"mean $\mu$, a multiple of 1/64", size=10)
    d.arrow(parameters.right, (92, 47), coder.on_bottom(-3))
    d.note(86.2, 49.7, "scale index\n0 … 63", size=10)
    d.arrow(parameters.on_bottom(4), total.on_top(-6), label=r"$\mu$")
    d.arrow(coder.on_bottom(3), (98, 66), total.right, label="$s$")
    known = d.joint(56, 66)
    d.arrow(total.left, known.right, label=Y_HAT, head=False)
    d.link(known, synthesis)
    d.link(known, context)
    d.arrow(context.right, (70, 56.5), parameters.on_bottom(-4), label=r"$\phi$")
    d.note(
        3, 74, r"$\hat{z}$ itself is coded first, with the tables of its density.   In the scale "
        r"hyperprior model $h_s$ gives the index and $\mu = 0$.", size=10, ha="left",
    )
    return d


def _freezing(d: Diagram) -> None:
    """The upper part of the integer diagram: what is made once, before any coding."""
    d.box(
        17, 14, 28, 10,
        f"trained float weights of\n{H_S}, context, entropy\nparameters; density of {Z}",
        "data", size=10,
    )
    tables = d.box(
        63, 10.5, 44, 4.6, f"integer CDF tables: of {Z_HAT} per channel, of 64 scales", "stream",
        size=10,
    )
    weights = d.box(
        63, 17.5, 44, 4.6,
        r"16-bit weights; $\Sigma\,|w| \cdot \max|a| < 2^{53}$ is proven per layer",
        "stream", size=10,
    )
    d.arrow((31, 10.5), tables.left)
    d.arrow((31, 17.5), weights.left)
    d.text(36, 14, "freeze, once", size=10)
    d.arrow(tables.right, (95, 10.5), (95, 32))
    d.arrow(weights.bottom, (63, 25))
