"""Other people's weights, renamed into ours, and back."""

import importlib
from typing import Any

_HOMES = {
    "load_pretrained": "loading", "export_pretrained": "exporting", "read_gguf": "gguf_file", "write_gguf": "gguf_file",
    "write_onnx": "onnx_file",
}  # fmt: skip
__all__ = ["export_pretrained", "load_pretrained", "read_gguf", "write_gguf", "write_onnx"]


def __getattr__(name: str) -> Any:
    """`pretrained.load_pretrained`, `pretrained.export_pretrained` and the others, loaded when they are asked for."""
    if name in _HOMES:
        return getattr(importlib.import_module(f"tiny_transformer.pretrained.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
