"""The one exception for everything that can be wrong with a compressed file."""


class StreamError(ValueError):
    """A file cannot be decoded; the message says what is wrong with it."""
