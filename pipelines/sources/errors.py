"""The error a source raises when the user's files or mapping are not what they should be."""


class SourceError(ValueError):
    """Name, in one line, what is wrong with a source's input and what to do about it."""
