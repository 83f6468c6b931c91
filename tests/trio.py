"""Originals, reconstructions and AdvBN versions of a small world, and two small models to score on them."""

from dataclasses import dataclass
from pathlib import Path

from tests.pipeline.world import CLASSES, World
from tests.support import tiny_classifier

SHOWN = 48
"""Side of the images that the two models are shown: not that of the stored ones, which are resized for them."""


@dataclass(frozen=True)
class Trio:
    """Three data sets of the same 48 samples, in three of ImageNet's classes."""

    world: World
    advbn: Path
    reconstructed: Path
    attacked: Path
    """The classifier that the images were made against."""
    unseen: Path
    """Another one."""

    @classmethod
    def build(cls, folder: Path) -> "Trio":
        """Make everything; takes seconds."""
        world = World.build(folder / "world")
        done = world.make(folder / "imagenet-advbn-vgg", "--reconstructed", image_size=32)
        assert done.code == 0, done.err
        return cls(
            world=world,
            advbn=folder / "imagenet-advbn-vgg",
            reconstructed=folder / "imagenet-reconstructed-vgg",
            attacked=World.build_classifier(folder / "classifier.safetensors", image_size=SHOWN),
            unseen=tiny_classifier(folder / "unseen.safetensors", CLASSES, "resnet34", seed=5, image_size=SHOWN),
        )

    def words(self, out: Path, *more: object, **changed: object) -> list[object]:
        """The command that reports on it; the originals are cut to the samples that were made."""
        options: dict[str, object] = {
            "original": self.world.source, "reconstructed": self.reconstructed, "advbn": self.advbn,
            "out": out, "device": "cpu",
        }  # fmt: skip
        options |= {name.replace("_", "-"): value for name, value in changed.items()}
        flat = [word for name, value in options.items() for word in (f"--{name}", value)]
        return ["report", "gap", *flat, "--common", "--model", self.attacked, self.unseen, *more]
