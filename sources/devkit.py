"""The ILSVRC2012 devkit: which class each of the 50,000 validation images has.

Its ground truth numbers the classes by ILSVRC2012_ID, 1 to 1000, which is *not* the index that classifiers
use (that one follows the sorted wnids); `meta.mat` holds the wnid of each ID.
"""

import io
import tarfile
from collections.abc import Sequence

from basics.errors import UserError
from basics.paths import AnyPath
from basics.reading import exists, is_folder, read_bytes
from sources.classes import imagenet_index

GROUND_TRUTH = "ILSVRC2012_validation_ground_truth.txt"
_META = "meta.mat"
_NAMES = ("ILSVRC2012_devkit_t12", "ILSVRC2012_devkit_t12.tar.gz", "ILSVRC2012_devkit_t12.tar")


def find_devkit(folders: Sequence[AnyPath]) -> AnyPath | None:
    """Return the first devkit, unpacked or not, that lies in one of the folders."""
    return next((folder / name for folder in folders for name in _NAMES if exists(folder / name)), None)


def is_devkit(path: AnyPath) -> bool:
    """Return whether a path given for labels is a devkit: a folder or a tar."""
    return is_folder(path) or path.name.endswith((".tar", ".tar.gz", ".tgz"))


def read_devkit(path: AnyPath) -> list[str]:
    """Return the wnid of each validation image, in the order of their numbers.

    Args:
        path: The devkit's folder (or its `data`) or its archive.

    Raises:
        UserError: it is incomplete or damaged, or SciPy, which reads `meta.mat`, is not installed.
    """
    try:
        truth, meta = (_folder_files if is_folder(path) else _archive_files)(path)
    except (OSError, EOFError, tarfile.TarError) as error:
        raise UserError(f"The devkit {path} cannot be read ({error}); download it again.") from error
    wnids = _parse_meta(meta, path)
    lines = truth.decode("ascii", "replace").split()
    wrong = next((number for number, line in enumerate(lines, 1) if line not in wnids), None)
    if wrong is not None or not lines:
        raise UserError(
            f"Line {wrong or 1} of {GROUND_TRUTH} in the devkit {path} is not an ILSVRC2012_ID of an "
            f"ImageNet-1k class; download it again."
        )
    return [wnids[line] for line in lines]


def _folder_files(folder: AnyPath) -> tuple[bytes, bytes]:
    for data in (folder, folder / "data", folder / _NAMES[0] / "data"):
        if exists(data / GROUND_TRUTH):
            return read_bytes(data / GROUND_TRUTH), read_bytes(data / _META)
    raise UserError(f"The folder {folder} is no ILSVRC2012 devkit: it has no data/{GROUND_TRUTH}; give another.")


def _archive_files(archive: AnyPath) -> tuple[bytes, bytes]:
    found: dict[str, bytes] = {}
    with tarfile.open(fileobj=io.BytesIO(read_bytes(archive))) as tar:
        for member in tar:
            name = member.name.rpartition("/")[2]
            file = tar.extractfile(member) if name in {GROUND_TRUTH, _META} else None
            if file is not None:
                found[name] = file.read()
    if len(found) < 2:
        raise UserError(
            f"The archive {archive} is no ILSVRC2012 devkit: it lacks {GROUND_TRUTH} or {_META}; give another."
        )
    return found[GROUND_TRUTH], found[_META]


def _parse_meta(content: bytes, path: AnyPath) -> dict[str, str]:
    """Return the wnid of each ILSVRC2012_ID, written as in the ground truth, for the ImageNet-1k classes."""
    try:
        from scipy.io import loadmat
    except ImportError as error:
        raise UserError(
            f"Reading {_META} of the devkit {path} needs SciPy, which is not installed; "
            f"run `pip install scipy` or give another label list."
        ) from error
    try:
        synsets = loadmat(io.BytesIO(content), squeeze_me=True)["synsets"]
        pairs = [(str(int(synset["ILSVRC2012_ID"])), str(synset["WNID"])) for synset in synsets]
    except Exception as error:  # SciPy raises nearly anything on a damaged file
        raise UserError(f"{_META} of the devkit {path} cannot be read ({error}); download it again.") from error
    # The IDs above 1000 are inner nodes of the class tree; no image has them.
    return {number: wnid for number, wnid in pairs if wnid in imagenet_index()}
