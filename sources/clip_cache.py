"""Decoded clips in one HDF5 file, so that many runs on the same clips decode them once.

The whole file is laid out when it is made, under a name of its own, and then renamed; later only bytes in it change: of
the pixels of a clip, of their checksum, and at last of the flag that they are there. A run that is killed at any moment
leaves a valid file without the clips that it had not finished. A clip is known by its name, its split, and the size
and time of its file (`sources.content`), so one that has changed since is not found.
"""

import fcntl
import os
import secrets
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import torch
from torch import Tensor

from basics.errors import UserError, WorkError
from basics.files import TEMPORARY_SUFFIX, digest_json
from basics.hdf5 import open_hdf5
from basics.progress import say
from sources.base import ImageRecord, Source
from sources.clips import ClipView
from sources.content import state_checksum

_FORMAT = "advbn-gen decoded clips 1"
_CLIPS, _CHECKSUMS, _DONE, _KEYS, _NAMES = "clips", "crc32", "done", "keys", "names"
_ADVICE = "restore it, move it away to have it made again, or give another --cache"


@dataclass(frozen=True, kw_only=True)
class _Layout:
    """Offsets in bytes of the first values of the file's columns."""

    clips: int
    checksums: int
    done: int


@dataclass(frozen=True, kw_only=True)
class ClipCache:
    """Some clips of a file. It may be read by several threads and processes at once."""

    path: Path
    """The file."""
    view: ClipView
    """Number and size of the frames."""
    rows: Mapping[str, int]
    """Row of each clip, by its record's name."""
    layout: _Layout
    """Where the columns are."""

    @property
    def _bytes(self) -> int:
        return 3 * self.view.frames * self.view.size**2

    def stored(self, records: Sequence[ImageRecord]) -> set[ImageRecord]:
        """Return which clips the file holds."""
        with _descriptor(self.path, os.O_RDONLY) as file:
            done = os.pread(file, max(self.rows.values(), default=0) + 1, self.layout.done)
        return {record for record in records if done[self.rows[record.name]]}

    def read(self, record: ImageRecord) -> Tensor:
        """Return a clip that is in the file, uint8 (3, T, S, S).

        Raises:
            WorkError: the file is damaged.
            OSError: it cannot be read.
        """
        row = self.rows[record.name]
        with _descriptor(self.path, os.O_RDONLY) as file:
            pixels = os.pread(file, self._bytes, self.layout.clips + row * self._bytes)
            checksum = os.pread(file, 4, self.layout.checksums + 4 * row)
        if len(pixels) < self._bytes or _checksum(pixels) != checksum:
            raise WorkError(f"The cache {self.path} is damaged (at {record.name}); {_ADVICE}.")
        return torch.from_numpy(np.frombuffer(bytearray(pixels), np.uint8)).view(
            3, self.view.frames, self.view.size, self.view.size
        )

    def write(self, clips: Mapping[ImageRecord, Tensor]) -> None:
        """Add decoded clips, all of which are on the disk before any is flagged; see `lock_cache`, which the run holds.

        Raises:
            WorkError: the file cannot be written.
        """
        try:
            with _descriptor(self.path, os.O_RDWR) as file:
                for record, clip in clips.items():
                    row, pixels = self.rows[record.name], clip.contiguous().numpy().tobytes()
                    _write(file, pixels, self.layout.clips + row * self._bytes)
                    _write(file, _checksum(pixels), self.layout.checksums + 4 * row)
                os.fsync(file)
                for record in clips:
                    _write(file, b"\1", self.layout.done + self.rows[record.name])
        except OSError as error:
            raise WorkError(
                f"The cache {self.path} cannot be written ({error.strerror}); make room, or give another --cache."
            ) from error


@contextmanager
def lock_cache(path: Path) -> Iterator[None]:
    """Keep other runs from adding to a file meanwhile; waits until those that do so now have ended.

    Raises:
        UserError: it cannot be written.
    """
    with ExitStack() as stack:
        try:
            file = stack.enter_context(_descriptor(path, os.O_RDWR))
            _lock(path, file)
        except OSError as error:
            raise _unwritable(path, error) from error
        yield


def _lock(path: Path, file: int) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        say(f"Another run is adding clips to {path}; waiting for it.")
        fcntl.flock(file, fcntl.LOCK_EX)


def open_cache(path: Path, view: ClipView, sets: Sequence[tuple[Source, Sequence[ImageRecord]]]) -> list[ClipCache]:
    """Return the cache of each of several sets of clips, all in one file, which is made if there is none.

    Args:
        path: The file.
        view: Number and size of the frames.
        sets: Sources with the records that are wanted of each.

    Raises:
        UserError: the file is of another program, damaged, or of other clips or frames, or it cannot be written.
    """
    keys = [_keys(source, records) for source, records in sets]
    if not path.exists():
        _make(path, view, {key: record.name for known in keys for record, key in known.items()})
    layout, rows = _read(path, view)
    wanted = {key: record for known in keys for record, key in known.items()}
    missing = [record for key, record in wanted.items() if key not in rows]
    if missing:
        raise UserError(
            f"The cache {path} is of other clips: it lacks {len(missing)} of {len(wanted)} (such as "
            f"{missing[0].name}), or their files have changed since; give another --cache, or move it away to have it "
            "made again."
        )
    return [
        ClipCache(path=path, view=view, rows={record.name: rows[key] for record, key in known.items()}, layout=layout)
        for known in keys
    ]


def _keys(source: Source, records: Sequence[ImageRecord]) -> dict[ImageRecord, str]:
    """Return what each clip is known by."""
    states = [state_checksum([state]) for state in source.record_states(records)]
    # Clips of one name in both splits may be of the same size and time, or in one tar.
    splits = [source.split] if source.split else []
    return {record: digest_json([record.name, state, *splits]) for record, state in zip(records, states, strict=True)}


def _make(path: Path, view: ClipView, names: Mapping[str, str]) -> None:
    """Make a file without clips; if another run makes it meanwhile, that one stays.

    Args:
        path: The file.
        view: Number and size of the frames.
        names: Name of each clip by its key.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f"{path.name}.{secrets.token_hex(8)}{TEMPORARY_SUFFIX}")
        try:
            _lay_out(temporary, view, names)
            with _descriptor(temporary, os.O_RDWR) as file:
                os.fsync(file)
            with suppress(FileExistsError):
                os.link(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise _unwritable(path, error) from error


def _lay_out(path: Path, view: ClipView, names: Mapping[str, str]) -> None:
    count = len(names)
    early = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    # All space is allocated at once, as holes of a sparse file, so that no structure of the file changes later.
    early.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    early.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    with h5py.File(path, "w-") as file:
        file.attrs.update(format=_FORMAT, frames=view.frames, size=view.size)
        file.create_dataset(_KEYS, data=np.array(list(names), "S64"))
        file.create_dataset(_NAMES, data=list(names.values()), dtype=h5py.string_dtype())
        file.create_dataset(_CHECKSUMS, data=np.zeros(count, "<u4"))
        file.create_dataset(_DONE, data=np.zeros(count, "u1"))
        file.create_dataset(_CLIPS, (count, 3, view.frames, view.size, view.size), "u1", dcpl=early)


def _read(path: Path, view: ClipView) -> tuple[_Layout, dict[str, int]]:
    """Return a file's layout, and the row of each clip by its key.

    Raises:
        UserError: it is of another program, damaged, or of other frames.
    """
    with open_hdf5(path, advice=_ADVICE, locking=False) as file:
        try:
            if file.attrs.get("format") != _FORMAT:
                raise UserError(f"The file {path} is no cache of clips; give another --cache.")
            frames, size = int(file.attrs["frames"]), int(file.attrs["size"])
            if (frames, size) != (view.frames, view.size):
                raise UserError(
                    f"The cache {path} has clips of {frames} frames of {size} px, not {view.frames} of {view.size}; "
                    "give another --cache."
                )
            keys = [key.decode() for key in file[_KEYS][:]]
            shape = (len(keys), 3, frames, size, size)
            layout = _Layout(
                clips=_offset(file, _CLIPS, shape),
                checksums=_offset(file, _CHECKSUMS, shape[:1]),
                done=_offset(file, _DONE, shape[:1]),
            )
        except (OSError, KeyError, ValueError, TypeError, AttributeError) as error:
            raise UserError(f"The cache {path} is damaged ({error}); {_ADVICE}.") from error
    return layout, {key: row for row, key in enumerate(keys)}


def _offset(file: h5py.File, name: str, shape: tuple[int, ...]) -> int:
    offset = file[name].id.get_offset()
    if file[name].shape != shape or offset is None:
        raise ValueError(f"its column {name} is not of the right shape")
    return int(offset)


@contextmanager
def _descriptor(path: Path, flags: int) -> Iterator[int]:
    # Opened for each clip: that takes nothing beside reading it, and no process shares it with another.
    descriptor = os.open(path, flags | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _write(file: int, content: bytes, offset: int) -> None:
    done = 0
    while done < len(content):
        done += os.pwrite(file, memoryview(content)[done:], offset + done)


def _checksum(pixels: bytes) -> bytes:
    return zlib.crc32(pixels).to_bytes(4, "little")


def _unwritable(path: Path, error: OSError) -> UserError:
    return UserError(f"The cache {path} cannot be written ({error.strerror or error}); give another --cache.")
