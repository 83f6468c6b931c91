"""A training run's folder: whose it is, what may change when the run goes on, and its metric lines."""

import json
import math
import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from basics.differences import differences
from basics.errors import UserError
from basics.files import write_json, write_text

CHECKPOINT = "checkpoint.pt"
METRICS = "metrics.jsonl"
SETTINGS = "settings.json"

ADDRESSES = ("source", "encoder_weights")
"""Facts that say where something is; checksums beside them say what it is."""
_CHANGE_NO_WEIGHT = ("loaders", "checkpoint_every")


def claim_folder(out: Path, settings: Mapping[str, Any]) -> None:
    """Make `out` the folder of a run with these settings.

    Raises:
        UserError: it holds a run with settings that would have given other weights; the differences are listed.
    """
    path = out / SETTINGS
    now = json.loads(json.dumps(settings))
    if path.exists():
        try:
            changed = _changed(json.loads(path.read_text()), now)
        except (ValueError, KeyError) as error:
            raise UserError(f"The file {path} is damaged; start anew with --overwrite.") from error
        if changed:
            raise UserError(
                f"The folder {out} holds another run ({'; '.join(changed)}); "
                "give another --out, or --overwrite to start anew."
            )
    write_json(path, now)


def _changed(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return how `now` differs, without what changes no weight or may grow when the run goes on."""
    free = set(_CHANGE_NO_WEIGHT)
    if now["training"]["schedule"] == "constant" and before["training"]["epochs"] <= now["training"]["epochs"]:
        free.add("epochs")
    return differences(*(_without(settings, free) for settings in (before, now)))


def _without(settings: Mapping[str, Any], free: Collection[str]) -> dict[str, Any]:
    told = {name: value for name, value in settings.items() if name not in ADDRESSES}
    return {**told, "training": {name: value for name, value in told["training"].items() if name not in free}}


def is_first_process(devices: int) -> bool:
    """Whether this is the process that speaks and tidies up: Fabric starts the others with the same command."""
    # Alone it is the first, whatever a job scheduler left in the variable.
    return devices == 1 or os.environ.get("LOCAL_RANK", "0") == "0"


def forget_run(out: Path) -> None:
    """Remove the loop's own files from a run folder, so that a run starts anew there."""
    for name in (CHECKPOINT, METRICS, SETTINGS):
        (out / name).unlink(missing_ok=True)


def drop_metrics_after(path: Path, done: int) -> None:
    """Forget lines of steps that the checkpoint does not have: they are made again."""
    if path.exists():
        lines = [line for line in path.read_text().splitlines() if _step(line) <= done]
        write_text(path, "".join(f"{line}\n" for line in lines))


def _step(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError):
        return math.inf  # cut by a kill; its step is made again
