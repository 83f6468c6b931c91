"""The AdvBN authors' layout of a network with two sets of batch norm, written down by hand from their naming."""

from torch import Tensor, nn

from tests.support import seeded, with_lived_in_batch_norm

FIELDS = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


def authors_state(main: nn.Module, auxiliary: nn.Module, cut: int = 1) -> dict[str, Tensor]:
    """Name the tensors of two torchvision ResNets as the authors name those of one network with pairs of norms."""
    state, other = main.state_dict(), auxiliary.state_dict()
    theirs = {"feature_x.0.weight": state["conv1.weight"]}
    theirs |= {f"feature_x.1.{field}": state[f"bn1.{field}"] for field in FIELDS}
    for name in state:
        if not name.startswith("layer"):
            continue
        layer, number, part, rest = name.split(".", 3)
        place = int(layer.removeprefix("layer"))
        module = f"feature_x.{place + 3}.{number}" if place <= cut else f"head.{layer}_{number}"
        if part.startswith("conv"):
            theirs[f"{module}.{part}.{rest}"] = state[name]
        elif part.startswith("bn"):
            theirs[f"{module}.clean_{part}.{rest}"] = state[name]
            theirs[f"{module}.adv_{part}.{rest}"] = other[name]
        elif rest.startswith("0."):
            theirs[f"{module}.downsample.conv.weight"] = state[name]
        else:
            theirs[f"{module}.downsample.clean_bn.{rest[2:]}"] = state[name]
            theirs[f"{module}.downsample.adv_bn.{rest[2:]}"] = other[name]
    theirs |= {"head.fc.weight": state["fc.weight"], "head.fc.bias": state["fc.bias"]}
    # Their converter leaves booleans where old checkpoints had no counter.
    return {
        f"module.{name}": value.bool().reshape(1) if name.endswith("num_batches_tracked") else value
        for name, value in theirs.items()
    }


def networks_with_other_batch_norm(build: type[nn.Module], cut: int = 1) -> tuple[nn.Module, nn.Module]:
    """Return two networks that differ only in the batch norm behind the cut."""
    front = ("bn1", *(f"layer{place}." for place in range(1, cut + 1)))
    with seeded(0):
        main = with_lived_in_batch_norm(build(num_classes=6))
        auxiliary = build(num_classes=6)
    auxiliary.load_state_dict(main.state_dict())
    with seeded(1):
        for name, layer in auxiliary.named_modules():
            if isinstance(layer, nn.BatchNorm2d) and not name.startswith(front):
                layer.running_mean.normal_()  # type: ignore[union-attr]
                layer.weight.data.uniform_(0.5, 2)
    return main.eval(), auxiliary.eval()
