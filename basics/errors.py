"""The errors that are meant for a user's eyes."""


class UserError(Exception):
    """Wrong use or bad input, found before any work started (exit code 2).

    The message is one plain sentence: what is wrong, where, and how to mend it.
    """


class WorkError(Exception):
    """Work that was started and could not be finished (exit code 1).

    What was finished before stays valid, and the same command goes on from there. The message says what failed.
    """

    def __init__(self, message: str) -> None:
        # torch's loader processes hand an error over with its trace as the message, which ends in the words said here.
        said = f"{type(self).__name__}: "
        super().__init__(message.rstrip().rpartition(said)[2] if message.startswith("Caught ") else message)
