"""What this machine is to this program: versions, devices, threads and caches, for reports of faults."""

import os
import platform
import sys
from collections.abc import Mapping
from typing import Any

import torch

from basics.compute import available_cores, choose_compute, machine_kind
from basics.software import FORMAT_VERSION, REVISION, installed_versions

PACKAGES = (
    "advbn-gen", "torch", "torchvision", "numpy", "pillow", "webdataset", "h5py", "dask", "distributed", "safetensors",
    "torchmetrics", "timm", "av", "pyautoattack", "s3fs", "triton",
)  # fmt: skip
"""Packages whose versions may matter to a fault; those of extras are not installed everywhere."""
VARIABLES = ("ADVBN_SOURCE", "ADVBN_CACHE", "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "OMP_WAIT_POLICY", "TORCH_HOME")
"""Environment variables that change what this program does."""


def describe_system() -> Mapping[str, Any]:
    """Return versions, devices, threads and settings of the environment; no path but those in the variables."""
    compute = choose_compute("auto", "auto")
    return {
        "format": FORMAT_VERSION,
        "revision": REVISION,
        "python": f"{platform.python_version()} ({sys.implementation.name})",
        "platform": platform.platform(),
        "packages": installed_versions(PACKAGES),
        "machine": machine_kind(torch.device("cpu")),
        "cores": available_cores(),
        "threads": torch.get_num_threads(),
        "devices": [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())],
        "cuda": torch.version.cuda,
        "auto": {"device": str(compute.device), "precision": compute.precision},
        "environment": {name: os.environ.get(name) for name in VARIABLES},
    }
