"""Per-sample results in a folder: reused if complete, continued if not, and never mixed with other results.

A result belongs to a pair of a condition and a model: the condition is a data set (`score`, `report gap`, `evaluate`),
or an attack on test images (`abnn attack`). A result has a row of JSON values, and values for each sample. `pair` in
the row is a checksum over its identity: everything that distinguishes it from another result of the same names.

The store decides and writes. A layout defines how rows and samples are stored in files; there are three:

predictions.h5   rows and samples in one HDF5 file           `downstream.predictions`
predictions/     the same with a file for each data set      `downstream.prediction_folder`
samples.h5       samples; rows are in results.jsonl alone    `abnn.results`

In all of them `results.jsonl` has a line for each row. Every file is replaced atomically.
"""

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from basics.errors import UserError
from basics.files import digest_json, write_text
from basics.ownership import Owner, lock_folder, occupied_folder_error, owner_of, require_owner
from basics.progress import counted, say
from basics.reading import cannot_be_read, unreadable

RESULTS = "results.jsonl"
PREDICTIONS, PREDICTION_FOLDER, SAMPLES = "predictions.h5", "predictions", "samples.h5"
_COMMANDS = {PREDICTIONS: "`score` and `report gap`", PREDICTION_FOLDER: "`evaluate`", SAMPLES: "`abnn attack`"}
"""Name of a layout's file or folder -> the commands that use the layout."""

CONTENT = "data_content"
"""Field of rows: state checksum of the images, see `sources.content`. It identifies nothing, since files may be copied,
and layouts keep it with the samples."""

_NAMES_SHOWN = 4
"""How many data sets a message names."""

Row = dict[str, Any]
Key = tuple[str, str]
"""Names that a result is kept under: (condition, model)."""


def model_name(row: Mapping[str, Any]) -> str:
    """Return the name that a model's results are kept under, with the batch-norm set where it has two."""
    which = row.get("batch_norm")
    name = str(row["model"])
    return name if which is None else f"{name} ({which} batch norm)"


def key_of(row: Mapping[str, Any]) -> Key:
    """Return the names that a result is kept under; the condition is the attack, or else the data set."""
    return str(row["attack"] if "attack" in row else row["data"]), model_name(row)


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """A result that a command wants, before it has values."""

    identity: Mapping[str, Any]
    """Everything that distinguishes it from other results of the same names, as JSON values."""
    more: Mapping[str, Any] = field(default_factory=dict)
    """Other fields of its row."""

    @cached_property
    def row(self) -> Row:
        """The row before the result has values."""
        return {**self.identity, "pair": digest_json(self.identity), **self.more}

    @cached_property
    def key(self) -> Key:
        """The names that it is kept under."""
        return key_of(self.row)


@dataclass(frozen=True, kw_only=True)
class ComparisonKey:
    """Fields that must be equal in all results of a group in a folder, so that the results can be compared."""

    group: str
    """Field of the rows by which they are grouped: `data` or `model`."""
    fields: tuple[str, ...]
    """Names of the fields."""
    described: str
    """Description of results with other values for messages, with `{}` for the group's name."""
    replaced: bool
    """Whether overwriting drops the rows with other values. If not, they must be among those that are overwritten."""
    advice: str
    """End of the message that refuses results with other values: what the user can do."""


class Results(Protocol):
    """Results that are written at once; the layout that takes them knows their samples."""

    @property
    def rows(self) -> Sequence[Row]:
        """The row of each."""
        ...

    @property
    def complete(self) -> bool:
        """Whether every sample has its value."""
        ...


AnyResults = TypeVar("AnyResults", bound=Results)
WrittenResults_contra = TypeVar("WrittenResults_contra", bound=Results, contravariant=True)


class Layout(Protocol[WrittenResults_contra]):
    """How rows and samples are stored in a folder's files."""

    @property
    def path(self) -> Path:
        """The file or folder that holds the samples."""
        ...

    @property
    def sort_keys(self) -> bool:
        """Whether the keys of a line in `results.jsonl` are in alphabetical order."""
        ...

    def rows(self) -> list[Row]:
        """Return the row of every complete result.

        Raises:
            UserError: the files are not of this program.
            OSError, ValueError, KeyError, TypeError: they are damaged.
        """
        ...

    def write(self, results: WrittenResults_contra) -> None:
        """Write samples, and rows if they are stored with the samples, replacing those of the same names."""
        ...


class ResultStore(Generic[AnyResults]):
    """The results in a folder that no other run writes to (see `opened_store`)."""

    def __init__(
        self,
        layout: Layout[AnyResults],
        comparison: ComparisonKey,
        lines: Callable[[Iterable[Row]], Iterable[Row]] = iter,
    ) -> None:
        self.folder, self._layout, self._comparison, self._lines = layout.path.parent, layout, comparison, lines
        try:
            self.rows: dict[Key, Row] = {_checked_key(row): row for row in layout.rows()}
        except (OSError, ValueError, KeyError, TypeError) as error:
            if isinstance(error, OSError) and cannot_be_read(error):
                raise unreadable(layout.path, error) from error
            raise UserError(
                f"The results in {self.folder} are damaged ({error}); restore them, move them away to make them again, "
                "or give another --out."
            ) from error

    def missing(self, wanted: Sequence[Wanted], *, overwrite: bool, derived: Collection[Key] = ()) -> list[Wanted]:
        """Return the wanted results that have to be computed; the others are complete.

        Args:
            wanted: all that a command wants of this folder.
            overwrite: compute all of them, and replace results of the same names.
            derived: names of results that will be computed again from the wanted ones.

        Raises:
            UserError: without `overwrite`, another result has the same names, or images have changed since results
                that are not wanted now; or the folder holds results that cannot be compared with the wanted ones.
        """
        if not overwrite:
            for each in wanted:
                self._refuse_other_result(each)
        self._refuse_incomparable(wanted, {*derived, *(each.key for each in wanted)}, overwrite=overwrite)
        known = set() if overwrite else self.rows.keys() - self._of_other_images(wanted, derived)
        missing = [each for each in wanted if each.key not in known]
        if len(missing) < len(wanted):
            say(_reuse_message(len(wanted) - len(missing), wanted))
        return missing

    def _of_other_images(self, wanted: Sequence[Wanted], derived: Collection[Key]) -> set[Key]:
        """Return which of the wanted results are of images that have changed since; a notice says so.

        Raises:
            UserError: results that are not wanted are of such images, too. They would be dropped, and nothing that
                was computed is lost without being asked for.
        """
        found = [(str(each.row["data"]), key) for each in wanted for key in self._stale(each.row)]
        names, stale = list(dict.fromkeys(name for name, _ in found)), {key for _, key in found}
        if stale:
            shown = ", ".join(names[:_NAMES_SHOWN])
            more = f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
            fault = (
                f"The images of {shown}{more} have other sizes or times than when {counted(len(stale), 'result')} in "
                f"{self.folder} were computed"
            )
            others = sorted(stale - {*derived, *(each.key for each in wanted)})
            if others:
                condition, model = others[0]
                raise UserError(
                    f"{fault}, of which this command does not compute {len(others)} again (such as {model}, "
                    f"{condition}); give those with it, give another --out, or --overwrite to drop them."
                )
            say(f"{fault}; those are computed again.")
        unknown = [
            each
            for each in wanted
            if each.row.get(CONTENT) and each.key in self.rows and not self.rows[each.key].get(CONTENT)
        ]
        if unknown:
            say(
                f"An earlier version wrote {counted(len(unknown), 'result')} in {self.folder} without a checksum "
                "of the images' files, so that a change of these is not noticed; --overwrite computes them again."
            )
        return stale

    def _stale(self, row: Row) -> list[Key]:
        """Return the names of the results of the same group that are of images which have changed since."""
        group = self._comparison.group
        return [key for key, other in self.rows.items() if other[group] == row[group] and images_changed(other, row)]

    def _refuse_other_result(self, wanted: Wanted) -> None:
        before = self.rows.get(wanted.key)
        if before is None or before["pair"] == wanted.row["pair"]:
            return
        condition, model = wanted.key
        recorded: Row = {name: before.get(name) for name in wanted.identity}
        identity = wanted.identity
        if owner_of(recorded=recorded, identity=identity) is Owner.THIS_RUN:
            # Another version may have had more or fewer fields in the identity: then only the checksums differ.
            recorded, identity = {"pair": before["pair"]}, {"pair": wanted.row["pair"]}
        require_owner(
            self.folder,
            recorded=recorded,
            identity=identity,
            other=f"another result of {model} {'under' if 'attack' in wanted.row else 'on'} {condition}",
            advice="give another --out, or --overwrite to replace it",
        )

    def _refuse_incomparable(self, wanted: Sequence[Wanted], replaced: Collection[Key], *, overwrite: bool) -> None:
        if overwrite and self._comparison.replaced:
            return
        for each in wanted:
            others = [row for row in self._incomparable(each.row) if key_of(row) not in replaced]
            if others:
                group = each.row[self._comparison.group]
                before, now = ({name: row[name] for name in self._comparison.fields} for row in (others[0], each.row))
                require_owner(
                    self.folder,
                    recorded=before,
                    identity=now,
                    other=f"results {self._comparison.described.format(group)}",
                    advice=self._comparison.advice,
                )

    def _incomparable(self, row: Row) -> list[Row]:
        """Return the rows of the same group whose comparison key has other values."""
        group, fields = self._comparison.group, self._comparison.fields
        return [
            other
            for other in self.rows.values()
            if other[group] == row[group] and any(other[name] != row[name] for name in fields)
        ]

    def add(self, results: AnyResults) -> None:
        """Write results, replacing those of the same names, and drop results that cannot be compared with them.

        Of an incomplete result only the samples are kept, so that a later run continues with them: it has no row.
        """
        # Old rows are removed first: a run that is killed in between must not leave one beside half-replaced samples.
        stale = [
            key
            for row in results.rows
            for key in (key_of(row), *map(key_of, self._incomparable(row)), *self._stale(row))
        ]
        self.drop(stale)
        self._layout.write(results)
        if results.complete:
            self.rows |= {key_of(row): row for row in results.rows}
            self.write_rows()

    def replace_row(self, row: Row) -> None:
        """Replace a result's row, in a layout whose rows are in `results.jsonl` alone."""
        self.rows[key_of(row)] = row
        self.write_rows()

    def drop(self, keys: Iterable[Key]) -> None:
        """Remove rows from `results.jsonl`, if it has them."""
        stale = [key for key in dict.fromkeys(keys) if key in self.rows]
        for key in stale:
            del self.rows[key]
        if stale:
            self.write_rows()

    def write_rows(self) -> None:
        """Write `results.jsonl`."""
        lines = self._lines([self.rows[key] for key in sorted(self.rows)])
        text = "".join(f"{json.dumps(without_content(line), sort_keys=self._layout.sort_keys)}\n" for line in lines)
        write_text(self.folder / RESULTS, text)


@contextmanager
def opened_store(
    layout: Layout[AnyResults],
    comparison: ComparisonKey,
    lines: Callable[[Iterable[Row]], Iterable[Row]] = iter,
) -> Iterator[ResultStore[AnyResults]]:
    """Hold a folder of results for one run, and read its results.

    Args:
        layout: how results are stored in the folder.
        comparison: fields that must be equal in results that are kept in one folder.
        lines: rows -> lines of `results.jsonl`, which may include summaries.

    Raises:
        UserError: another run writes to the folder, it cannot be written, or its files are damaged or of another
            command.
    """
    folder = layout.path.parent
    _refuse_other_layout(layout.path)
    _refuse_other_file(layout.path)
    # Held before the results are read: what another run adds must not be lost.
    with lock_folder(folder):
        yield ResultStore(layout, comparison, lines)


def without_content(row: Row) -> Row:
    """Return a row as `results.jsonl` has it: the state checksum of the images is kept with the samples."""
    return {name: value for name, value in row.items() if name != CONTENT}


def images_changed(before: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Return whether two rows are of images with other sizes or times, as far as both say."""
    checksums = before.get(CONTENT), now.get(CONTENT)
    return all(checksums) and checksums[0] != checksums[1]


def _reuse_message(reused: int, wanted: Sequence[Wanted]) -> str:
    """Return the message on results that are complete: pairs of model and data set, or attacks on networks."""
    if any("attack" in each.row for each in wanted):
        return f"{reused} of {len(wanted)} results are in the folder already; --overwrite computes them again."
    return f"{reused} of {len(wanted)} pairs were scored before; --overwrite scores them again."


def _checked_key(row: Mapping[str, Any]) -> Key:
    """Return the names that a stored row is kept under.

    Raises:
        KeyError: it has no names, or no checksum of its identity.
    """
    if "pair" not in row:
        raise KeyError("pair")
    return key_of(row)


def _refuse_other_file(path: Path) -> None:
    """Refuse a folder whose `results.jsonl` is not of this program, as it would be written over.

    Raises:
        UserError: see above.
    """
    results = path.parent / RESULTS
    if path.exists() or not results.is_file():
        return
    try:
        names = [key_of(json.loads(line)) for line in results.read_text(encoding="utf-8").splitlines()]
    except OSError as error:
        raise unreadable(results, error) from error
    except (ValueError, KeyError, TypeError, AttributeError):
        names = []
    if not names:
        raise occupied_folder_error(path.parent, f"a {RESULTS} that is not of this program")


def _refuse_other_layout(path: Path) -> None:
    """Refuse a folder with results in another layout: `results.jsonl` would be written without them.

    Raises:
        UserError: see above.
    """
    other = next((name for name in _COMMANDS if name != path.name and (path.parent / name).exists()), None)
    if other is not None:
        beside = f"{_COMMANDS[path.name]} would write {path.name} beside it"
        raise occupied_folder_error(path.parent, f"{other} of another command ({_COMMANDS[other]}; {beside})")
