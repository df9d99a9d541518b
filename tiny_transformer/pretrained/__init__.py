"""Other people's weights, renamed into ours, and back."""

from typing import Any

__all__ = ["load_pretrained"]


def __getattr__(name: str) -> Any:
    """`pretrained.load_pretrained`, loaded when it is asked for."""
    if name in __all__:
        from tiny_transformer.pretrained import loading

        return getattr(loading, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
