"""The codecs as data flows, from the photograph to the file and back."""

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
    coder_pair,
    network,
)
from notebooks.diagram_style import Diagram, Node

FLOW_LEGEND = (
    ("transform", "transform"),
    ("quantiser", "Q: rounding"),
    ("entropy", "probability model"),
    ("coder", "AE, AD: range encoder, decoder"),
    ("stream", "bits"),
)


def _feed(d: Diagram, source: Node, writer: Node, reader: Node, label: str = "") -> None:
    """Vertical arrows from the source to both ends of a coder, whichever is above."""
    for end in (writer, reader):
        dx = end.x - source.x
        if source.y > end.y:
            d.arrow(source.on_top(dx), end.bottom, label=label)
        else:
            d.arrow(source.on_bottom(dx), end.top, label=label)


def _z_prior(d: Diagram, x: float, y: float) -> Node:
    return d.box(x, y, 34, 5, "factorized prior of the hyper-latents", "entropy")


def factorized_dataflow() -> Diagram:
    """Balle et al. 2017 as a codec."""
    d = Diagram(WIDTH, 39, "Factorized prior: from the photograph to the file and back")
    d.region(10, 6.5, 45.5, 22, "encoder")
    d.region(60.5, 6.5, 96, 22, "decoder", "right")
    analysis, synthesis = network(d, 18, 15, G_A), network(d, 88, 15, G_S)
    rounding = d.quantiser(29.5, 15, "Q")
    writer, reader = coder_pair(d, 53, 15, "file", 13)
    d.link(d.tensor(5.5, 15, X), analysis)
    d.link(analysis, rounding, Y)
    d.link(rounding, writer, Y_HAT)
    d.link(reader, synthesis, Y_HAT)
    d.link(synthesis, d.tensor(101, 15, X_HAT))
    tables = d.box(
        53, 29, 44, 6, "factorized prior: one learned density per channel\n"
        "made into integer CDF tables, once", "entropy",
    )
    _feed(d, tables, writer, reader)
    d.legend(36, FLOW_LEGEND)
    return d


def hyperprior_dataflow() -> Diagram:
    """Balle et al. 2018 as a codec."""
    d = Diagram(WIDTH, 58, "Scale hyperprior: from the photograph to the file and back")
    analysis, synthesis = network(d, 16, 13, G_A), network(d, 89, 13, G_S)
    fork, rounding = d.joint(25, 13), d.quantiser(35, 13, "Q")
    writer, reader = coder_pair(d, 56, 13, "bits of $y$", 11)
    d.link(d.tensor(5.5, 13, X), analysis)
    d.arrow(analysis.right, fork.left, label=Y, head=False)
    d.link(fork, rounding)
    d.link(rounding, writer, Y_HAT)
    d.link(reader, synthesis, Y_HAT)
    d.link(synthesis, d.tensor(101, 13, X_HAT))

    gaussian = d.box(
        56, 25, 37, 6, r"$\mathcal{N}(0, \sigma^2) * \mathcal{U}\,(-\frac{1}{2}, \frac{1}{2})$"
        ":\nCDF table of one of 64 scales", "entropy",
    )
    _feed(d, gaussian, writer, reader)
    hyper_analysis = network(d, 25, 37, H_A, "entropy")
    hyper_synthesis = network(d, 83, 37, H_S, "entropy")
    hyper_rounding = d.quantiser(35, 37, "Q")
    hyper_writer, hyper_reader = coder_pair(d, 56, 37, "bits of $z$", 11)
    d.arrow(fork.bottom, hyper_analysis.top, label="$|y|$")
    d.link(hyper_analysis, hyper_rounding, Z)
    d.link(hyper_rounding, hyper_writer, Z_HAT)
    d.link(hyper_reader, hyper_synthesis, Z_HAT)
    d.arrow(hyper_synthesis.top, (83, 25), gaussian.right, label=r"$\sigma$")
    _feed(d, _z_prior(d, 56, 47.5), hyper_writer, hyper_reader)
    d.note(88.5, 37, "runs in both the\nencoder and the\ndecoder, on " + Z_HAT, ha="left")
    d.legend(55, FLOW_LEGEND)
    return d


CODING_STEP = """\
for step in order:
  μ, i = params_at(ŷ, step)
  s = round(y[step] − μ)  # writer
  s = coder.code(s, i)
  ŷ[step] = s + μ"""


def joint_autoregressive_dataflow() -> Diagram:
    """Minnen et al. 2018 as a codec, with the loop that codes."""
    d = Diagram(WIDTH, 66, "Joint autoregressive and hierarchical priors: data flow in coding")
    analysis, synthesis = network(d, 14, 13, G_A), network(d, 92, 13, G_S)
    fork, rounding = d.joint(21.5, 13), d.quantiser(33, 13, "Q")
    writer, reader = coder_pair(d, 56, 13, "bits of $y$", 11)
    decoded = d.joint(79, 13)
    d.link(d.tensor(5.5, 13, X), analysis)
    d.arrow(analysis.right, fork.left, label=Y, head=False)
    d.link(fork, rounding)
    d.link(rounding, writer, Y_HAT)
    d.arrow(reader.right, decoded.left, label=Y_HAT, head=False)
    d.link(decoded, synthesis)
    d.link(synthesis, d.tensor(102, 13, X_HAT))

    parameters = d.box(
        56, 26, 32, 6.4, "entropy parameters $g_{ep}$\n1×1 convolutions", "context"
    )
    context = d.box(90, 26, 24, 6.4, "context model $g_{cm}$\nmasked 5×5 convolution", "context")
    _feed(d, parameters, writer, reader, r"$\mu, \sigma$")
    d.arrow(decoded.bottom, context.on_top(-11))
    d.text(80, 19.2, r"$\hat{y}$ so far", size=11, ha="left")
    d.link(context, parameters, r"$\phi$")

    hyper_analysis = network(d, 21.5, 42, H_A, "entropy")
    hyper_synthesis = network(d, 69.5, 42, H_S, "entropy")
    hyper_rounding = d.quantiser(31.8, 42, "Q")
    hyper_writer, hyper_reader = coder_pair(d, 49.5, 42, "bits of $z$", 9.8)
    d.arrow(fork.bottom, hyper_analysis.top, label=Y)
    d.link(hyper_analysis, hyper_rounding, Z)
    d.link(hyper_rounding, hyper_writer)
    d.link(hyper_reader, hyper_synthesis, Z_HAT)
    d.arrow(hyper_synthesis.top, parameters.on_bottom(13.5), label=r"$\psi$")
    _feed(d, _z_prior(d, 49.5, 53), hyper_writer, hyper_reader)
    d.region(75.8, 36, 104, 56, "one loop, both directions")
    d.text(77.4, 46.0, CODING_STEP, size=9, ha="left").set_family("DejaVu Sans Mono")
    d.note(77.4, 53.2, "the reader gets s from the bits", ha="left")
    d.legend(62.5, (*FLOW_LEGEND, ("context", "autoregressive part")))
    return d
