"""Addresses: which file system they name, and what is refused."""

import os
import pickle
import sys
from pathlib import Path

import pytest
from upath import UPath

from basics.errors import UserError
from basics.paths import as_local_path, as_path, is_remote


@pytest.mark.parametrize("address", ["images", "/images", "file:///images", "file://localhost/images", Path("/images")])
def test_paths_and_file_urls_are_local(address: str | Path) -> None:
    assert as_path(address).name == "images"
    assert not is_remote(as_path(address))


def test_an_entry_of_a_folder_is_the_path_that_it_names(tmp_path: Path) -> None:
    (tmp_path / "images").touch()
    with os.scandir(tmp_path) as entries:
        (entry,) = entries
    assert as_path(entry) == tmp_path / "images"


def test_an_address_that_is_one_already_stays() -> None:
    assert as_path(UPath("memory://bucket/a")) == as_path("memory://bucket/a")
    assert as_path(UPath("/images")) == Path("/images")


def test_what_has_to_lie_on_this_machine() -> None:
    assert as_local_path("file:///images", "The folder") == Path("/images")
    with pytest.raises(UserError, match="The folder is memory://images, on another file system; give a path on this"):
        as_local_path("memory://images", "The folder")
    with pytest.raises(UserError, match="The folder is s3://b/x, on another file system"):
        as_local_path("s3://b/x?X-Amz-Signature=1", "The folder")


def test_the_home_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/somebody")
    assert as_path("~/images") == Path("/somebody/images")


def test_a_file_url_is_unquoted() -> None:
    assert as_path("file:///my%20images") == Path("/my images")
    assert as_path("file:///a#b?c") == Path("/a#b?c")


@pytest.mark.parametrize("address", ["file://data/images", "file://images", "file://"])
def test_a_file_url_of_another_machine_is_refused(address: str) -> None:
    with pytest.raises(UserError, match="names the machine"):
        as_path(address)


def test_other_file_systems_have_the_methods_of_paths() -> None:
    folder = as_path("memory://methods/a")
    assert is_remote(folder)
    (folder / "x").write_bytes(b"1")
    assert [path.name for path in folder.iterdir()] == ["x"]
    assert pickle.loads(pickle.dumps(folder / "x")).read_bytes() == b"1"
    assert str(folder) == "memory://methods/a"


def test_listings_are_not_kept() -> None:
    pytest.importorskip("s3fs")
    path = as_path("s3://bucket/x")
    assert is_remote(path)
    assert path.fs.dircache.use_listings_cache is False


@pytest.mark.parametrize("address", ["s3://key:secret@bucket/x", "s3://key@bucket", "ftp://me:secret@host/x"])
def test_credentials_in_an_address_are_refused_and_not_repeated(address: str) -> None:
    with pytest.raises(UserError, match="user name or password") as error:
        as_path(address)
    assert "secret" not in str(error.value)


@pytest.mark.parametrize(
    "query",
    ["X-Amz-Credential=a&X-Amz-Signature=s3cret", "AWSAccessKeyId=a&Signature=s3cret", "sv=2022&sig=s3cret",
     "X-Goog-Signature=s3cret", "download=1&access_token=s3cret", "Policy=s3cret&Key-Pair-Id=b"],
)  # fmt: skip
def test_signed_addresses_are_refused_and_not_repeated(query: str) -> None:
    with pytest.raises(UserError, match="holds a signature, token or key") as error:
        as_path(f"https://host/x.h5?{query}")
    assert "s3cret" not in str(error.value)


def test_other_queries_are_no_secret() -> None:
    assert is_remote(as_path("https://host/x.h5?download=1"))


def test_an_at_sign_in_a_name_is_none() -> None:
    assert str(as_path("memory://bucket/a@b")) == "memory://bucket/a@b"


@pytest.mark.parametrize(
    ("address", "words"), [("", "empty"), ("nothing://x", "no file system nothing://"), ("S4://x", "no file system")]
)
def test_bad_addresses(address: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        as_path(address)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(UserError, match=r"pip install 'advbn-gen\[gs\]'"):
        as_path("gs://bucket/x")
