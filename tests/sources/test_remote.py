"""Sources on a real S3-speaking server: the same as the local copies of the same files, also with faults."""

import io
import json
import pickle
import re
import socket
import tarfile
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from basics import remote
from basics.errors import UserError
from sources import storage
from sources.base import Source
from sources.opening import open_source
from tests.s3 import SECRET, S3Server, forget_connections

WriteFiles = Callable[[Path, Mapping[str, bytes]], Path]


@pytest.fixture(scope="session")
def pictures(shared_data: Path) -> dict[str, bytes]:
    """A few real JPEGs by `<wnid>/<file>`, two of them of one class."""
    names: dict[str, bytes] = {}
    with tarfile.open(shared_data / "imagenet-sample-500.tar") as tar:
        for member in tar:
            file = tar.extractfile(member) if member.isfile() and member.size < 20_000 else None
            if file is not None and len(names) < 4:
                names[member.name.removeprefix("./")] = file.read()
    first = next(iter(names))
    return {**names, first.replace(".JPEG", "_again.JPEG"): names[first]}


def samples(pictures: Mapping[str, bytes]) -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    for label, (name, content) in enumerate(pictures.items()):
        key = Path(name).stem
        wnid = json.dumps({"wnid": name.partition("/")[0]}).encode()
        files |= {f"{key}.cls": str(label % 3).encode(), f"{key}.jpg": content, f"{key}.json": wnid}
    return files


def class_folders(root: Path, pictures: Mapping[str, bytes], folder: WriteFiles, _: WriteFiles) -> str:
    folder(root, {**pictures, ".DS_Store": b"", f"{next(iter(pictures))}.txt": b"text"})
    return ""


def splits(root: Path, pictures: Mapping[str, bytes], folder: WriteFiles, _: WriteFiles) -> str:
    folder(root / "val", pictures)
    folder(root / "train", {next(iter(pictures)): b"not taken"})
    return ""


def one_tar(root: Path, pictures: Mapping[str, bytes], _: WriteFiles, tar: WriteFiles) -> str:
    tar(root / "x.tar", {"top/" + name: content for name, content in pictures.items()})
    return "x.tar"


def gzipped_tar(root: Path, pictures: Mapping[str, bytes], _: WriteFiles, tar: WriteFiles) -> str:
    tar(root / "x.tar.gz", pictures)
    return "x.tar.gz"


def shards(root: Path, pictures: Mapping[str, bytes], tar: WriteFiles) -> None:
    names = list(pictures)
    for number in range(2):
        tar(root / f"set-{number}.tar", samples({name: pictures[name] for name in names[number::2]}))


def shard_folder(root: Path, pictures: Mapping[str, bytes], _: WriteFiles, tar: WriteFiles) -> str:
    shards(root, pictures, tar)
    return ""


def one_shard(root: Path, pictures: Mapping[str, bytes], _: WriteFiles, tar: WriteFiles) -> str:
    shards(root, pictures, tar)
    return "set-1.tar"


def shard_pattern(root: Path, pictures: Mapping[str, bytes], _: WriteFiles, tar: WriteFiles) -> str:
    shards(root, pictures, tar)
    return "set-{0..1}.tar"


def our_data_set(root: Path, pictures: Mapping[str, bytes], folder: WriteFiles, tar: WriteFiles) -> str:
    shards(root, pictures, tar)
    folder(root / "pictures", {"x.png": b"no image of the set"})
    (root / "manifest.json").write_text('{"classes": {"imagenet": false, "names": ["cat", "dog", "owl"]}}')
    return ""


FORMS = [class_folders, splits, one_tar, gzipped_tar, shard_folder, one_shard, shard_pattern, our_data_set]


@pytest.fixture(params=FORMS, ids=lambda form: form.__name__)
def pair(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    pictures: dict[str, bytes],
    write_folder: WriteFiles,
    write_tar: WriteFiles,
    s3: S3Server,
) -> tuple[str, str]:
    """A local address, and that of the same files on the server."""
    name = request.param(tmp_path, pictures, write_folder, write_tar)
    bucket = s3.upload(tmp_path, s3.new_bucket() + "/deep/down")
    return f"{tmp_path}/{name}".rstrip("/"), f"{bucket}/{name}".rstrip("/")


def assert_same(ours: Source, local: Source) -> None:
    assert list(ours.records) == list(local.records)
    assert (ours.digest(), ours.classes, ours.order) == (local.digest(), local.classes, local.order)
    assert [ours.read(record) for record in ours.records] == [local.read(record) for record in local.records]
    assert ours.records


@pytest.mark.slow
def test_every_form_is_read_as_the_local_copy_is(pair: tuple[str, str]) -> None:
    local, there = pair
    source = open_source(there)
    assert source.address == there
    assert_same(source, open_source(local))


@pytest.mark.slow
@pytest.mark.parametrize("pair", [class_folders, one_tar, shard_pattern], indirect=True, ids=lambda form: form.__name__)
def test_transient_faults_are_not_noticed(pair: tuple[str, str], s3: S3Server) -> None:
    local, there = pair
    s3.fail("InternalError", method="GET", times=2)
    s3.fail("SlowDown", method="HEAD", times=1)
    source = open_source(there)
    s3.fail("InternalError", method="GET", times=2)
    requests = s3.count()
    assert_same(source, open_source(local))
    assert s3.count() == requests + 2 + len(source.records)


@pytest.mark.slow
def test_a_source_is_read_by_threads_and_after_pickling(pair: tuple[str, str]) -> None:
    local, there = pair
    expected = open_source(local)
    source = open_source(there)
    source.read(source.records[0])
    for copy in (source, pickle.loads(pickle.dumps(source)), source.part(source.records)):
        with ThreadPoolExecutor(8) as pool:
            contents = list(pool.map(copy.read, list(copy.records) * 4))
        assert contents == [expected.read(record) for record in expected.records] * 4


@pytest.mark.slow
def test_flat_images_with_local_and_remote_lists(
    tmp_path: Path, s3: S3Server, write_folder: WriteFiles, pictures: dict[str, bytes]
) -> None:
    content = list(pictures.values())
    flat = {f"ILSVRC2012_val_{number:08}.JPEG": content[number - 1] for number in (1, 2, 3)}
    write_folder(tmp_path / "flat", flat)
    (tmp_path / "labels.txt").write_text("".join(f"{name} {number}\n" for number, name in enumerate(flat, 5)))
    local = open_source(tmp_path / "flat", labels=tmp_path / "labels.txt")
    (tmp_path / "order.txt").write_text("".join(f"{record.name}\n" for record in reversed(local.records)))
    there = s3.upload(tmp_path, s3.new_bucket())
    assert_same(open_source(f"{there}/flat", labels=tmp_path / "labels.txt"), local)
    assert_same(open_source(f"{there}/flat", labels=f"{there}/labels.txt"), local)
    assert_same(
        open_source(f"{there}/flat", labels=f"{there}/labels.txt", order=f"{there}/order.txt"),
        open_source(tmp_path / "flat", labels=tmp_path / "labels.txt", order=tmp_path / "order.txt"),
    )
    with pytest.raises(UserError, match=r"no class folders; give their classes with --labels"):
        open_source(f"{there}/flat")


@pytest.mark.slow
def test_a_remote_devkit_beside_a_flat_folder(
    tmp_path: Path, s3: S3Server, write_folder: WriteFiles, make_devkit: Callable[[Path, list[int]], Path]
) -> None:
    write_folder(tmp_path / "val", {f"ILSVRC2012_val_{number:08}.JPEG": b"content" for number in (1, 2)})
    make_devkit(tmp_path, [7, 1])
    with tarfile.open(tmp_path / "kit.tar", "w") as tar:
        tar.add(tmp_path / "ILSVRC2012_devkit_t12", "ILSVRC2012_devkit_t12")
    there = s3.upload(tmp_path, s3.new_bucket() + "/ilsvrc")
    local = open_source(tmp_path / "val")
    assert_same(open_source(f"{there}/val"), local)
    assert_same(open_source(f"{there}/val", labels=f"{there}/kit.tar"), local)


@pytest.mark.slow
def test_an_empty_object_is_an_empty_image(s3: S3Server) -> None:
    source = open_source(s3.put(s3.new_bucket(), {"a/1.png": b""}))
    assert source.read(source.records[0]) == b""


def test_other_file_systems_are_read_as_well(pictures: dict[str, bytes]) -> None:
    import fsspec

    system = fsspec.filesystem("memory")
    for name, content in pictures.items():
        system.pipe_file(f"/some/{name}", content)
    source = open_source("memory://some")
    assert {record.name: source.read(record) for record in source.records} == pictures


# --- requests


@pytest.mark.slow
def test_a_folder_is_listed_at_once_and_an_image_is_one_request(s3: S3Server) -> None:
    bucket = s3.put(s3.new_bucket(), {f"{label}/{number}.png": b"x" for label in "abc" for number in range(8)})
    source = open_source(bucket)
    assert s3.count("GET", "list-type=2") <= 2
    assert s3.count() <= 4
    s3.requests.clear()
    assert [source.read(record) for record in source.records] == [b"x"] * 24
    assert s3.count() == 24


@pytest.mark.slow
def test_a_tar_is_scanned_by_windows(s3: S3Server, tmp_path: Path, write_tar: WriteFiles) -> None:
    files = {f"a/{number:04}.png": bytes(3000) for number in range(600)}
    path = write_tar(tmp_path / "x.tar", files)
    source = open_source(s3.upload(path, s3.new_bucket()))
    assert len(source.records) == 600
    # Present or not, gzipped or not, what it holds, and its 2.2 MB.
    assert s3.count() <= 8


@pytest.mark.slow
def test_windows_follow_each_other_without_gap_or_overlap(
    s3: S3Server, tmp_path: Path, write_tar: WriteFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage._RemoteFile, "window", 1 << 16)
    path = write_tar(tmp_path / "x.tar", {f"a/{number:04}.png": bytes(3000 + number) for number in range(300)})
    source = open_source(s3.upload(path, s3.new_bucket()))
    assert list(source.records) == list(open_source(path).records)
    # A few more find out what it holds: the first 128 members, a part of all.
    assert s3.count("GET", r"x\.tar") <= 1.5 * path.stat().st_size / (1 << 16) + 4


@pytest.mark.slow
def test_members_larger_than_a_window_are_jumped_over(
    s3: S3Server, tmp_path: Path, write_tar: WriteFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage._RemoteFile, "window", 1 << 12)
    path = write_tar(tmp_path / "x.tar", {f"a/{number}.png": bytes(100_000) for number in range(10)})
    source = open_source(s3.upload(path, s3.new_bucket()))
    assert len(source.records) == 10
    assert s3.count("GET", r"x\.tar") <= 2 * 12 + 4


@pytest.mark.slow
def test_many_shards_need_few_requests_each(s3: S3Server, tmp_path: Path, write_tar: WriteFiles) -> None:
    for shard in range(20):
        keys = [f"{shard}-{number}" for number in range(30)]
        write_tar(tmp_path / f"x-{shard:02}.tar", {f"{k}.{e}": b"1" for k in keys for e in ("cls", "png")})
    there = s3.upload(tmp_path, s3.new_bucket())
    assert len(open_source(there).records) == 600
    assert s3.count() <= 3 * 20 + 8
    s3.requests.clear()
    source = open_source(f"{there}/x-{{00..19}}.tar")
    requests = s3.count()
    assert requests <= 4 * 20 + 12
    source.part(source.records[:32]).read(source.records[0])
    assert s3.count() == requests + 1


# --- errors


def refused(address: str) -> str:
    with pytest.raises(UserError) as caught:
        open_source(address)
    text = str(caught.value)
    assert SECRET not in text
    assert "\n" not in text
    assert text.startswith(address.partition("{")[0]) or "files of" in text
    return text


@pytest.mark.slow
def test_a_missing_source_is_reported(s3: S3Server) -> None:
    bucket = s3.put(s3.new_bucket(), {"a/1.png": b"", "x-0.tar": b""})
    assert "does not exist" in refused(f"{bucket}/nowhere")
    assert "does not exist" in refused(f"{bucket}/nowhere.tar")
    assert "does not exist" in refused("s3://no-such-bucket/x")
    assert "does not exist" in refused("s3://no-such-bucket")
    assert "2 of the 3 files of" in refused(f"{bucket}/x-{{0..2}}.tar")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["", "/a", "/x.tar"])
@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("ExpiredToken", "its credentials have expired; renew them"),
        ("InvalidAccessKeyId", "its server does not know the credentials"),
        ("AccessDenied", "access is denied"),
    ],
)
def test_wrong_credentials_are_reported(s3: S3Server, name: str, code: str, reason: str) -> None:
    bucket = s3.put(s3.new_bucket(), {"a/1.png": b"", "x.tar": b""})
    s3.fail(code, times=1000)
    assert reason in refused(bucket + name)


def test_missing_credentials_are_reported(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    bucket = s3.put(s3.new_bucket(), {"a/1.png": b""})
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    assert "there are no credentials" in refused(f"{bucket}/a")


@pytest.mark.slow
@pytest.mark.usefixtures("s3")
def test_a_server_that_does_not_respond_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "RESPONSE_TIMEOUT", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        assert "its server does not answer" in refused("s3://bucket/x")


@pytest.mark.slow
@pytest.mark.usefixtures("s3")
def test_a_server_that_does_not_exist_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    assert "its server cannot be reached" in refused("s3://bucket/x")
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://me:{SECRET}@127.0.0.1:{port}")
    forget_connections()
    assert "cannot be read" in refused("s3://bucket/x")


@pytest.mark.usefixtures("s3")
def test_a_server_with_an_unknown_name_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://nowhere.invalid")
    assert re.search("name is unknown|cannot be reached", refused("s3://bucket/x"))


@pytest.mark.slow
@pytest.mark.parametrize("form", ["folder", "tar"])
def test_an_image_that_cannot_be_read_is_an_os_error(
    s3: S3Server, tmp_path: Path, write_tar: WriteFiles, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")
    files = {"a/1.png": b"one", "a/2.png": b"two"}
    bucket = s3.put(s3.new_bucket(), files)
    path = s3.upload(write_tar(tmp_path / "x.tar", files), bucket) if form == "tar" else bucket
    source = open_source(path)
    for code, kind in (("ExpiredToken", PermissionError), ("InternalError", OSError)):
        s3.fail(code, times=1000)
        with pytest.raises(kind) as caught:
            source.read(source.records[0])
        assert str(caught.value.filename).startswith(bucket)
        assert SECRET not in repr(caught.value)
        s3.recover()
    assert source.read(source.records[0]) == b"one"
    s3.client.delete_object(Bucket=bucket.removeprefix("s3://"), Key="x.tar" if form == "tar" else "a/1.png")
    with pytest.raises(FileNotFoundError):
        source.read(source.records[0])


@pytest.mark.slow
def test_a_tar_that_has_become_shorter_is_an_os_error(s3: S3Server, tmp_path: Path, write_tar: WriteFiles) -> None:
    path = write_tar(tmp_path / "x.tar", {f"a/{number}.png": bytes(1000) for number in range(9)})
    bucket = s3.new_bucket()
    source = open_source(s3.upload(path, bucket))
    for length in (600, path.read_bytes().find(b"a/8.png") + 1000):
        s3.put(bucket, {"x.tar": path.read_bytes()[:length]})
        with pytest.raises(OSError, match=r"x\.tar|become shorter"):
            source.read(source.records[-1])


@pytest.mark.slow
def test_what_is_no_tar_is_refused(s3: S3Server) -> None:
    bucket = s3.put(s3.new_bucket(), {"x.tar": b"no tar" * 200, "y.tar.gz": b"\x1f\x8bno gzip", "z.tar": b""})
    assert "is not a tar" in refused(f"{bucket}/x.tar")
    assert "cannot be read" in refused(f"{bucket}/y.tar.gz")
    assert "is not a tar" in refused(f"{bucket}/z.tar")
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("a.txt"))
    assert "holds no image" in refused(s3.put(bucket, {"x.tar": buffer.getvalue()}) + "/x.tar")
