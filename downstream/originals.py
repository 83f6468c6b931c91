"""Whether the originals of a gap report are the images that its data sets were made of, by their checksums."""

import hashlib
import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

from basics.errors import UserError
from basics.progress import progress, say
from downstream.testset import TestSet
from pipeline.dataset.ledger import SAMPLES, Ledger
from sources.tar.scanning import scan_tars

_READERS = 8
"""Threads that read originals: hashing and reading wait for each other otherwise."""
_FIELD = "source_sha256"
_SHOWN = 12
"""How many digits of a checksum a message shows."""


def require_made_of(original: TestSet, reconstructed: TestSet, advbn: TestSet, ledger: Ledger) -> None:
    """Refuse originals, or reconstructions of originals, that are not the images that a data set was made of.

    Every original is read once.

    Args:
        original: the originals.
        reconstructed: the same samples, reconstructed.
        advbn: the same samples, perturbed.
        ledger: the ledger of `advbn`.

    Raises:
        UserError: see above; or an original cannot be read.
    """
    digests = ledger.columns[f"{SAMPLES}/{_FIELD}"]
    expected = {key: bytes(digest).hex() for key, digest in zip(ledger.keys, digests, strict=True)}
    _require_one_run(reconstructed, advbn, expected)
    with progress("originals", len(original.records), "images") as advance, ThreadPoolExecutor(_READERS) as pool:
        found = pool.map(lambda index: _checksum(original, index), range(len(original.records)))
        try:
            for record, key, sha256 in zip(original.records, original.keys, found, strict=True):
                if sha256 != expected[key]:
                    raise UserError(
                        f"The original {record.name} in {original.source.address} is not the file that the sample "
                        f"{key} of {advbn.source.address} was made of (its SHA-256 begins with {sha256[:_SHOWN]}, not "
                        f"{expected[key][:_SHOWN]}); give the files that the data set was made of as --original. "
                        "Images that were encoded or resized anew are others, also if they look the same."
                    )
                advance()
        finally:
            # After a refusal, do not read the others.
            pool.shutdown(cancel_futures=True)


def _checksum(data: TestSet, index: int) -> str:
    record = data.records[index]
    try:
        return hashlib.sha256(data.source.read(record)).hexdigest()
    except OSError as error:
        raise UserError(
            f"The original {record.name} in {data.source.address} cannot be read ({error.strerror or error}); check it."
        ) from error


def _require_one_run(reconstructed: TestSet, advbn: TestSet, expected: Mapping[str, str]) -> None:
    """Refuse reconstructions of other originals; those of versions that did not record them with a notice.

    Raises:
        UserError: see above.
    """
    wanted, unknown = set(reconstructed.keys), 0
    tars = [reconstructed.folder / entry["file"] for entry in reconstructed.own_manifest.shards]
    for _, file, member in scan_tars(tars):
        key, _, kind = member.name.partition(".")
        if kind != "json" or key not in wanted:
            continue
        sha256 = json.loads(file.read(member.offset, member.size)).get(_FIELD)
        if sha256 is None:
            unknown += 1
        elif sha256 != expected[key]:
            raise UserError(
                f"The sample {key} of {reconstructed.source.address} was made of another original than that of "
                f"{advbn.source.address}; give the two folders of one run."
            )
    if unknown:
        say(
            f"{unknown} samples of {reconstructed.source.address} do not say which originals they were made of, so "
            "these were not compared."
        )
