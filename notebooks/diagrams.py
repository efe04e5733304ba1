"""The data-flow diagrams of the report: `python -m notebooks.diagrams [--out Image4md]`.

Each diagram is one function that returns a `Diagram`; the coordinates are in tenths of an
inch, x to the right and y down. The same program writes the same bytes every time.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from models.files import write_bytes
from notebooks.diagram_coding import checkerboard, coding_orders, file_layout
from notebooks.diagram_networks import (
    factorized_network,
    hyperprior_network,
    joint_autoregressive_network,
)
from notebooks.diagram_style import Diagram, Node

WIDTH = 106.0
X, X_HAT, X_TILDE = "$x$", r"$\hat{x}$", r"$\tilde{x}$"
Y, Y_HAT, Y_TILDE = "$y$", r"$\hat{y}$", r"$\tilde{y}$"
Z, Z_HAT, Z_TILDE = "$z$", r"$\hat{z}$", r"$\tilde{z}$"
G_A, G_S, H_A, H_S = "$g_a$", "$g_s$", "$h_a$", "$h_s$"
FLOW_LEGEND = (
    ("transform", "transform"),
    ("quantiser", "Q: rounding"),
    ("entropy", "probability model"),
    ("coder", "AE, AD: range encoder, decoder"),
    ("stream", "bits"),
)


def _network(d: Diagram, x: float, y: float, name: str, role: str = "transform") -> Node:
    return d.box(x, y, 8, 7, name, role, size=18)


def _coder_pair(d: Diagram, x: float, y: float, stream: str, gap: float) -> tuple[Node, Node]:
    """AE, the stream's bits and AD around x; returns AE and AD."""
    writer = d.box(x - gap, y, 6.4, 5, "AE", "coder", weight="bold")
    bits = d.box(x, y, 8.4, 5, stream, "stream")
    reader = d.box(x + gap, y, 6.4, 5, "AD", "coder", weight="bold")
    d.chain(writer, bits, reader)
    return writer, reader


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
    analysis, synthesis = _network(d, 18, 15, G_A), _network(d, 88, 15, G_S)
    rounding = d.quantiser(29.5, 15, "Q")
    writer, reader = _coder_pair(d, 53, 15, "file", 13)
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


def factorized_training_testing() -> Diagram:
    """What train.py and test.py do with the factorized prior model."""
    d = Diagram(WIDTH, 77, "Factorized prior: training and testing in this study")
    _factorized_training(d)
    solve = d.box(
        31, 43.5, 42, 6, "freeze: quantiles by bisection,\ndensities become integer CDF tables",
        "entropy",
    )
    checkpoint = d.box(
        79, 43.5, 36, 6, "checkpoint: weights, tables,\noperating point, provenance", "stream"
    )
    d.arrow((31, 38), solve.top)
    d.link(solve, checkpoint)
    d.arrow(checkpoint.bottom, (79, 50))
    _factorized_testing(d)
    return d


def _factorized_training(d: Diagram) -> None:
    d.region(2.5, 6, 103.5, 38, "training (train.py)")
    crops = d.box(12, 17, 15, 7.5, "photographs:\nrandom crops,\n256×256", "data", size=10)
    analysis, synthesis = _network(d, 29, 17, G_A), _network(d, 66, 17, G_S)
    fork = d.joint(38, 17)
    synthesis_side, rate_side = d.quantiser(47, 17, "U|Q"), d.quantiser(47, 27.5, "U")
    distortion = d.box(91, 17, 20, 6, f"$D$ = 255² · MSE({X}, {X_TILDE})", "loss", size=10)
    d.link(crops, analysis, X)
    d.arrow(analysis.right, fork.left, label=Y, head=False)
    d.link(fork, synthesis_side)
    d.link(synthesis_side, synthesis, rf"{Y_TILDE} or {Y_HAT}", size=12)
    d.link(synthesis, distortion, X_TILDE)
    d.arrow(crops.top, (12, 10.6), (91, 10.6), distortion.top)
    density = d.box(61, 27.5, 14, 6, "density $p$,\none per channel", "entropy", size=10)
    rate = d.box(78, 27.5, 13, 6, r"$R = -\Sigma\,\log_2 p$" + "\nper pixel", "loss", size=10)
    loss = d.box(94, 27.5, 13, 6, r"$L = \lambda D + R$", "loss", size=11)
    d.arrow(fork.bottom, (38, 27.5), rate_side.left)
    d.link(rate_side, density, Y_TILDE)
    d.chain(density, rate, loss)
    d.arrow(distortion.on_bottom(3), loss.top)
    d.arrow(loss.bottom, (94, 35.3), (29, 35.3), analysis.bottom, dashed=True)
    d.note(61, 33.6, "gradients reach both transforms and the densities")


def _factorized_testing(d: Diagram) -> None:
    d.region(2.5, 50, 103.5, 74.5, "testing (test.py)")
    photograph = d.box(10.5, 60, 13, 6, "photograph,\nany size", "data", size=10)
    pad = d.box(26, 60, 12, 6, "pad to a\nmultiple of 16", "activation", size=10)
    analysis = d.box(38.5, 60, 6.5, 6, G_A, "transform", size=17)
    rounding = d.quantiser(47.3, 60, "Q")
    writer, reader = _coder_pair(d, 66, 60, "file", 10.5)
    synthesis = d.box(86.3, 60, 6.5, 6, G_S, "transform", size=17)
    crop = d.box(97.3, 60, 9.5, 6, "crop,\n8 bit", "activation", size=10)
    d.chain(photograph, pad, analysis, rounding, writer)
    d.chain(reader, synthesis, crop)
    d.note(102, 54.2, "the decoder sees only the file and the checkpoint", ha="right")
    rate = d.box(59, 69, 31, 4.4, "bpp = 8 · bytes of the file / pixels", "loss", size=10)
    quality = d.box(90, 69, 24, 4.4, "PSNR, MS-SSIM of 8-bit images", "loss", size=10)
    d.arrow((66, 62.5), rate.on_top(7))
    d.arrow(crop.bottom, quality.on_top(7.3))
    d.arrow(photograph.bottom, (10.5, 72.8), (90, 72.8), quality.bottom)


def hyperprior_dataflow() -> Diagram:
    """Balle et al. 2018 as a codec."""
    d = Diagram(WIDTH, 58, "Scale hyperprior: from the photograph to the file and back")
    analysis, synthesis = _network(d, 16, 13, G_A), _network(d, 89, 13, G_S)
    fork, rounding = d.joint(25, 13), d.quantiser(35, 13, "Q")
    writer, reader = _coder_pair(d, 56, 13, "bits of $y$", 11)
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
    hyper_analysis = _network(d, 25, 37, H_A, "entropy")
    hyper_synthesis = _network(d, 83, 37, H_S, "entropy")
    hyper_rounding = d.quantiser(35, 37, "Q")
    hyper_writer, hyper_reader = _coder_pair(d, 56, 37, "bits of $z$", 11)
    d.arrow(fork.bottom, hyper_analysis.top, label="$|y|$")
    d.link(hyper_analysis, hyper_rounding, Z)
    d.link(hyper_rounding, hyper_writer, Z_HAT)
    d.link(hyper_reader, hyper_synthesis, Z_HAT)
    d.arrow(hyper_synthesis.top, (83, 25), gaussian.right, label=r"$\sigma$")
    _feed(d, _z_prior(d, 56, 47.5), hyper_writer, hyper_reader)
    d.note(88.5, 37, "runs in both the\nencoder and the\ndecoder, on " + Z_HAT, ha="left")
    d.legend(55, FLOW_LEGEND)
    return d


def hyperprior_training() -> Diagram:
    """Which latents are noisy, which are rounded, and where bits are counted."""
    d = Diagram(WIDTH, 69, "Scale hyperprior: training in this study")
    analysis, fork, fork_rate = _network(d, 17, 13, G_A), d.joint(27, 13), d.joint(27, 25)
    d.link(d.tensor(6, 13, X), analysis)
    d.arrow(analysis.right, fork.left, label=Y, head=False)
    synthesis_side, rate_side = d.quantiser(42.5, 13, "U|Q"), d.quantiser(42.5, 25, "U")
    synthesis = _network(d, 62, 13, G_S)
    distortion = d.box(88, 13, 22, 5.4, f"$D$ = 255² · MSE({X}, {X_TILDE})", "loss", size=10)
    d.link(fork, synthesis_side)
    d.link(synthesis_side, synthesis, rf"{Y_TILDE} or {Y_HAT}", size=12)
    d.link(synthesis, distortion, X_TILDE)

    gaussian = d.box(
        62, 25, 20, 5.4, r"$\mathcal{N}(0, \sigma^2) * \mathcal{U}\,(-\frac{1}{2}, \frac{1}{2})$",
        "entropy", size=9.5,
    )
    bits_y = d.box(88, 25, 22, 5.4, r"$R_y = -\Sigma\,\log_2 p(\tilde{y} | \sigma)$", "loss")
    d.arrow(fork.bottom, fork_rate.top, head=False)
    d.link(fork_rate, rate_side)
    d.link(rate_side, gaussian, Y_TILDE)
    d.link(gaussian, bits_y)

    hyper_analysis, hyper_fork = _network(d, 27, 48, H_A, "entropy"), d.joint(35, 48)
    hyper_side, hyper_rate_side = d.quantiser(42.5, 37, "U|Q"), d.quantiser(42.5, 48, "U")
    hyper_synthesis = _network(d, 62, 37, H_S, "entropy")
    density = d.box(62, 48, 20, 5.4, "density $p$,\none per channel", "entropy", size=10)
    bits_z = d.box(88, 48, 22, 5.4, r"$R_z = -\Sigma\,\log_2 p(\tilde{z})$", "loss")
    d.arrow(fork_rate.bottom, hyper_analysis.top, label="$|y|$")
    d.arrow(hyper_analysis.right, hyper_fork.left, label=Z, head=False)
    d.arrow(hyper_fork.top, (35, 37), hyper_side.left)
    d.link(hyper_side, hyper_synthesis, rf"{Z_TILDE} or {Z_HAT}", size=12)
    d.link(hyper_fork, hyper_rate_side)
    d.link(hyper_rate_side, density, Z_TILDE)
    d.link(hyper_synthesis, gaussian, r"$\sigma$")
    d.link(density, bits_z)

    loss = d.box(81, 58, 36, 5.4, r"$L = \lambda D + (R_y + R_z)$ / pixels", "loss", size=12)
    d.arrow(distortion.right, (102, 13), (102, 58), loss.right)
    for bits in (bits_y, bits_z):
        d.arrow(bits.right, (102, bits.y), head=False)
        d.joint(102, bits.y)
    d.arrow(loss.left, (17, 58), analysis.bottom, dashed=True)
    d.note(39, 56.3, "gradients reach every network and the density")
    d.note(
        3, 64, "U adds uniform noise within ±½, the same to a latent at both places.   At the end "
        "of training Q takes the place of\nU|Q: it rounds and passes the gradient straight "
        "through.   Bits are always counted on noisy latents.", size=10, ha="left",
    )
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
    analysis, synthesis = _network(d, 14, 13, G_A), _network(d, 92, 13, G_S)
    fork, rounding = d.joint(21.5, 13), d.quantiser(33, 13, "Q")
    writer, reader = _coder_pair(d, 56, 13, "bits of $y$", 11)
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

    hyper_analysis = _network(d, 21.5, 42, H_A, "entropy")
    hyper_synthesis = _network(d, 69.5, 42, H_S, "entropy")
    hyper_rounding = d.quantiser(31.8, 42, "Q")
    hyper_writer, hyper_reader = _coder_pair(d, 49.5, 42, "bits of $z$", 9.8)
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


def integer_entropy_parameters() -> Diagram:
    """Which computations are float and which are exact, and where one becomes the other."""
    d = Diagram(WIDTH, 77, "Exact entropy parameters: what is float and what is integer")
    _freezing(d)
    d.region(2.5, 25, 34.3, 71.5, "float: fast")
    d.region(38.4, 25, 103.5, 71.5, "integer: the same on every device")
    analysis, fork = _network(d, 16, 35, G_A), d.joint(27, 35)
    hyper_analysis = _network(d, 27, 47, H_A, "entropy")
    synthesis = _network(d, 27, 66, G_S)
    d.link(d.tensor(6.5, 35, X), analysis)
    d.arrow(analysis.right, fork.left, label=Y, head=False)
    d.arrow(fork.bottom, hyper_analysis.top)
    d.link(synthesis, d.tensor(6.5, 66, X_HAT))

    rounding, hyper_rounding = d.quantiser(44, 35, "Q"), d.quantiser(44, 47, "Q")
    coder = d.box(95, 35, 12, 6, "range coder\nAE  |  AD", "coder")
    hyper_synthesis = _network(d, 56, 47, H_S, "entropy")
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


DIAGRAMS: dict[str, Callable[[], Diagram]] = {
    function.__name__: function
    for function in (
        factorized_dataflow,
        factorized_network,
        factorized_training_testing,
        hyperprior_dataflow,
        hyperprior_network,
        hyperprior_training,
        joint_autoregressive_dataflow,
        joint_autoregressive_network,
        checkerboard,
        integer_entropy_parameters,
        coding_orders,
        file_layout,
    )
}


def write_diagrams(folder: str | Path) -> list[Path]:
    """Draw every diagram into `folder` as <name>.svg; returns the paths."""
    paths = []
    for name, draw in DIAGRAMS.items():
        path = Path(folder) / f"{name}.svg"
        write_bytes(path, draw().render("svg"))
        paths.append(path)
    return paths


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Draw the report's diagrams as SVG files.")
    default = Path(__file__).resolve().parent.parent / "Image4md"
    parser.add_argument("--out", type=Path, default=default, help="folder to write to")
    for path in write_diagrams(parser.parse_args(arguments).out):
        print(path)


if __name__ == "__main__":
    main()
