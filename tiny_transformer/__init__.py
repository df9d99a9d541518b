"""Tiny Transformer: a transformer language model built from scratch, every part readable and proved right."""

__version__ = "0.1.0"
