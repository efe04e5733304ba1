"""The diagrams of the report: `python -m notebooks.diagrams [--out Image4md]`.

Each diagram is one function that returns a `Diagram`; the coordinates are in tenths of an
inch, x to the right and y down. The same program writes the same bytes every time.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from models.files import write_bytes
from notebooks.diagram_coding import checkerboard, coding_orders, file_layout
from notebooks.diagram_flows import (
    factorized_dataflow,
    hyperprior_dataflow,
    joint_autoregressive_dataflow,
)
from notebooks.diagram_integers import integer_entropy_parameters
from notebooks.diagram_networks import (
    factorized_network,
    hyperprior_network,
    joint_autoregressive_network,
)
from notebooks.diagram_style import Diagram
from notebooks.diagram_training import factorized_training_testing, hyperprior_training

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
