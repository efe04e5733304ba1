"""Every failure that is the user's to act on.

The message is one sentence: what is wrong and what to do. The programs print it and exit with 1
(`models.cli.guarded`); any other exception is a mistake in the code.
"""


class CodecError(ValueError):
    """The base of them all, for handlers; what is raised is one of the kinds below."""


class UsageError(CodecError):
    """A command cannot do what it was asked to."""


class ImageError(CodecError):
    """An image cannot be used."""


class StreamError(CodecError):
    """A compressed file cannot be decoded."""


class CheckpointError(CodecError):
    """A checkpoint cannot be found, read or used."""


class FreezeError(CodecError):
    """A network cannot be turned into integers."""


class TrainingError(CodecError):
    """Training cannot start or go on."""


class DataError(CodecError):
    """A CSV file is missing or cannot be understood."""
