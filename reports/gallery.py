"""Samples to look at, as in the paper's Figure 7: what the page shows of each."""

import base64
from collections.abc import Sequence
from typing import Any

from downstream.gallery import GallerySample, Picture
from downstream.gap import ROLES, GapInputs
from downstream.predictions import ALL


def gallery_cards(samples: Sequence[GallerySample], inputs: GapInputs) -> list[dict[str, Any]]:
    """Return what the page shows of each sample."""
    return [
        {
            "key": sample.key,
            "name": inputs.class_names[inputs.label_N[sample.index]],
            "loss": sample.losses[-1],
            "loss_before": sample.losses[0],
            "pictures": {role: data_uri(sample.pictures[role]) for role in ROLES},
            "predictions": [
                {"model": model, "cells": [_first_prediction(inputs, role, model, sample.index) for role in ROLES]}
                for model in inputs.models
            ],
        }
        for sample in samples
    ]


def _first_prediction(inputs: GapInputs, role: str, model: str, index: int) -> dict[str, Any]:
    predictions = inputs.scored[role, model].predictions[ALL]
    best = int(predictions.classes_NK[index, 0])
    return {
        "name": inputs.class_names[best],
        "probability": float(predictions.probabilities_NK[index, 0]),
        "correct": best == int(inputs.label_N[index]),
    }


def data_uri(picture: Picture) -> str:
    """Return an address that holds the image itself."""
    return f"data:{picture.mime};base64,{base64.b64encode(picture.content).decode()}"
