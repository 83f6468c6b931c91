"""The errors whose messages are shown to the user."""


class UserError(Exception):
    """Wrong use or bad input, found before any work started (exit code 2).

    The message is one plain sentence: what is wrong, where, and how to mend it.

    Example:
        >>> from advbn_gen import LabelledImages, UserError
        >>> try:
        ...     LabelledImages("no-such-folder")
        ... except UserError as error:
        ...     print(error)
        no-such-folder does not exist; check the path.
    """


class WorkError(Exception):
    """Work that was started and could not be finished (exit code 1).

    What was finished before stays valid, and the same command goes on from there. The message says what failed.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from advbn_gen import LabelledImages, WorkError
        >>> root = Path(tempfile.mkdtemp())
        >>> (root / "cat").mkdir()
        >>> (root / "cat/1.png").touch()
        >>> images = LabelledImages(root)  # opens no image yet
        >>> try:
        ...     images[0]
        ... except WorkError as error:
        ...     print(error)
        The image cat/1.png is broken: the file is empty.
    """
