"""The drawn world as a folder: train/ and val/, and beside them the distribution-shift test sets and the clips."""

import json
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from basics.errors import UserError
from basics.files import TEMPORARY_SUFFIX, write_bytes, write_json
from basics.ownership import lock_folder, occupied_folder_error, require_owner
from sources.base import ImageRecord, Source
from sources.clips import require_decoder
from sources.drawn.clips import CLIPS_PER_CLASS, CLIPS_VERSION, DrawnClips
from sources.drawn.shifts import SHIFT_SETS, SHIFTS_VERSION, ShiftSource
from sources.drawn.source import DEFAULT_SIZE, PER_CLASS, WORLD_VERSION, DrawnSource

WORLD_FILE = "world.json"
"""Record of what a written world was drawn from."""
WORLD_SETS = (*PER_CLASS, *SHIFT_SETS)
"""The sets of images: the world's splits and its test sets."""
_MOTIONS = {"clips": "target", "clips-pretraining": "pretraining"}
CLIP_SETS = tuple(_MOTIONS)
"""The sets of clips, each with a folder for each split."""
_ALL_SETS = (*WORLD_SETS, *CLIP_SETS)

_WRITERS = 4
"""Threads that draw and write. More than most machines have cores to spare, because each waits for the disk: without a
flush of every file, a power cut could leave empty ones, which the next run would treat as finished."""


def world_counts(sets: Collection[str] = WORLD_SETS) -> dict[str, int]:
    """Return the number of images or clips in each of these sets."""
    return {name: sum(len(source.records) for source in _sources(name).values()) for name in sets}


def write_world(
    out: Path,
    *,
    size: int = DEFAULT_SIZE,
    seed: int = 0,
    sets: Collection[str] = WORLD_SETS,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, int]:
    """Write the world below `out`, each set in the layout of the real one, going on where an earlier run stopped.

    A folder that holds only some of the sets, such as one from before there were test sets, is completed.

    Args:
        out: a new or empty folder, or one that holds the same world, complete or not.
        size: width and height of an image in pixels.
        seed: seed of the world.
        sets: which of `WORLD_SETS` and `CLIP_SETS` to write.
        progress: called with (files there, files in all) after each file.

    Returns:
        The number of images or clips in each set.

    Raises:
        UserError: `out` holds anything else, or cannot be written; or there is no such set, or PyAV is missing, which
            clips need.
    """
    unknown = sorted(set(sets) - set(_ALL_SETS))
    if unknown:
        raise UserError(f"The drawn world has no set {unknown[0]!r}; choose from {', '.join(_ALL_SETS)}.")
    if not set(sets).isdisjoint(CLIP_SETS):
        require_decoder()
    wanted = {folder: source for name in sets for folder, source in _sources(name, size, seed).items()}
    counts = world_counts(sets)
    with lock_folder(out, "give another folder"):
        _claim(out, size, seed, sets)
        _write_all(out, wanted, progress)
    return counts


def _write_all(out: Path, sources: Mapping[str, Source], progress: Callable[[int, int], None] | None) -> None:
    """Write the files that are missing, and report each."""
    total = sum(len(source.records) for source in sources.values())
    pool = ThreadPoolExecutor(_WRITERS)
    try:
        for done, _ in enumerate(pool.map(partial(_write, out), _files(sources)), start=1):
            if progress:
                progress(done, total)
    finally:
        # On an interruption, stop after the images in work, not after all.
        pool.shutdown(cancel_futures=True)


def _write(out: Path, file: tuple[str, Source, ImageRecord]) -> None:
    name, source, record = file
    path = out / name
    # An empty file is what a power cut or a full disk of another program leaves.
    if not path.exists() or not path.stat().st_size:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(path, source.read(record))


def _sources(name: str, size: int = DEFAULT_SIZE, seed: int = 0) -> dict[str, Source]:
    """Return the source of each folder of a set that holds class folders."""
    if name in PER_CLASS:
        return {name: DrawnSource(name, size, seed)}
    if name in CLIP_SETS:
        return {f"{name}/{split}": DrawnClips(split, size, seed, motions=_MOTIONS[name]) for split in CLIPS_PER_CLASS}
    return {subset: ShiftSource(subset, size, seed) for subset in SHIFT_SETS[name]}


def _files(sources: Mapping[str, Source]) -> Iterator[tuple[str, Source, ImageRecord]]:
    """Yield every file: its path below the world's folder, its source and its record."""
    for folder, source in sources.items():
        for record in source.records:
            yield f"{folder}/{record.name}", source, record


def _claim(out: Path, size: int, seed: int, sets: Collection[str]) -> None:
    """Make sure that `out` holds nothing but this world, and record which world it is and which sets it holds."""
    record = out / WORLD_FILE
    planned = {path for name in _ALL_SETS for path, _, _ in _files(_sources(name))}
    present = {path.relative_to(out).as_posix() for path in out.rglob("*") if not path.is_dir()}
    foreign = {name.removesuffix(TEMPORARY_SUFFIX) for name in present} - planned - {WORLD_FILE}
    if foreign or (present - {WORLD_FILE + TEMPORARY_SUFFIX} and not record.exists()):
        raise occupied_folder_error(out, f"other files ({min(foreign or present)})", "give an empty folder")
    recorded_sets = _recorded_sets(out, size, seed) if record.exists() else set()
    # What an earlier run wrote stays recorded, also if this one writes less.
    if not record.exists() or set(sets) - recorded_sets:
        write_json(record, _identity(size, seed, recorded_sets | set(sets)))


def _identity(size: int, seed: int, sets: Collection[str]) -> dict[str, Any]:
    """Return all that determines a world's pixels.

    Without test sets these are the values of versions that had none, so that their worlds are completed.
    """
    facts = {"world": "drawn", "version": WORLD_VERSION, "size": size, "seed": seed, "images": world_counts(sets)}
    facts |= {"shifts_version": SHIFTS_VERSION} if set(sets) & set(SHIFT_SETS) else {}
    return facts | ({"clips_version": CLIPS_VERSION} if set(sets) & set(CLIP_SETS) else {})


def _recorded_sets(out: Path, size: int, seed: int) -> set[str]:
    """Return the sets that a folder's record names.

    Raises:
        UserError: they are not of this world.
    """
    try:
        recorded = json.loads((out / WORLD_FILE).read_bytes())
    except ValueError:
        recorded = None
    recorded = recorded if isinstance(recorded, dict) else {}
    images = recorded.get("images")
    sets = set(images) & set(_ALL_SETS) if isinstance(images, dict) else set()
    require_owner(
        out,
        recorded=recorded,
        identity=_identity(size, seed, sets or WORLD_SETS),  # a record without sets is none that a run wrote
        other="a world of another seed or size, or of another version",
        advice="give another folder",
    )
    return sets
