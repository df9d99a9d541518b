"""Small tools that everything else may use: shapes, atomic files, checkpoints."""

from typing import Any

__all__ = ["check_shape"]


def __getattr__(name: str) -> Any:
    """`from tiny_transformer.utils import check_shape`, loaded when it is asked for."""
    if name == "check_shape":
        from tiny_transformer.utils.shape_check import check_shape

        return check_shape
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
