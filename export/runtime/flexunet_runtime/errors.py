"""Errors that the user can act on; each message is one line and begins with the file or key."""


class UserError(ValueError):
    """Something that the user can correct: usage, configuration, output path."""


class DataError(UserError):
    """An image, a mask or a folder of them cannot be used. The message begins with its path."""


class TooLargeError(DataError):
    """An image has more pixels than are allowed."""


class NoImageError(DataError):
    """A file is no image of a kind that is read."""


class ModelFileError(UserError):
    """A model file or checkpoint is damaged, foreign or unsafe. The message begins with its path."""
