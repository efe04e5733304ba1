"""The one exception of training that is the user's to act on."""


class TrainingError(ValueError):
    """Training cannot start or go on; the message says why and what to do."""
