"""The main job again, as plainly as the paper and the spec say it: float64, torch's own layers, no code of ours."""

import io
import tarfile
from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms import CenterCrop, Compose, Resize, ToTensor

ENCODER = (2, 5, "pool", 9, 12, "pool", 16, 19, 22, 25, "pool", 29)
DECODER = (1, "up", 5, 8, 11, 14, "up", 18, 21, "up", 25, 28)
"""Published indices of the convolutions, and the layers between them."""
LAST = 28

State = Mapping[str, Tensor]


def run(layers: tuple[int | str, ...], state: State, image: Tensor) -> Tensor:
    """Apply published convolutions, padded by reflection, with ReLU but behind the last one."""
    for layer in layers:
        if layer == "pool":
            image = F.max_pool2d(image, 2, ceil_mode=True)
        elif layer == "up":
            image = F.interpolate(image, scale_factor=2, mode="nearest")
        else:
            padded = F.pad(image, (1, 1, 1, 1), mode="reflect")
            image = F.conv2d(padded, state[f"{layer}.weight"].double(), state[f"{layer}.bias"].double())
            image = image if layer == LAST else F.relu(image)
    return image


def encode(state: State, image: Tensor) -> Tensor:
    prepared = F.conv2d(image, state["0.weight"].double(), state["0.bias"].double())
    return run(ENCODER, state, prepared)


def images_of(tar: Path, size: int, count: int) -> tuple[list[str], Tensor]:
    """The first images of a tar of class folders in ImageFolder order, as torchvision prepares them: names, pixels."""
    prepare = Compose([Resize(size), CenterCrop(size), ToTensor()])
    with tarfile.open(tar) as file:
        names = sorted(name for name in file.getnames() if name.endswith(".JPEG"))[:count]
        images = []
        for name in names:
            member = file.extractfile(name)
            assert member is not None
            images.append(prepare(Image.open(io.BytesIO(member.read())).convert("RGB")))
    return names, torch.stack(images).double()


def advbn(
    encoder: State, decoder: State, classifier: nn.Module, image: Tensor, label: Tensor, *,
    eps: float = 1.1, steps: int = 6, step: float = 0.2,
) -> tuple[Tensor, Tensor, Tensor, list[float]]:  # fmt: skip
    """One batch: the perturbed image in [0, 1], delta_mean, delta_std, and the summed loss after each step."""
    mean_rgb = torch.tensor([0.485, 0.456, 0.406], dtype=torch.float64).view(3, 1, 1)
    std_rgb = torch.tensor([0.229, 0.224, 0.225], dtype=torch.float64).view(3, 1, 1)
    feat = encode(encoder, image)
    mu = feat.mean(dim=(0, 2, 3)).view(1, -1, 1, 1)
    delta_mean, delta_std = torch.ones_like(mu), torch.ones_like(mu)
    losses = []
    for done in range(steps + 1):
        delta_mean.requires_grad_()
        delta_std.requires_grad_()
        decoded = run(DECODER, decoder, F.relu(delta_std * (feat - mu) + delta_mean * mu))
        loss = F.cross_entropy(classifier((decoded - mean_rgb) / std_rgb), label, reduction="sum")
        losses.append(float(loss.detach()))
        if done < steps:
            loss.backward()  # type: ignore[no-untyped-call]
            assert delta_mean.grad is not None
            assert delta_std.grad is not None
            with torch.no_grad():
                delta_mean = (delta_mean + step * delta_mean.grad.sign()).clamp(1 - eps, 1 + eps).detach()
                delta_std = (delta_std + step * delta_std.grad.sign()).clamp(1 - eps, 1 + eps).detach()
    return decoded.detach(), delta_mean.flatten().detach(), delta_std.flatten().detach(), losses


def eight_bit(image: Tensor) -> Tensor:
    """torchvision's `save_image`: x 255, + 0.5, clamp, truncate."""
    return (image * 255 + 0.5).clamp(0, 255).to(torch.uint8)
