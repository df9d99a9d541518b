"""The two engines, as the commands see them: one name, and what it stands for. Nothing of the other engine is loaded.

Read before: training/loop.py.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from tiny_transformer.config import ModelConfig, check, check_choice

EngineName = Literal["torch", "numpy"]


@dataclass(frozen=True)
class Engine:
    """What training and writing need of an engine. Models, checkpoints, trainers and generators are its own classes."""

    new_model: Callable[[ModelConfig, int], Any]
    """A model with first weights: (config, seed)."""
    trainer: Any
    """The class Trainer."""
    generator: Any
    """The class TextGenerator."""
    read: Callable[[Path], Any]
    """The checkpoint in a file."""
    build: Callable[[Any], Any]
    """The model of a checkpoint."""
    suffix: str
    """What its checkpoints' names end in."""


def engine(name: str) -> Engine:
    """The engine called `name`. Raises ConfigError for any other name."""
    check_choice("engine", name, get_args(EngineName))
    return _torch() if name == "torch" else _numpy()


def _torch() -> Engine:
    from tiny_transformer import run
    from tiny_transformer.model import TinyTransformerLM
    from tiny_transformer.sampling.generator import TextGenerator
    from tiny_transformer.training.trainer import Trainer

    return Engine(
        new_model=lambda config, seed: TinyTransformerLM(config, seed=seed), trainer=Trainer, generator=TextGenerator, read=run.read,
        build=lambda checkpoint: run.build(checkpoint)[0], suffix=".pt",
    )  # fmt: skip


def _numpy() -> Engine:
    from tiny_transformer.numpy_engine import checkpoint
    from tiny_transformer.numpy_engine.generator import TextGenerator
    from tiny_transformer.numpy_engine.model import TinyTransformerLM, init_weights
    from tiny_transformer.numpy_engine.trainer import Trainer

    def read(file: Path) -> checkpoint.Checkpoint:
        remedy = "Leave --engine numpy out, or train with it"
        ours = file.suffix in (".safetensors", ".npz")
        check(ours, f"{file} with --engine numpy", "the NumPy engine reads .safetensors and .npz files", remedy)
        return checkpoint.load(file)

    return Engine(
        new_model=lambda config, seed: TinyTransformerLM(config, init_weights(config, seed)), trainer=Trainer, generator=TextGenerator,
        read=read, build=lambda loaded: TinyTransformerLM(loaded.config, loaded.weights), suffix=".safetensors",
    )  # fmt: skip
