"""Training and testing: where noise, rounding, loss and gradients are."""

from __future__ import annotations

from notebooks.diagram_parts import (
    G_A,
    G_S,
    H_A,
    H_S,
    WIDTH,
    X_TILDE,
    Y_HAT,
    Y_TILDE,
    Z_HAT,
    Z_TILDE,
    X,
    Y,
    Z,
    coder_pair,
    network,
)
from notebooks.diagram_style import Diagram


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
    crops = d.box(12, 17, 15, 7.5, "photographs:\nrandom crops", "data", size=10)
    analysis, synthesis = network(d, 29, 17, G_A), network(d, 66, 17, G_S)
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
    writer, reader = coder_pair(d, 66, 60, "file", 10.5)
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


def hyperprior_training() -> Diagram:
    """Which latents are noisy, which are rounded, and where bits are counted."""
    d = Diagram(WIDTH, 69, "Scale hyperprior: training in this study")
    analysis, fork, fork_rate = network(d, 17, 13, G_A), d.joint(27, 13), d.joint(27, 25)
    image = d.tensor(6, 13, X)
    d.link(image, analysis)
    d.arrow(analysis.right, fork.left, label=Y, head=False)
    synthesis_side, rate_side = d.quantiser(42.5, 13, "U|Q"), d.quantiser(42.5, 25, "U")
    synthesis = network(d, 62, 13, G_S)
    distortion = d.box(88, 13, 22, 5.4, f"$D$ = 255² · MSE({X}, {X_TILDE})", "loss", size=10)
    d.link(fork, synthesis_side)
    d.link(synthesis_side, synthesis, rf"{Y_TILDE} or {Y_HAT}", size=12)
    d.link(synthesis, distortion, X_TILDE)
    d.arrow(image.top, (6, 7.3), (88, 7.3), distortion.top)

    gaussian = d.box(
        62, 25, 20, 5.4, r"$\mathcal{N}(0, \sigma^2) * \mathcal{U}\,(-\frac{1}{2}, \frac{1}{2})$",
        "entropy", size=9.5,
    )
    bits_y = d.box(88, 25, 22, 5.4, r"$R_y = -\Sigma\,\log_2 p(\tilde{y} | \sigma)$", "loss")
    d.arrow(fork.bottom, fork_rate.top, head=False)
    d.link(fork_rate, rate_side)
    d.link(rate_side, gaussian, Y_TILDE)
    d.link(gaussian, bits_y)

    hyper_analysis, hyper_fork = network(d, 27, 48, H_A, "entropy"), d.joint(35, 48)
    hyper_side, hyper_rate_side = d.quantiser(42.5, 37, "U|Q"), d.quantiser(42.5, 48, "U")
    hyper_synthesis = network(d, 62, 37, H_S, "entropy")
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
