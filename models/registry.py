"""The registry: names and aliases to codecs."""

from __future__ import annotations

from models.base import Codec
from models.checkerboard import CheckerboardAutogressive
from models.errors import UsageError
from models.factorized import Factorized
from models.hyperprior import Hyperprior
from models.joint_autoregressive import JointAutoregressiveHierarchicalPriors

MODELS: dict[str, type[Codec]] = {}
_ALIASES: dict[str, str] = {}


def register(cls: type[Codec], *aliases: str) -> type[Codec]:
    """Make a codec known under its class name and aliases, in any letter case.

    Returns the class, so that it can decorate one. ValueError if a name is taken.
    """
    for name in (cls.__name__, *aliases):
        if _ALIASES.get(name.lower(), cls.__name__) != cls.__name__:
            raise ValueError(f"The model name {name} is taken by {_ALIASES[name.lower()]}.")
        _ALIASES[name.lower()] = cls.__name__
    MODELS[cls.__name__] = cls
    return cls


def canonical_name(name: str) -> str:
    """The registered name of a model; UsageError that lists them for an unknown one."""
    try:
        return _ALIASES[name.lower()]
    except KeyError:
        raise UsageError(f"Unknown model {name!r}; choose one of: {', '.join(MODELS)}.") from None


def build(name: str, N: int, M: int) -> Codec:
    """A codec with random weights, N inner channels and M latent channels."""
    if min(N, M) < 1:
        raise ValueError(f"N and M are numbers of channels, at least 1, not {N} and {M}.")
    return MODELS[canonical_name(name)](N, M)


register(Factorized, "FactorizedPrior")
register(Hyperprior, "ScaleHyperprior")
register(JointAutoregressiveHierarchicalPriors, "JointAutoregressive", "Joint")
register(CheckerboardAutogressive, "Checkerboard", "CheckerboardAutoregressive")
