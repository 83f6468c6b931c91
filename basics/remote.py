"""Remote file systems: one connection for each process, and every fault as an OSError with a plain message."""

import asyncio
import errno
import functools
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import fsspec
from fsspec.asyn import AsyncFileSystem, sync
from upath import UPath

from basics.errors import UserError
from basics.paths import AnyPath, is_remote

RESPONSE_TIMEOUT = 30.0
"""Seconds within which a server must respond to the first request. Packages retry by themselves, some for minutes."""

_RENEW = "renew them where the file system's own tools look for them"
_MISSING = (
    "there are no credentials for it; put them where the file system's own tools look for them, "
    "or for a public bucket of S3 set FSSPEC_S3_ANON=true"
)
_CODES = {
    "ExpiredToken": (errno.EACCES, f"its credentials have expired; {_RENEW}"),
    "ExpiredTokenException": (errno.EACCES, f"its credentials have expired; {_RENEW}"),
    "RequestExpired": (errno.EACCES, f"its credentials have expired; {_RENEW}"),
    "InvalidAccessKeyId": (errno.EACCES, f"its server does not know the credentials; {_RENEW}"),
    "InvalidToken": (errno.EACCES, f"its server does not accept the credentials; {_RENEW}"),
    "InvalidClientTokenId": (errno.EACCES, f"its server does not accept the credentials; {_RENEW}"),
    "SignatureDoesNotMatch": (errno.EACCES, f"its server does not accept the credentials; {_RENEW}"),
    "AccessDenied": (errno.EACCES, "access is denied to these credentials"),
    "PreconditionFailed": (errno.EEXIST, "it exists already"),
    "NoSuchBucket": (errno.ENOENT, "there is no such bucket"),
    "SlowDown": (errno.EBUSY, "its server is overloaded"),
}
"""Error number and message by the error code in a server's response."""
_KINDS = {
    "NoCredentialsError": (errno.EACCES, _MISSING),
    "PartialCredentialsError": (errno.EACCES, _MISSING),
    "CredentialRetrievalError": (errno.EACCES, _MISSING),
    "DefaultCredentialsError": (errno.EACCES, _MISSING),
    "TokenRetrievalError": (errno.EACCES, f"its credentials have expired; {_RENEW}"),
    "ClientConnectorDNSError": (errno.EHOSTUNREACH, "its server's name is unknown"),
    "gaierror": (errno.EHOSTUNREACH, "its server's name is unknown"),
    "ConnectTimeoutError": (errno.ETIMEDOUT, "its server does not answer"),
    "ReadTimeoutError": (errno.ETIMEDOUT, "its server does not answer"),
    "FSTimeoutError": (errno.ETIMEDOUT, "its server does not answer"),
    "TimeoutError": (errno.ETIMEDOUT, "its server does not answer"),
    "EndpointConnectionError": (errno.ECONNREFUSED, "its server cannot be reached"),
    "ClientConnectorError": (errno.ECONNREFUSED, "its server cannot be reached"),
    "ConnectionRefusedError": (errno.ECONNREFUSED, "its server cannot be reached"),
    "ConnectionError": (errno.ECONNRESET, "the connection to its server broke"),
    "ConnectionClosedError": (errno.ECONNRESET, "the connection to its server broke"),
    "IncompleteRead": (errno.ECONNRESET, "the connection to its server broke"),
    "ClientPayloadError": (errno.ECONNRESET, "the connection to its server broke"),
    "FileNotFoundError": (errno.ENOENT, "it does not exist"),
    "FileExistsError": (errno.EEXIST, "it exists already"),
    "IsADirectoryError": (errno.EISDIR, "it is a folder"),
    "NotADirectoryError": (errno.ENOTDIR, "it is no folder"),
    "PermissionError": (errno.EACCES, "access is denied to these credentials"),
}
"""Error number and message by the class name of an exception, so that none of the packages has to be installed."""
_VAGUE = {errno.EACCES, errno.EINVAL, errno.EIO}
"""Errors whose reason another request may reveal."""
_SECRET = re.compile(r"(?i)key|secret|token|password|credential")
_QUERY = re.compile(r"\?[^\s\"']*=[^\s\"']*")
_USER = re.compile(r"://[^/\s@]*@")


@functools.lru_cache(maxsize=16)
def _connected(_process: int, protocol: str, options: tuple[tuple[str, Any], ...]) -> Any:
    return fsspec.filesystem(protocol, skip_instance_cache=True, **dict(options))


def file_system(path: UPath) -> Any:
    """Return fsspec's file system of a path: the same for all threads of a process, and safe to be used by them.

    fsspec itself would connect anew in each thread.
    """
    return _connected(os.getpid(), path.protocol, tuple(sorted(path.storage_options.items())))


@contextmanager
def os_errors_only(path: AnyPath) -> Iterator[None]:
    """Turn any exception of a file system's package in the block into an OSError of the matching class.

    Its `strerror` is a plain reason, its `filename` the address. The packages have retried before. The original
    exception is not chained, since it may quote addresses and requests with keys in them. On a local path the block's
    exceptions stay as they are: those of a disk are OSErrors already.
    """
    try:
        yield
    except (UserError, MemoryError):
        raise
    except Exception as error:  # botocore's, aiohttp's and others' errors have no base class in common
        if not is_remote(path):
            raise
        raise _with_reason(path, error) from None


def _with_reason(path: UPath, error: Exception) -> OSError:
    """Return the OSError of an exception; where the response gave no reason, another request is made to get one.

    S3 gives the code of an error in the body alone, and the responses to `info` have none: expired credentials would be
    a "Bad Request".
    """
    fault = as_os_error(error, str(path))
    if fault.errno not in _VAGUE or any(_coded(cause) for cause in _chain(error)):
        return fault
    try:
        _read_a_byte(path)
    except Exception as reason:  # as above
        if any(_coded(cause) for cause in _chain(reason)):
            return as_os_error(reason, str(path))
    return fault


def _read_a_byte(path: UPath) -> None:
    system = file_system(path)
    if "/" in path.path.strip("/"):
        _in_time(system, "cat_file", path.path, start=0, end=1)
    else:
        _in_time(system, "ls", path.path)


def as_os_error(error: BaseException, address: str) -> OSError:
    """Return the OSError, of the class of its number, that gives the reason of a failure at an address."""
    for cause in reversed(list(_chain(error))):
        known = _coded(cause)
        if known:
            return OSError(*known, address)
    # The innermost cause is the most specific one: an unknown name, not a failed connection.
    for cause in reversed(list(_chain(error))):
        known = next((_KINDS[kind.__name__] for kind in type(cause).__mro__ if kind.__name__ in _KINDS), None)
        if known:
            return OSError(*known, address)
    number = error.errno if isinstance(error, OSError) and error.errno else errno.EIO
    return OSError(number, _without_secrets(f"{type(error).__name__}: {error}"), address)


def remote_info(path: UPath) -> dict[str, Any]:
    """Return fsspec's `info` of a file or folder (`type`, `size`...), waiting at most `RESPONSE_TIMEOUT` seconds.

    Raises:
        OSError: it does not exist (FileNotFoundError), or its server does not respond or denies access.
    """
    with os_errors_only(path):
        found: dict[str, Any] = _in_time(file_system(path), "info", path.path)
    return found


def _in_time(system: Any, method: str, *args: Any, **options: Any) -> Any:
    if not isinstance(system, AsyncFileSystem):
        return getattr(system, method)(*args, **options)

    async def request() -> Any:
        return await asyncio.wait_for(getattr(system, f"_{method}")(*args, **options), RESPONSE_TIMEOUT)

    return sync(system.loop, request)


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception and its causes, as Python or botocore (`kwargs["error"]`) records them."""
    seen: list[BaseException] = []
    following: object = error
    while isinstance(following, BaseException) and following not in seen:
        seen.append(following)
        yield following
        kept = getattr(following, "kwargs", None)
        kept = kept.get("error") if isinstance(kept, dict) else None
        following = kept or following.__cause__ or following.__context__ or getattr(following, "os_error", None)


def _coded(error: BaseException) -> tuple[int, str] | None:
    """Return error number and message by the code of a server's response, if the exception has a known one."""
    response = getattr(error, "response", None)
    content = response.get("Error") if isinstance(response, dict) else None
    return _CODES.get(str(content.get("Code", ""))) if isinstance(content, dict) else None


def _without_secrets(text: str) -> str:
    """Return a text as one short line, without queries and users of addresses and secrets of the environment."""
    text = _USER.sub("://", _QUERY.sub("", " ".join(text.split())))
    for name, value in os.environ.items():
        if len(value) >= 6 and _SECRET.search(name):
            text = text.replace(value, "***")
    return text[:300]
