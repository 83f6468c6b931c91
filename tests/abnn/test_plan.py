"""A network from words, and what does not fit together."""

import json

import pytest
import timm
import torch
from torch import nn

from abnn.layer import LayerConfig
from abnn.network import ABNN
from abnn.plan import NetworkPlan, SubstitutePlan, build, plan_from, rebuild
from basics.errors import UserError
from networks.classifiers import build_network
from networks.uninitialised import Uninitialised
from tests.support import seeded
from training.evaluation import EVALUATION_BATCH

WIDTH = 1 / 16
BESIDE = SubstitutePlan(arch="vgg11_bn", classes=4, width=WIDTH)


def plan(**changes: object) -> NetworkPlan:
    words = {"arch": "resnet18", "classes": 3, "image_size": 32, "width": WIDTH, "substitute": BESIDE, **changes}
    return NetworkPlan(**words)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "plan",
    [
        plan(substitute=None),
        plan(layer=LayerConfig(statistics="batch", encoder="flattened")),
        plan(blocks=("layer1",), substitute=SubstitutePlan(arch="vgg11_bn", classes=4, taps=("features.3",))),
    ],
)
def test_a_plan_survives_being_written_down(plan: NetworkPlan) -> None:
    assert plan_from(json.loads(json.dumps(plan.as_json()))) == plan


def test_networks_whose_batch_is_part_of_the_result_are_scored_in_batches_of_one_size() -> None:
    """Their held-out accuracy is then that of `abnn attack --attack clean` on the same images."""
    by_batch = plan(layer=LayerConfig(statistics="batch"))
    assert by_batch.evaluation_batch == by_batch.attack_batch == 250
    assert plan().evaluation_batch == plan(substitute=None).evaluation_batch == EVALUATION_BATCH


def test_a_network_alone_is_torchvision_s_behind_normalisation() -> None:
    with seeded(0):
        network = build(plan(substitute=None)).eval()
    image = torch.full((1, 3, 32, 32), 0.485)
    assert isinstance(network, nn.Sequential)
    colours = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]]).view(2, 1, 3, 1, 1)
    with torch.no_grad():
        assert torch.allclose(network(image), network[1]((image - colours[0]) / colours[1]), atol=1e-6)


@pytest.mark.slow
def test_a_given_substitute_keeps_its_weights() -> None:
    with seeded(1):
        substitute = build_network("vgg11_bn", 4, WIDTH)
    before = {name: value.clone() for name, value in substitute.features.state_dict().items()}  # type: ignore[union-attr]
    network = build(plan(), substitute)
    assert isinstance(network, ABNN)
    inside = network.substitute.state_dict()
    assert {f"features.{name}" for name in before} == inside.keys()
    assert all(torch.equal(inside[f"features.{name}"], value) for name, value in before.items())


@pytest.mark.slow
def test_a_substitute_of_timm_is_tapped_as_it_is_and_built_again() -> None:
    with seeded(1):
        whole = timm.create_model("tf_efficientnet_lite0", num_classes=7).eval()
    outputs = {}
    for number, name in enumerate(("blocks.0", "blocks.1", "blocks.2", "blocks.4", "blocks.6")):
        module = whole.get_submodule(name)
        module.register_forward_hook(lambda *called, number=str(number): outputs.update({number: called[2].clone()}))
    beside = plan(substitute=SubstitutePlan(arch="timm:tf_efficientnet_lite0", classes=7))
    network = build(beside, whole)
    assert isinstance(network, ABNN)
    # 33 px: what timm pads depends on the size.
    image = torch.rand(2, 3, 33, 33, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        # timm's configuration says mean and standard deviation 0.5 for this network.
        whole((image - 0.5) / 0.5)
        found = network.substitute(network.normalise_substitute(image))
    assert found.keys() == outputs.keys()
    assert all(torch.equal(found[number], feature) for number, feature in outputs.items())
    again = rebuild(plan_from(json.loads(json.dumps(beside.as_json()))))
    again.load_state_dict(network.state_dict(), strict=True)
    with torch.no_grad():
        assert torch.equal(again.eval()(image[:, :, :32, :32]), network.eval()(image[:, :, :32, :32]))


def test_rebuilding_moves_no_generator() -> None:
    with seeded(0):
        rebuild(plan())
        after = torch.rand(1)
    with seeded(0):
        assert torch.equal(torch.rand(1), after)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"blocks": ("layer1", "layer2")}, "2 blocks and the substitute vgg11_bn 5"),
        ({"arch": "efficientnet_b0"}, "--blocks"),
        ({"arch": "resnet19"}, "no classifier"),
        ({"layer": LayerConfig(statistics="channel"), "width": 1 / 8}, "as many channels"),
        ({"image_size": 16}, "substitute vgg11_bn cannot be shown images of 16 px"),
    ],
)
def test_parts_that_do_not_fit_are_refused(changes: dict[str, object], said: str) -> None:
    with pytest.raises(UserError, match=said), Uninitialised():
        build(plan(**changes))
