"""Faults of servers as plain messages; one connection for each process."""

import errno
import pickle
from concurrent.futures import ThreadPoolExecutor

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError, NoCredentialsError, ReadTimeoutError

from basics.paths import as_path, is_remote
from basics.remote import as_os_error, file_system, os_errors_only, remote_info


@pytest.mark.parametrize(
    ("error", "kind", "reason"),
    [
        (NoCredentialsError(), PermissionError, "there are no credentials"),
        (EndpointConnectionError(endpoint_url="http://x"), ConnectionRefusedError, "cannot be reached"),
        (ReadTimeoutError(endpoint_url="http://x"), TimeoutError, "does not answer"),
        (ClientError({"Error": {"Code": "ExpiredToken"}}, "GetObject"), PermissionError, "have expired"),
        (ClientError({"Error": {"Code": "NoSuchBucket"}}, "GetObject"), FileNotFoundError, "no such bucket"),
        (FileNotFoundError("x"), FileNotFoundError, "it does not exist"),
        (ConnectionResetError(), ConnectionResetError, "connection to its server broke"),
        (ValueError("odd"), OSError, "ValueError: odd"),
        (OSError(errno.EROFS, "a disk for reading"), OSError, "a disk for reading"),
    ],
)
def test_errors_of_packages_become_os_errors(error: Exception, kind: type[OSError], reason: str) -> None:
    with pytest.raises(kind) as caught, os_errors_only(as_path("memory://a/b")):
        raise error
    assert reason in str(caught.value.strerror)
    assert caught.value.filename == "memory://a/b"
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_the_innermost_reason_counts() -> None:
    outer = OSError(errno.EIO, "something")
    outer.__cause__ = ClientError({"Error": {"Code": "InvalidAccessKeyId"}}, "HeadObject")
    assert "does not know the credentials" in str(as_os_error(outer, "s3://x"))


def test_unknown_errors_lose_what_is_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_SECRET_KEY", "abcdef-123456")
    text = "at\nhttps://me:pass@host/x?X-Amz-Signature=1234&b=2 with abcdef-123456"
    assert as_os_error(ValueError(text), "s3://x").strerror == "ValueError: at https://host/x with ***"


def test_one_file_system_serves_all_threads() -> None:
    path = as_path("memory://threads/x")
    assert is_remote(path)
    with ThreadPoolExecutor(4) as pool:
        assert {id(file_system(path)) for _ in range(3)} == set(pool.map(lambda _: id(file_system(path)), range(20)))


def test_existing_files_and_folders_are_described() -> None:
    path = as_path("memory://info/x")
    assert is_remote(path)
    file_system(path).pipe_file(path.path, b"123")
    assert (remote_info(path)["type"], remote_info(path)["size"]) == ("file", 3)
    assert remote_info(path.parent)["type"] == "directory"
    with pytest.raises(FileNotFoundError):
        remote_info(path / "y")
