"""Frozen feature extractors by name. A new encoder is one new file here that calls `register`."""

import importlib
import pkgutil

from encoders.names import encoder_kind, file_name_of, split_encoder
from encoders.registry import ENCODERS, EncoderKind, register

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

__all__ = ["ENCODERS", "EncoderKind", "encoder_kind", "file_name_of", "register", "split_encoder"]
