"""The commands of the documentation at a size that takes seconds: more options, and other networks.

The options that are added are the program's own, and the last of two equal options counts. Published weights are no
part of the repository: where a command would download them, it gets a narrow network of that name.
"""

from collections.abc import Iterator, Mapping, Sequence

WHOLE = "ILSVRC2012_val"
"""Images that are so few that data sets have all of them; others have the first 8."""
NETWORKS = "networks"
"""Folder with a narrow network NAME.safetensors in the place of each of `PUBLISHED`."""
PUBLISHED = ("resnet50", "densenet121", "efficientnet_b0")
"""Networks that pages score with their published weights."""
ATTACKED, ATTACKED_DRAWN = f"{NETWORKS}/attacked.safetensors", f"{NETWORKS}/attacked-drawn.safetensors"
"""Classifiers of ImageNet's classes and of the drawn world's."""

_EPOCH = "--epochs 1 --limit 8 --batch-size 4"
_IMAGES = f"{_EPOCH} --image-size 32 --loaders 0"
_WIDTH = "--width 0.0625"
ADDED: Mapping[str, str] = {
    "imagenet-advbn": "--image-size 32 --batch-size 4 --steps 2 --limit 8 --threads 1 --batches-per-shard 1",
    "train-autoencoder": f"{_IMAGES} {_WIDTH}",
    "train-classifier": f"{_IMAGES} {_WIDTH}",
    "finetune": _IMAGES,
    "score": "--limit 4",
    "evaluate": "--limit 1",
    "report gap": "--gallery 2",
    "abnn pretrain": f"{_EPOCH} {_WIDTH}",
    "abnn train": _EPOCH,
    "abnn attack": "--limit 4 --batch-size 4",
    "abnn sanity": "--limit 2",
}
"""What a command gets in all its uses."""
SMALLER = {"--workers": "2", "--devices": "1", "--frames": "4", "--restarts": "1"}
"""Other values of options, where a command has them."""


def reduced(words: Sequence[str], *, full: bool = False) -> list[str]:
    """Return the words of a command of `advbn-gen` with those added that make it small.

    Args:
        words: the command, without the program's name.
        full: fine-tune a network of full width.
    """
    command = " ".join(words[:2]) if words[0] in {"abnn", "report"} else words[0]
    added = [*ADDED.get(command, "").split(), *_smaller(words), *_networks(command, words, full=full)]
    return [*_in_place_of_published(words), *added]


def _smaller(words: Sequence[str]) -> Iterator[str]:
    for option, value in SMALLER.items():
        if option in words:
            yield from (option, value)


def _networks(command: str, words: Sequence[str], *, full: bool) -> list[str]:  # noqa: PLR0911 (one for each command)
    match command:
        case "report gap" if _value(words, "--original") != WHOLE:
            return ["--common"]
        case "imagenet-advbn" if "--source" not in words:
            networks = f"--autoencoder {NETWORKS}/{_value(words, '--encoder')}.safetensors"
            return f"{networks} --classifier-weights {ATTACKED_DRAWN}".split()
        case "imagenet-advbn" if not {"--classifier", "--classifier-weights"} & {*words}:
            return ["--classifier-weights", ATTACKED]
        case "train-autoencoder" if "--encoder-weights" not in words:
            return ["--encoder-weights", "seed:0"]
        case "finetune" if "--init" not in words and _value(words, "--arch") in PUBLISHED:
            arch = _value(words, "--arch")
            return ["--init", f"{arch}=seed:0" if full else f"{NETWORKS}/{arch}.safetensors"]
        case "abnn attack" if "--data" not in words:
            return ["--data", "UCF-101"]
        case "abnn train" | "abnn pretrain":
            return [*_for_abnn(words)]
    return []


def _for_abnn(words: Sequence[str]) -> Iterator[str]:
    if "--data" not in words:  # to draw clips takes longer than the rest
        yield from ["--data", "kinetics" if words[1] == "pretrain" else "UCF-101"]
    if "ucf101" in words:
        yield from ["--frames", "4", "--image-size", "32"]
    # A published file has its own width. Its weights here are a seed's, and gradients without bound.
    yield from (_WIDTH if "=" not in "".join(words) else "--lr 1e-30").split()
    if "abnn" in words[2:] and "--substitute" not in words and words[1] == "train":
        yield from ("--substitute", ATTACKED)


def _in_place_of_published(words: Sequence[str]) -> Iterator[str]:
    option = ""
    for word in words:
        option = word if word.startswith("--") else option
        if option == "--model" and word in PUBLISHED:
            yield f"{NETWORKS}/{word}.safetensors"
        elif option == "--model" and word.startswith("timm:") and "=" not in word:
            yield f"{word}=seed:0"
        else:
            yield word


def _value(words: Sequence[str], option: str) -> str:
    return words[words.index(option) + 1]
