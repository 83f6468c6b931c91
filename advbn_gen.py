"""advbn-gen from Python: every public name, in one place (docs/api.md).

Names that do not stand here may change from one version to the next. Legend of the names of tensors: docs/glossary.md.
"""

from abnn.beside import put_beside
from abnn.layer import AdaptiveBatchNorm, LayerConfig
from abnn.network import ABNN
from attacks.ascent import AscentResult, ObjectiveValue, ThreatModel, ascend
from attacks.perturbing import PerturbedFeatures, PerturbedImages, perturb_features, perturb_images
from attacks.statistics import AdvBNConfig
from basics.errors import UserError, WorkError
from downstream.scoring_run import score_models
from experiments import imagenet_advbn, sample_advbn
from networks.own import OwnModel
from pipeline.config import GenerationConfig
from pipeline.generation import generate
from pipeline.run import RunResult
from reports.gap_object import GapReport
from sources.labelled import LabelledImages

__all__ = [
    "ABNN",
    "AdaptiveBatchNorm",
    "AdvBNConfig",
    "AscentResult",
    "GapReport",
    "GenerationConfig",
    "LabelledImages",
    "LayerConfig",
    "ObjectiveValue",
    "OwnModel",
    "PerturbedFeatures",
    "PerturbedImages",
    "RunResult",
    "ThreatModel",
    "UserError",
    "WorkError",
    "ascend",
    "generate",
    "imagenet_advbn",
    "perturb_features",
    "perturb_images",
    "put_beside",
    "sample_advbn",
    "score_models",
]
