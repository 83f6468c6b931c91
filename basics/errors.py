"""The errors whose messages are shown to the user."""


class UserError(Exception):
    """Wrong use or bad input, found before any work started (exit code 2).

    The message is one plain sentence: what is wrong, where, and how to mend it.
    """


class WorkError(Exception):
    """Work that was started and could not be finished (exit code 1).

    What was finished before stays valid, and the same command goes on from there. The message says what failed.
    """
