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
from encoders import EncoderKind
from encoders import register as register_encoder
from experiments import imagenet_advbn, sample_advbn
from networks.classifiers import Classifier
from networks.own import OwnModel
from networks.specs import load_model
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
    "Classifier",
    "EncoderKind",
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
    "load_model",
    "perturb_features",
    "perturb_images",
    "put_beside",
    "register_encoder",
    "sample_advbn",
    "score_models",
]
