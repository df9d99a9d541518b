"""Text to ids and back."""

from typing import Any

__all__ = ["from_dict", "train"]


def __getattr__(name: str) -> Any:
    """`tokenization.from_dict` and `tokenization.train`, loaded when they are asked for."""
    if name in __all__:
        from tiny_transformer.tokenization import registry

        return getattr(registry, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
