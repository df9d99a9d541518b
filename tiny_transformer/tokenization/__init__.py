"""Text to ids and back."""

from typing import Any

__all__ = ["from_dict"]


def __getattr__(name: str) -> Any:
    """`tokenization.from_dict`, loaded when it is asked for."""
    if name == "from_dict":
        from tiny_transformer.tokenization.registry import from_dict

        return from_dict
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
