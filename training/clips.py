"""Clips to train and to measure on: every one is decoded once before work starts, and always shown as it is."""

from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from basics.errors import UserError
from basics.progress import Advance, counted, progress, say
from sources.base import ImageRecord, Source
from sources.clip_cache import ClipCache, lock_cache, open_cache
from sources.clips import BrokenClipError, ClipView, decode_clip
from training.config import TrainingConfig
from training.data import CACHE_BYTES, TrainingImages, chosen_records
from training.order import Composition

_SHOWN = 3
"""How many broken clips a notice names."""
_AT_ONCE = 32
"""Clips that are decoded before those that were decoded are written."""


class TrainingClips(TrainingImages):
    """Labelled 8-bit clips (3, T, S, S) of a source. They are not varied, as in the published code.

    Args:
        source: where the clips are.
        view: number and size of their frames.
        records: the clips to take; None takes all.
        cache: where they are stored decoded; without, those that are not kept in memory are decoded when used.
    """

    def __init__(
        self,
        source: Source,
        view: ClipView,
        *,
        records: Sequence[ImageRecord] | None = None,
        cache: ClipCache | None = None,
    ) -> None:
        self.clip_view, self.cache = view, cache
        super().__init__(source, view.size, records=records)

    @property
    def image_bytes(self) -> int:
        """Bytes of a clip's pixels."""
        return 3 * self.clip_view.frames * self.clip_view.size**2

    def keep(self, clips: Sequence[Tensor]) -> None:
        """Take decoded clips, one for each record, into memory."""
        self._kept.update(enumerate(clips))

    def stored(self) -> set[ImageRecord]:
        """Return the records of the clips that the cache holds."""
        return set() if self.cache is None else self.cache.stored(self.records)

    def read(self, record: ImageRecord) -> Tensor:
        """Return a clip from the cache, or decode it.

        Raises:
            WorkError: it cannot be decoded, or the cache is damaged.
            OSError: it cannot be read.
        """
        if self.cache is not None:
            return self.cache.read(record)
        return decode_clip(self.source.read(record), record.name, self.clip_view)

    def _decoded(self, index: int) -> Tensor:
        if index not in self._kept:
            clip = self.read(self.records[index])
            if not self._keep:
                return clip
            self._kept[index] = clip
        return self._kept[index]


def training_clips(  # noqa: PLR0913 (two data sets, and how each is prepared)
    source: Source,
    held_out: Source | None,
    config: TrainingConfig,
    *,
    frames: int,
    limit: int | None = None,
    held_out_limit: int | None = None,
    cache: Path | None = None,
) -> tuple[TrainingClips, TrainingClips]:
    """Return the clips of a source to train on, and those to measure on: of another source, or kept back.

    Args:
        source: the training clips.
        held_out: what to measure on; None keeps one in twenty of the training clips back.
        config: batch size, image size and seed.
        frames: frames of each clip.
        limit: only so many training clips, evenly spread (and those kept back are among them).
        held_out_limit: at most so many of `held_out`, evenly spread.
        cache: file of the decoded clips of both; it is made if it is not there.

    Raises:
        UserError: there is not one batch of them, none can be decoded, or the cache does not fit.
    """
    records, held_records = chosen_records(source, held_out, config.seed, limit, held_out_limit)
    view = ClipView(frames=frames, size=config.image_size)
    sets = [(source, records), (held_out or source, held_records)]
    # Before all are decoded, and without the broken ones.
    Composition(own=len(records)).require_batches(config.batch_size, source.address, "clips")
    training, measured = _decoded_sets(sets, view, cache)
    training.composition.require_batches(config.batch_size, source.address, "clips")
    return training, measured


def decoded_clips(
    source: Source, records: Sequence[ImageRecord], view: ClipView, cache: Path | None = None
) -> TrainingClips:
    """Return some clips of a source: all that can be decoded; a notice names the others.

    Args:
        source: where the clips are.
        records: some of its records.
        view: number and size of their frames.
        cache: file of decoded clips; it is made if it is not there.

    Raises:
        UserError: none can be decoded, one cannot be read, or the cache does not fit.
    """
    (clips,) = _decoded_sets([(source, records)], view, cache)
    return clips


def _decoded_sets(
    sets: Sequence[tuple[Source, Sequence[ImageRecord]]], view: ClipView, path: Path | None
) -> list[TrainingClips]:
    caches: Sequence[ClipCache | None] = [None] * len(sets) if path is None else open_cache(path, view, sets)
    every = [
        TrainingClips(source, view, records=records, cache=cache)
        for (source, records), cache in zip(sets, caches, strict=True)
    ]
    total = sum(map(len, every))
    with ExitStack() as stack:
        # Only a run that may add clips locks the file: others may read it where it cannot be written.
        if path is not None and sum(len(clips.stored()) for clips in every) < total:
            stack.enter_context(lock_cache(path))
        # Another run may have added some meanwhile.
        stored = [clips.stored() for clips in every]
        advance = stack.enter_context(progress("decode", total, "clips", done=sum(map(len, stored))))
        return [_decoded_set(clips, known, advance) for clips, known in zip(every, stored, strict=True)]


def _decoded_set(clips: TrainingClips, stored: set[ImageRecord], advance: Advance) -> TrainingClips:
    """Return those of some clips that can be decoded: kept, if they fit in memory, and added to the cache.

    Args:
        clips: all of them.
        stored: records of those that the cache holds.
        advance: called with the number of other clips that are done.

    Raises:
        UserError: none can be decoded, or one cannot be read.
    """
    keep = len(clips) * clips.image_bytes <= CACHE_BYTES
    if not keep and clips.cache is None:
        size = len(clips) * clips.image_bytes / 2**30
        say(f"The clips take {size:.1f} GiB decoded, too much to keep: each is decoded when used. --cache stores them.")
    whole: dict[ImageRecord, Tensor | None] = {}
    broken: list[BrokenClipError] = []
    with _decoders() as pool:
        for start in range(0, len(clips), _AT_ONCE):
            part = clips.records[start : start + _AT_ONCE]
            found = dict(zip(part, pool.map(partial(_attempt, clips, stored, keep=keep), part), strict=True))
            new = {record: clip for record, clip in found.items() if isinstance(clip, Tensor) and record not in stored}
            if clips.cache is not None and new:
                clips.cache.write(new)
            for record, clip in found.items():
                if isinstance(clip, BrokenClipError):
                    broken.append(clip)
                else:
                    whole[record] = clip if keep else None
            if not stored.issuperset(part):
                advance(len(part) - len(stored.intersection(part)))
    _notice_broken(broken, len(clips), clips.source.address)
    decoded = TrainingClips(clips.source, clips.clip_view, records=list(whole), cache=clips.cache)
    decoded.keep([clip for clip in whole.values() if clip is not None])
    return decoded


@contextmanager
def _decoders() -> Iterator[ThreadPoolExecutor]:
    pool = ThreadPoolExecutor(torch.get_num_threads())
    try:
        yield pool
    finally:
        # On an interruption, stop after the clips in work.
        pool.shutdown(cancel_futures=True)


def _attempt(
    clips: TrainingClips, stored: Collection[ImageRecord], record: ImageRecord, *, keep: bool
) -> Tensor | BrokenClipError | None:
    """Return a clip, why it cannot be decoded, or None if it is stored and need not be in memory.

    Raises:
        UserError: it cannot be read.
    """
    try:
        if record in stored:
            return clips.read(record) if keep else None
        return decode_clip(clips.source.read(record), record.name, clips.clip_view)
    except BrokenClipError as error:
        return error
    except OSError as error:
        raise UserError(
            f"The clip {record.name} of {clips.source.address} cannot be read ({error.strerror or error}); check it."
        ) from error


def _notice_broken(broken: Sequence[BrokenClipError], count: int, where: str) -> None:
    """Name clips that cannot be decoded; refuse a set of which that is all.

    Raises:
        UserError: see above.
    """
    if not broken:
        return
    if len(broken) == count:
        raise UserError(f"None of the {counted(count, 'clip')} of {where} can be used ({broken[0]}); give others.")
    more = f" ... and {len(broken) - _SHOWN} more." if len(broken) > _SHOWN else ""
    shown = " ".join(str(each) for each in broken[:_SHOWN])
    say(f"Left out of {where}: {len(broken)} of {counted(count, 'clip')}. {shown}{more}")
