"""Paths of files: local, or addresses of any file system that fsspec knows (`s3://`, `gs://`, `hf://`...)."""

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, cast
from urllib.parse import unquote

import fsspec
from upath import UPath

from basics.errors import UserError

if TYPE_CHECKING:
    from typing_extensions import TypeIs

AnyPath = Path | UPath
"""A local path, or one on another file system: both have pathlib's methods."""
Address = str | os.PathLike[str] | UPath
"""A path, or an address of another file system, as users have it; a UPath of another file system is no PathLike."""

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_SIGNED = re.compile(r"(?i)[?&;][^=&;]*(sig|token|credential|secret|passw|key|auth|policy|access)[^=&;]*=")
"""Parameters by which an address grants access to whoever has it (S3's and Google's X-...-Signature, Azure's sig)."""
_EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gs", "gcs": "gs", "hf": "hf"}
"""Extra of this project that installs the package for a scheme."""


def address_text(address: Address) -> str:
    """Return a path or an address as text, as it was written."""
    return str(address) if isinstance(address, UPath) else os.fspath(address)


def as_path(address: Address) -> AnyPath:
    """Return the path that an address names: a `Path` for a path (`~` is the home folder) or `file://`, else a UPath.

    Nothing is opened and no server is contacted. Credentials come from where each file system's own package looks
    for them (environment, configuration files).

    Raises:
        UserError: the address is empty or of an unknown scheme, its scheme needs a package that is not installed, or
            it holds a user name, a password or a signature, or is a `file://` of another machine.
    """
    text = address_text(address)
    if not text:
        raise UserError("The address is empty; give a path.")
    scheme = _SCHEME.match(text)
    if scheme is None:
        return Path(text).expanduser()
    if scheme[1] == "file":
        return _local(text, unquote(text.removeprefix(scheme[0])))
    if _SIGNED.search(text):
        raise UserError(
            f"An address of {scheme[0]} holds a signature, token or key after its '?', which would be written to "
            "manifests; fetch the file and give its path, or put credentials where the file system's own tools look."
        )
    if "@" in text.removeprefix(scheme[0]).partition("/")[0]:
        raise UserError(
            f"An address of {scheme[0]} holds a user name or password, which would be written to manifests; leave it "
            "out, and put credentials where the file system's own tools look for them."
        )
    _require_package(scheme[1])
    # Listings are not cached: what another process wrote a moment ago has to be seen.
    return UPath(text, use_listings_cache=False)


def as_local_path(address: Address, what: str) -> Path:
    """Return the path on this machine that an address names.

    Args:
        address: path, or address.
        what: description of it for the message, such as `The output folder`.

    Raises:
        UserError: it is on another file system, or `as_path` refuses it.
    """
    text = address_text(address)
    if not text:
        raise UserError(f"{what} is empty; give a path.")
    scheme = _SCHEME.match(text)
    if scheme is not None and scheme[1] != "file":
        # Before a package of that file system is asked for, which would not help. A signature is not shown.
        shown = _SIGNED.split(text, maxsplit=1)[0]
        raise UserError(f"{what} is {shown}, on another file system; give a path on this machine.")
    return cast("Path", as_path(text))


def _local(text: str, path: str) -> Path:
    host, slash, rest = path.partition("/")
    if not slash or host not in {"", "localhost"}:
        raise UserError(f"The address {text} names the machine {host!r}; give a path, or file:// and a path from / on.")
    return Path("/" + rest)


def is_remote(path: AnyPath) -> "TypeIs[UPath]":
    """Return whether a path is on another file system than this machine's own."""
    return not isinstance(path, Path)


def _require_package(scheme: str) -> None:
    try:
        fsspec.get_filesystem_class(scheme)
    except ValueError as error:
        raise UserError(f"There is no file system {scheme}://; give a path, or an address such as s3://...") from error
    except ImportError as error:
        extra = _EXTRAS.get(scheme)
        advice = f"pip install 'advbn-gen[{extra}]'" if extra else str(error)
        raise UserError(f"Addresses of {scheme}:// need a package that is not installed; {advice}.") from error
