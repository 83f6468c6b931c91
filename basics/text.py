"""Names of files and folders as text that can be stored."""

import sys

from basics.errors import UserError


def require_text(name: str, described: str) -> None:
    """Refuse a name that is not valid Unicode: it cannot be written to a manifest, a shard or JSON.

    Args:
        name: name of a file or folder, as Python read it.
        described: description of it for the message, such as `the folder d holds a file whose name`.

    Raises:
        UserError: it holds bytes that are not UTF-8, or not of the locale's encoding in which Python reads names.
    """
    if name.isascii() or not any("\ud800" <= char <= "\udfff" for char in name):
        return
    encoding = sys.getfilesystemencoding()
    if encoding == "utf-8":
        raise UserError(f"{described} is not UTF-8 ({name!r}); rename it.")
    raise UserError(
        f"{described} is not {encoding} ({name!r}), the encoding of this locale; set PYTHONUTF8=1 or another locale, "
        "such as LC_ALL=C.UTF-8."
    )
