"""The one exception that a user is meant to read."""


class UserError(Exception):
    """Report in one line what is wrong and what the user can do about it.

    Entry points print the message without a stack trace and exit with a non-zero status.
    """

    def __init__(self, problem: str, *, remedy: str = "") -> None:
        """Join the problem and its remedy into one line.

        Args:
            problem: What is wrong, naming the file, table, column or setting.
            remedy: What to do about it; empty where the problem already says it.
        """
        parts = [" ".join(part.split()).rstrip(".;") for part in (problem, remedy) if part]
        super().__init__("; ".join(parts))


class DriverLostError(UserError):
    """Report that Spark's driver did not answer any more in the middle of a write."""
