"""Other people's weights, renamed into ours, and back."""

import importlib
from typing import Any

_HOMES = {"load_pretrained": "loading", "export_pretrained": "exporting"}
__all__ = ["export_pretrained", "load_pretrained"]


def __getattr__(name: str) -> Any:
    """`pretrained.load_pretrained` and `pretrained.export_pretrained`, loaded when they are asked for."""
    if name in _HOMES:
        return getattr(importlib.import_module(f"tiny_transformer.pretrained.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
