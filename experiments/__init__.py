"""The papers' experiments by name: each function returns the full config of one, and its docstring says what to expect.

These functions hold the published numbers. The command line takes its defaults from here, and other settings are made
of these with `dataclasses.replace`. Where a paper is silent, docs/choices.md has the choice and its reason.

Paper 1 is the paper on AdvBN and ImageNet-AdvBN, paper 2 the one on adaptive batch normalisation networks (ABNN). Run
times that are not the papers' own are from docs/measurements.md, which names the machine.
"""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from abnn.benchmarks import Benchmark
from abnn.request import DefenceRequest
from attacks.pixels import PixelConfig
from attacks.statistics import AdvBNConfig
from basics.paths import Address
from decoders.request import AutoencoderRequest
from downstream.request import FineTuningRequest
from downstream.task import FineTuningConfig
from networks.cuts import Cut, cut_of
from networks.request import ClassifierRequest
from networks.task import ClassifierConfig
from pipeline.config import GenerationConfig
from pipeline.drawn_networks import DRAWN_IMAGE_SIZE, drawn_networks
from sources.base import Source
from training.config import TrainingConfig
from training.data import Variation
from training.request import ClipOptions

PUBLISHED_ADVBN = AdvBNConfig(eps=1.1, steps=6, step_size=0.2)
"""Paper 1, section 5.1 and appendix B.1: strength of AdvBN in ImageNet-AdvBN, and in fine-tuning of most networks."""


def imagenet_advbn_vgg(
    source: Address | None = None, autoencoder: str | os.PathLike[str] | None = None
) -> GenerationConfig:
    """ImageNet-AdvBN-VGG: the 50,000 validation images through the VGG-19 autoencoder, turned against VGG-19.

    Paper: 1, appendix B.1, Table 8.

    Command:
        advbn-gen imagenet-advbn --encoder vgg --source ILSVRC2012_val
        --autoencoder autoencoder-vgg/autoencoder.safetensors

    Expected: top-1 / top-5 of ResNet-50 with standard training: 1.6 / 4.7, and 45.8 / 70.6 on the reconstructions
    (`--reconstructed`), of 76.1 on the originals.

    Run time: 198 s for a batch of 32 on two CPU cores, so 86 hours for all (docs/measurements.md).
    """
    return imagenet_advbn("vgg", source, autoencoder)


def imagenet_advbn_resnet(
    source: Address | None = None, autoencoder: str | os.PathLike[str] | None = None
) -> GenerationConfig:
    """ImageNet-AdvBN-ResNet: the same through the ResNet-50 autoencoder, turned against ResNet-50.

    Paper: 1, appendix B.1, Table 8.

    Command:
        advbn-gen imagenet-advbn --encoder resnet --source ILSVRC2012_val
        --autoencoder autoencoder-resnet/autoencoder.safetensors

    Expected: top-1 / top-5 of ResNet-50 with standard training: 0.4 / 1.3, and 65.7 / 86.9 on the reconstructions
    (`--reconstructed`), of 76.1 on the originals.

    Run time: 96 s for a batch of 32 on two CPU cores, so 42 hours for all (docs/measurements.md).
    """
    return imagenet_advbn("resnet", source, autoencoder)


def imagenet_advbn(
    encoder: str, source: Address | None = None, autoencoder: str | os.PathLike[str] | None = None
) -> GenerationConfig:
    """Return the published settings of ImageNet-AdvBN for an encoder (paper 1, section 5.1 and appendix B.1).

    Args:
        encoder: name of the encoder: `vgg`, `resnet`, or one that the paper does not have.
        source: path or address of the images; None for the embedded drawn world.
        autoencoder: path of `autoencoder.safetensors`; None leaves it open, and `generate` refuses that.

    Raises:
        UserError: there is no such encoder.

    Example:
        >>> from dataclasses import replace
        >>> from advbn_gen import imagenet_advbn
        >>> config = imagenet_advbn("vgg", "ILSVRC2012_val", "autoencoder.safetensors")
        >>> config.attack, config.batch_size, config.image_size
        (AdvBNConfig(eps=1.1, steps=6, step_size=0.2), 32, 256)
        >>> replace(config, limit=64, device="cpu").plan(images=50_000).batches  # of 64 images
        2
    """
    return GenerationConfig(
        encoder=encoder,
        source=source,
        autoencoder=autoencoder,
        attack=PUBLISHED_ADVBN,
        batch_size=32,
        image_size=256,
        batches_per_shard=49,
    )


def sample_advbn(encoder: str) -> GenerationConfig:
    """Return the same attack on the embedded drawn world against its own small networks, trained at first use.

    The attack is that of `imagenet_advbn` (paper 1, appendix B.1); the images are of 48 px. The networks are kept in
    the user's cache folder, or in the folder that `ADVBN_CACHE` names.

    Args:
        encoder: `vgg` or `resnet`.

    Raises:
        UserError: the drawn world has no networks for this encoder, or the folder cannot be written.

    Example (the first call trains the networks, for two minutes):
        >>> from advbn_gen import sample_advbn
        >>> config = sample_advbn("vgg")
        >>> config.source, config.image_size, config.attack
        (None, 48, AdvBNConfig(eps=1.1, steps=6, step_size=0.2))
    """
    own = drawn_networks(encoder)
    return replace(
        imagenet_advbn(encoder, None, str(own.autoencoder)),
        classifier_weights=str(own.classifier),
        image_size=DRAWN_IMAGE_SIZE,
    )


def autoencoder_vgg(source: str | Source, out: Path) -> AutoencoderRequest:
    """The decoder that inverts VGG-19 up to relu4_1.

    Paper: 1, section 3 and appendix B.1: pixel MSE + 1e-8 total variation; optimiser and length are not published.

    Command:
        advbn-gen train-autoencoder --encoder vgg --source ILSVRC2012/train --out autoencoder-vgg

    Expected: ResNet-50 with standard training classifies 45.8% of the reconstructions correctly (Table 8); no PSNR is
    published.

    Run time: not measured.
    """
    return autoencoder("vgg", source, out)


def autoencoder_resnet(source: str | Source, out: Path) -> AutoencoderRequest:
    """The decoder that inverts ResNet-50 up to conv2_3.

    Paper: 1, section 3 and appendix B.1: pixel MSE + 1e-8 total variation; optimiser and length are not published.

    Command:
        advbn-gen train-autoencoder --encoder resnet --source ILSVRC2012/train --out autoencoder-resnet

    Expected: ResNet-50 with standard training classifies 65.7% of the reconstructions correctly (Table 8); no PSNR is
    published.

    Run time: not measured.
    """
    return autoencoder("resnet", source, out)


def autoencoder(encoder: str, source: str | Source, out: Path) -> AutoencoderRequest:
    """Return the settings of a decoder's training for an encoder, also one that the paper does not have.

    Adam at 1e-4 is our choice; 4 epochs of ImageNet in batches of 32 are AdaIN's 160,000 iterations.
    """
    training = TrainingConfig(epochs=4, batch_size=32, lr=1e-4, image_size=256)
    return AutoencoderRequest(encoder=encoder, source=source, out=out, training=training)


def finetune_resnet50(source: str | Source, out: Path) -> FineTuningRequest:
    """ResNet-50 fine-tuned with AdvBN behind conv2_3.

    Paper: 1, section 5.1 and appendix A, Tables 1, 4 and 7.

    Command:
        advbn-gen finetune --arch resnet50 --source ILSVRC2012/train --out resnet50-advbn

    Expected: top-1 77.0 on ImageNet, 69.5 on ImageNet-Instagram, 27.9 on ImageNet-Sketch, 11.9 on Stylized ImageNet;
    mCE 72.7 on ImageNet-C.

    Run time: 48 hours on four RTX 2080 Ti (appendix C, Table 9).
    """
    return _finetune("resnet50", cut_of("resnet50"), source, out)


def finetune_densenet121(source: str | Source, out: Path) -> FineTuningRequest:
    """DenseNet-121 fine-tuned with AdvBN behind its first block and transition.

    Paper: 1, appendix A.2, Table 6.

    Command:
        advbn-gen finetune --arch densenet121 --source ILSVRC2012/train --out densenet121-advbn

    Expected: top-1 69.3 on ImageNet-Instagram, 28.6 on ImageNet-Sketch, 15.5 on Stylized ImageNet; mCE 70.4 on
    ImageNet-C. Table 6 names the row "+ AdvBN (w/ AA)", but A.2 mentions no AutoAugment: `--augment autoaugment` adds
    it.

    Run time: not published.
    """
    return _finetune("densenet121", cut_of("densenet121"), source, out)


def finetune_efficientnet_b0(source: str | Source, out: Path) -> FineTuningRequest:
    """EfficientNet-B0 fine-tuned with AdvBN behind its second block, weaker, and with AutoAugment.

    Paper: 1, appendix A.2, Table 6.

    Command:
        advbn-gen finetune --arch efficientnet_b0 --source ILSVRC2012/train --out efficientnet_b0-advbn

    Expected: top-1 71.3 on ImageNet-Instagram, 27.4 on ImageNet-Sketch, 15.7 on Stylized ImageNet; mCE 68.7 on
    ImageNet-C.

    Run time: not published.
    """
    request = _finetune("efficientnet_b0", cut_of("efficientnet_b0"), source, out)
    attack = AdvBNConfig(eps=0.5, steps=3, step_size=0.2)
    return replace(request, tuning=replace(request.tuning, attack=attack, augment=("autoaugment",)))


_FINE_TUNING: dict[str, Callable[[str | Source, Path], FineTuningRequest]] = {
    "resnet50": finetune_resnet50,
    "densenet121": finetune_densenet121,
    "efficientnet_b0": finetune_efficientnet_b0,
}


def finetune(arch: str, source: str | Source, out: Path, cut: Cut | None = None) -> FineTuningRequest:
    """Return the settings of fine-tuning an architecture: the paper's, or ResNet-50's where the paper has none.

    Args:
        arch: torchvision name, or `timm:NAME`.
        source: training images.
        out: run folder.
        cut: where the head begins; None takes the published one.

    Raises:
        UserError: no cut was given and none is published.
    """
    cut = cut or cut_of(arch)
    if arch in _FINE_TUNING:
        request = _FINE_TUNING[arch](source, out)
        return replace(request, tuning=replace(request.tuning, cut=cut))
    return _finetune(arch, cut, source, out)


def _finetune(arch: str, cut: Cut, source: str | Source, out: Path) -> FineTuningRequest:
    """Paper 1, section 5.1 and appendix A: SGD (momentum 0.9), a tenth of the learning rate after 10 of 20 epochs.

    Pixels are perturbed as by AdvProp (Xie et al. 2020, section 5.1), by the methods that do so.
    """
    return FineTuningRequest(
        arch=arch,
        source=source,
        out=out,
        tuning=FineTuningConfig(
            cut=cut,
            method="advbn",
            attack=PUBLISHED_ADVBN,
            pixels=PixelConfig(eps=4 / 255, steps=5, step_size=1 / 255, norm="linf", random_start=True),
            augment=(),
            smallest_crop=0.08,
        ),
        training=TrainingConfig(
            epochs=20, batch_size=256, lr=1e-3, weight_decay=1e-4, schedule="step", decay_every=10, image_size=224
        ),
    )


CIFAR10 = Benchmark(
    name="cifar10",
    target="resnet18",
    substitute="vgg19_bn",
    pixels=PixelConfig(eps=8 / 255, steps=5, step_size=2 / 255, norm="linf", random_start=True),
    translation=1 / 8,
    training=TrainingConfig(epochs=200, batch_size=128, lr=0.1, weight_decay=5e-4, schedule="cosine", image_size=32),
)
"""Paper 2, section 3.1 and Table 1: networks, eps and steps of the attack; the rest is our choice (docs/choices.md)."""
UCF101 = Benchmark(
    name="ucf101",
    target="hara_resnext101",
    substitute="hara_resnet18",
    pixels=PixelConfig(eps=1 / 255, steps=5, step_size=1 / 255 / 4, norm="linf", random_start=True),
    translation=0,
    training=TrainingConfig(
        epochs=15, batch_size=8, lr=1e-3, weight_decay=1e-5, schedule="step", decay_every=7, image_size=112
    ),
    frames=40,
)
"""Paper 2, section 3.1 and Tables 2 and 3: networks, frames and their size, eps and steps of the attack; the rest is
from the authors' earlier code or our choice (docs/choices.md)."""
BENCHMARKS = {each.name: each for each in (CIFAR10, UCF101)}
"""Benchmarks by the name that `--task` takes, and that checkpoints and results store as `task`."""


def abnn_cifar10(source: str | Source, out: Path, defence: str = "abnn") -> DefenceRequest:
    """ResNet-18 beside a frozen VGG-19-BN on CIFAR-10, or without it (`none`), or trained adversarially (`pgd-at`).

    Paper: 2, section 3.1, Table 1.

    Command:
        advbn-gen abnn train --task cifar10 --defence abnn --data cifar10 --out abnn

    Expected: accuracy 87.5 on the test images and 31.5 under PGD (`abnn attack --attack clean pgd`), at 3 passes a
    step; without defence 93.4 and 0.0 at 2 passes, with adversarial training 83.3 and 51.6 at 12.

    Run time: not measured at full size; docs/experiments/ has a smaller one on two CPU cores.
    """
    return abnn(CIFAR10, source, out, defence)


def abnn_ucf101(
    source: str | Source, out: Path, defence: str = "abnn", init: str | None = None, substitute: str | None = None
) -> DefenceRequest:
    """3D ResNeXt-101 beside a frozen 3D ResNet-18 on UCF-101, or without it (`none`), or denoised (`oudefend`).

    Paper: 2, section 3.1, Tables 2 and 3.

    Command:
        advbn-gen abnn train --task ucf101 --defence abnn --init hara_resnext101=resnext-101-kinetics.pth
        --substitute hara_resnet18=resnet-18-kinetics.pth --data UCF-101 --out abnn

    Both networks start from Kinetics weights, which have to be fetched by hand.

    Expected: accuracy 68.3 on the test clips, 43.4 under PGD and 24.4 under ROA, at 3 passes a step; without defence
    93.0, 0.0 and 7.0 at 2 passes, with OUDefend 62.0, 58.6 and 13.6 at 24.

    Run time: not measured at full size; docs/measurements.md has that of one step.
    """
    return replace(abnn(UCF101, source, out, defence), init=init, substitute=substitute)


def abnn(benchmark: Benchmark, source: str | Source, out: Path, defence: str) -> DefenceRequest:
    """Return the settings of training a network of a benchmark.

    Args:
        benchmark: data set and settings.
        source: what holds training and test images.
        out: run folder.
        defence: one of `abnn.task.DEFENCES`.
    """
    return DefenceRequest(
        benchmark=benchmark, defence=defence, source=source, out=out, training=benchmark.training,
        clips=None if benchmark.frames is None else ClipOptions(frames=benchmark.frames),
    )  # fmt: skip


def classifier(arch: str, source: str | Source, out: Path) -> ClassifierRequest:
    """A classifier trained from scratch on small data; the recipe is our choice (docs/choices.md).

    Command:
        advbn-gen train-classifier --arch resnet18 --source train --out resnet18
    """
    return ClassifierRequest(
        classifier=ClassifierConfig(arch=arch),
        source=source,
        out=out,
        variation=Variation(crops=True, smallest=0.35),
        training=TrainingConfig(
            epochs=20, batch_size=64, lr=2e-3, weight_decay=1e-2, schedule="cosine", warmup=0.1, image_size=224
        ),
    )


def abnn_substitute(source: str | Source, out: Path) -> ClassifierRequest:
    """A substitute of paper 2's architecture, trained on other data where its published weights cannot be had.

    Command:
        advbn-gen abnn pretrain --data imagenette --out substitute
    """
    request = classifier(CIFAR10.substitute, source, out)
    return replace(request, training=replace(request.training, image_size=CIFAR10.training.image_size))


def abnn_clip_substitute(source: str | Source, out: Path) -> ClassifierRequest:
    """The same for clips; the recipe is our choice (docs/choices.md).

    Command:
        advbn-gen abnn pretrain --task ucf101 --data kinetics --out substitute
    """
    request = classifier(UCF101.substitute, source, out)
    training = replace(request.training, image_size=UCF101.training.image_size, batch_size=8, lr=1e-3)
    return replace(request, training=training, clips=ClipOptions(frames=UCF101.frames or 0))
