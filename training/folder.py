"""A training run's folder: whose it is, what may change when the run goes on, and its metric lines."""

import json
import os
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from operator import eq
from pathlib import Path
from typing import Any

from basics.errors import UserError
from basics.files import write_json, write_text
from basics.ownership import lock_folder, occupied_folder_error, require_owner
from basics.progress import say
from basics.reading import unreadable

CHECKPOINT = "checkpoint.pt"
METRICS = "metrics.jsonl"
CURVES = "curves.png"
SETTINGS = "settings.json"

ADDRESSES = ("source", "encoder_weights")
"""Facts that are paths or addresses, which may change; checksums beside them identify the content."""
CONTENT = "content"
"""Entry of the settings with state checksums of training and held-out images (see `sources.content`)."""
CONTENT_PARTS = 32
"""How many checksums either kind of images has; files are dealt out to them, so that few files change few of them."""
_FEW = 1 / 4
"""Share of the checksums that may change, as files do that are mended. If all images were made anew, all of them do."""
_CHANGE_NO_WEIGHT = ("loaders", "checkpoint_every")


@contextmanager
def lock_run_folder(
    out: Path, settings: Mapping[str, Any], outputs: Sequence[Path], *, devices: int, overwrite: bool
) -> Iterator[None]:
    """Hold a run folder for one run with these settings.

    Only the first process does: it starts the others when the folder is its own.

    Args:
        out: run folder.
        settings: the run's identity, with its training settings under `training`.
        outputs: files and folders that the run writes beside the loop's own.
        devices: how many processes share the run.
        overwrite: remove the files of an earlier run.

    Raises:
        UserError: another run holds the folder or left it, or it cannot be written.
    """
    if not is_first_process(devices):
        yield
        return
    with lock_folder(out):
        require_free(out, [out / name for name in (CHECKPOINT, METRICS, CURVES)] + list(outputs))
        if overwrite:
            _settings(out / SETTINGS, overwrite=True)
            remove_run(out, outputs)
        claim_folder(out, settings)
        yield


def require_own_so_far(out: Path, settings: Mapping[str, Any], *, unknown: Collection[str]) -> None:
    """Refuse a folder of a run with other settings, before all settings of this one are known.

    Args:
        out: run folder.
        settings: what is known of the run's settings, as in `claim_folder`.
        unknown: names of those that are not known yet.

    Raises:
        UserError: it holds a run with other settings, or settings that are damaged.
    """
    before = _settings(out / SETTINGS)
    if before is None:
        return
    now = json.loads(json.dumps(settings))
    before = {name: value for name, value in before.items() if name not in unknown}
    require_owner(out, recorded=_identity(before, now), identity=_identity(now, now))


def require_free(out: Path, paths: Sequence[Path]) -> None:
    """Make sure that a folder that holds no run has no file either that a run would write over.

    Raises:
        UserError: see above.
    """
    if (out / SETTINGS).exists():
        return
    there = next((path.name for path in paths if path.exists()), None)
    if there is not None:
        raise occupied_folder_error(out, f"a {there}, but no run that left it")


def claim_folder(out: Path, settings: Mapping[str, Any]) -> None:
    """Make `out` the folder of a run with these settings.

    Raises:
        UserError: it holds a run with settings that would have given other weights; the differences are listed. Or a
            run that has made steps on other images.
    """
    path = out / SETTINGS
    now = json.loads(json.dumps(settings))
    before = _settings(path)
    if before == now:
        return
    recorded = None if before is None else _identity(before, now)
    require_owner(out, recorded=recorded, identity=_identity(now, now))
    if before is not None and (out / CHECKPOINT).exists():
        _require_same_images(out, before.get(CONTENT), now.get(CONTENT, {}))
        if CONTENT in before:
            # Those of the beginning: otherwise all images could change, a few at a time.
            now[CONTENT] = before[CONTENT]
    write_json(path, now)


def _require_same_images(out: Path, before: Mapping[str, list[str]] | None, now: Mapping[str, list[str]]) -> None:
    """Refuse to go on with a run whose images have changed since; few may, as a broken file may be mended.

    Raises:
        UserError: see above.
    """
    if before is None:
        if any(now.values()):
            say(
                f"The run in {out} has no checksum of the files that it began with (an earlier version began it, or it "
                "was removed), so that a change of these since then is not noticed; --overwrite starts anew."
            )
        return
    for kind, present in now.items():
        known = before.get(kind, [])
        if not known or not present:
            continue
        alike = len(known) == len(present) and sum(map(eq, known, present))
        changed = len(present) - alike
        if changed > _FEW * len(present):
            raise UserError(
                f"The folder {out} holds a run on other {kind} images: their files had other sizes or times. Start "
                "anew with --overwrite; if they are the same images, copied without their times or mended, remove the "
                f'entry "{CONTENT}" from {out / SETTINGS}, and the run goes on.'
            )
        if changed:
            say(f"A few {kind} images have changed since the run in {out} was begun; it goes on with them as they are.")


def _settings(path: Path, *, overwrite: bool = False) -> dict[str, Any] | None:
    """Return the settings of an earlier run; None if there are none, or damaged ones that are to be overwritten.

    Raises:
        UserError: they cannot be read, are damaged, or are another program's, which is never overwritten.
    """
    if not path.exists():
        return None
    try:
        settings: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        settings["training"]["schedule"]
    except OSError as error:
        raise unreadable(path, error) from error
    except ValueError as error:
        if overwrite:
            return None
        raise UserError(f"The file {path} is damaged; restore it, or start anew with --overwrite.") from error
    except (KeyError, TypeError) as error:
        raise occupied_folder_error(path.parent, f"a {path.name} that is not of a training") from error
    return settings


def _identity(settings: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings without those that change no weight. Epochs do only where the schedule ends with them."""
    free = {*_CHANGE_NO_WEIGHT, *(() if now["training"]["schedule"] == "cosine" else ("epochs",))}
    identity = {name: value for name, value in settings.items() if name not in {*ADDRESSES, CONTENT}}
    training = {name: value for name, value in identity["training"].items() if name not in free}
    return {**identity, "training": training}


def is_first_process(devices: int) -> bool:
    """Whether this is the process that prints and writes: Fabric starts the others with the same command."""
    # A single process is the first, whatever a job scheduler has set the variable to.
    return devices == 1 or os.environ.get("LOCAL_RANK", "0") == "0"


def remove_run(out: Path, outputs: Sequence[Path]) -> None:
    """Remove a run's own files from its folder, and nothing else, so that a run starts anew there."""
    for path in (*(out / name for name in (CHECKPOINT, METRICS, SETTINGS)), *outputs):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def drop_metrics_after(path: Path, done: int, ended: int) -> None:
    """Drop lines of steps and of epoch ends that are not in the checkpoint, because those are repeated."""
    if path.exists():
        lines = [line for line in path.read_text(encoding="utf-8").splitlines() if _is_kept(line, done, ended)]
        write_text(path, "".join(f"{line}\n" for line in lines))


def _is_kept(line: str, done: int, ended: int) -> bool:
    try:
        values = json.loads(line)
        return bool(values["step"] <= done and ("loss" in values or values["epoch"] <= ended))
    except (ValueError, KeyError):
        return False  # the process was killed while writing it; its step is repeated
