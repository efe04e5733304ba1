"""The layers of the networks as tables, and the diagrams drawn from these tables."""

from __future__ import annotations

from dataclasses import dataclass

from notebooks.diagram_style import Diagram


@dataclass(frozen=True)
class Layer:
    """One layer; channel counts are expressions in N and M such as '3M/2'."""

    kind: str  # conv, deconv, masked conv, or a point-wise function
    inputs: str
    outputs: str
    kernel: int = 0
    stride: int = 1

    @property
    def has_kernel(self) -> bool:
        return self.kernel > 0


def _tower(kind: str, kernel: int, channels: str, between: str) -> tuple[Layer, ...]:
    """Layers of stride 2 along 'a b c': a -> b, b -> c, with `between` in the gaps."""
    names = channels.split()
    layers: list[Layer] = []
    for inputs, outputs in zip(names[:-1], names[1:], strict=True):
        if layers:
            layers.append(Layer(between, inputs, inputs))
        layers.append(Layer(kind, inputs, outputs, kernel, 2))
    return tuple(layers)


G_A = _tower("conv", 5, "3 N N N M", "GDN")
G_S = _tower("deconv", 5, "M N N N 3", "IGDN")


def _hyper_analysis(activation: str) -> tuple[Layer, ...]:
    first = (Layer("conv", "M", "N", 3, 1), Layer(activation, "N", "N"))
    return first + _tower("conv", 5, "N N N", activation)


# Scale hyperprior (Balle et al. 2018); h_a works on |y|.
HYPERPRIOR_H_A = _hyper_analysis("ReLU")
HYPERPRIOR_H_S = _tower("deconv", 5, "N N N", "ReLU") + (
    Layer("ReLU", "N", "N"),
    Layer("conv", "N", "M", 3, 1),
    Layer("ReLU", "M", "M"),
)
# Joint autoregressive and hierarchical priors (Minnen et al. 2018).
JOINT_H_A = _hyper_analysis("LeakyReLU")
JOINT_H_S = _tower("deconv", 5, "N M 3M/2", "LeakyReLU") + (
    Layer("LeakyReLU", "3M/2", "3M/2"),
    Layer("conv", "3M/2", "2M", 3, 1),
)
JOINT_CONTEXT = (Layer("masked conv", "M", "2M", 5, 1),)
JOINT_ENTROPY_PARAMETERS = (
    Layer("conv", "4M", "10M/3", 1, 1),
    Layer("LeakyReLU", "10M/3", "10M/3"),
    Layer("conv", "10M/3", "8M/3", 1, 1),
    Layer("LeakyReLU", "8M/3", "8M/3"),
    Layer("conv", "8M/3", "2M", 1, 1),
)

NETWORKS = {
    "Factorized": (G_A, G_S),
    "Hyperprior": (G_A, G_S, HYPERPRIOR_H_A, HYPERPRIOR_H_S),
    "JointAutoregressiveHierarchicalPriors": (
        G_A, G_S, JOINT_H_A, JOINT_H_S, JOINT_CONTEXT, JOINT_ENTROPY_PARAMETERS,
    ),
}

_SHORT = {"LeakyReLU": "Leaky\nReLU"}


def _shape(channels: str, scale: int) -> str:
    """'N x H/4 x W/4' for the scale 4."""
    size = "" if scale == 1 else f"/{scale}"
    return f"{channels} × H{size} × W{size}"


def draw_tower(
    d: Diagram, y: float, name: str, layers: tuple[Layer, ...], role: str, ends: tuple[str, str],
    scale: int,
) -> None:
    """One row: the network's name, its input, its layers, its output.

    Under each layer with a kernel stands the shape of its output, `scale` being the
    downsampling of the input. The layers fill the same width in every row of seven.
    """
    d.tensor(4.8, y, name, size=19)
    previous = d.tensor(10.8, y, ends[0])
    x = 15.4
    for layer in layers:
        width = (15.0 if layer.kind.startswith("masked") else 13.0) if layer.has_kernel else 6.6
        if layer.has_kernel:
            lines = f"{layer.kind} {layer.kernel}×{layer.kernel}"
            arrow = {"conv": " ↓", "deconv": " ↑"}.get(layer.kind, "") if layer.stride > 1 else ""
            lines += f"\nstride {layer.stride}{arrow}\n{layer.inputs} → {layer.outputs}"
            node = d.box(x + width / 2, y, width, 7.2, lines, role, size=10)
            if layer.stride > 1:
                scale = scale * 2 if layer.kind == "conv" else scale // 2
            d.note(x + width / 2, y + 5, _shape(layer.outputs, scale), size=9)
        else:
            text = _SHORT.get(layer.kind, layer.kind)
            node = d.box(x + width / 2, y, width, 4.4, text, "activation", size=9.5)
        d.link(previous, node)
        previous, x = node, x + width + 2.0
    d.link(previous, d.tensor(x + 2.1, y, ends[1]))


def factorized_network() -> Diagram:
    """The layers of g_a and g_s of the factorized prior model."""
    d = Diagram(106, 36, "Factorized prior: the layers of the two transforms")
    draw_tower(d, 10.5, "$g_a$", G_A, "transform", ("$x$", "$y$"), 1)
    draw_tower(d, 23.5, "$g_s$", G_S, "transform", (r"$\hat{y}$", r"$\hat{x}$"), 16)
    d.note(
        3, 32,
        "N, M = 128, 192 (low rates) or 192, 320 (high rates).   "
        "GDN: $x_i\\,/\\,(\\beta_i + \\Sigma_j\\,\\gamma_{ij} x_j^2)^{1/2}$;   "
        "IGDN multiplies by the root instead.",
        size=10, ha="left",
    )
    return d


def hyperprior_network() -> Diagram:
    """The four towers of the scale hyperprior model."""
    d = Diagram(106, 60, "Scale hyperprior: the layers of the four transforms")
    draw_tower(d, 10.5, "$g_a$", G_A, "transform", ("$x$", "$y$"), 1)
    draw_tower(d, 22.5, "$h_a$", HYPERPRIOR_H_A, "entropy", ("$|y|$", "$z$"), 16)
    draw_tower(d, 34.5, "$h_s$", HYPERPRIOR_H_S, "entropy", (r"$\hat{z}$", r"$\sigma$"), 64)
    draw_tower(d, 46.5, "$g_s$", G_S, "transform", (r"$\hat{y}$", r"$\hat{x}$"), 16)
    d.note(
        3, 56,
        "N, M = 128, 192 (low rates) or 192, 320 (high rates).   "
        r"$g_a$ and $g_s$ are those of the factorized prior; the mean of every $y$ is zero.",
        size=10, ha="left",
    )
    return d


def joint_autoregressive_network() -> Diagram:
    """The towers that the joint model has beside g_a and g_s."""
    d = Diagram(106, 60, "Joint autoregressive and hierarchical priors: the layers of the prior")
    draw_tower(d, 10.5, "$h_a$", JOINT_H_A, "entropy", ("$y$", "$z$"), 16)
    draw_tower(d, 22.5, "$h_s$", JOINT_H_S, "entropy", (r"$\hat{z}$", r"$\psi$"), 64)
    draw_tower(d, 34.5, "$g_{cm}$", JOINT_CONTEXT, "context", (r"$\hat{y}$", r"$\phi$"), 16)
    draw_tower(
        d, 46.5, "$g_{ep}$", JOINT_ENTROPY_PARAMETERS, "context",
        (r"$\psi, \phi$", r"$\mu, \sigma$"), 16,
    )
    d.note(
        40, 34.5,
        "the context model sees only what was decoded before: its mask is causal\n"
        "(raster, wavefront) or a checkerboard, and nothing else in the layers differs",
        size=10, ha="left",
    )
    d.note(
        3, 56,
        r"N, M = 192, 192 (low rates) or 192, 320 (high rates).   $g_a$ and $g_s$ are those of "
        r"the factorized prior.   Checkerboard has the same layers.",
        size=10, ha="left",
    )
    return d
