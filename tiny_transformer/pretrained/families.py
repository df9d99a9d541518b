"""Which families there are, and the one that a config.json belongs to. Read before: `gpt2.py`, `llama.py`, `bert.py`."""

import json
from pathlib import Path
from typing import Any

from tiny_transformer.config import ConfigError, check
from tiny_transformer.pretrained.bert import BERT
from tiny_transformer.pretrained.family import Family
from tiny_transformer.pretrained.gpt2 import GPT2
from tiny_transformer.pretrained.llama import LLAMA, MISTRAL, QWEN2, QWEN3

FAMILIES: dict[str, Family] = {family.name: family for family in (GPT2, LLAMA, MISTRAL, QWEN2, QWEN3, BERT)}
"""By their `model_type`."""


def read_config(directory: Path) -> dict[str, Any]:
    """The values of a directory's config.json. Raises ConfigError where there is none, or it is damaged."""
    file = directory / "config.json"
    file_given = f"{directory} is a file"
    check(not directory.is_file(), file_given, "it must be a directory, or a .gguf file", "A checkpoint of ours needs no import")
    check(directory.is_dir(), f"there is no directory {directory}", "it must hold config.json and weights", "Check the path")
    try:
        values: dict[str, Any] = json.loads(file.read_bytes())
    except FileNotFoundError:
        raise ConfigError(f"{directory} has no config.json: it must say what the weights are. Get the model's config.json too") from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{file} can't be read ({error}). Get it again") from error
    check(isinstance(values, dict), f"{file} holds {type(values).__name__}", "it must hold an object", "Get it again")
    return values


def family_of(values: dict[str, Any]) -> Family:
    """The family that a config.json names. Raises ConfigError listing those that we have."""
    kind = values.get("model_type")
    if kind is None:  # very old directories say their class only
        named = values.get("architectures") or []
        kind = next((family.name for family in FAMILIES.values() if family.architecture in named), None)
    known = f"it must be one of {', '.join(FAMILIES)}"
    check(isinstance(kind, str) and kind in FAMILIES, f"config.json asks for model_type={kind!r}", known, "Choose another model")
    return FAMILIES[str(kind)]


if __name__ == "__main__":
    from tiny_transformer.pretrained.family import to_model_config

    for family in FAMILIES.values():
        print(f"{family.name:8} {family.title:16} {to_model_config(family, {}).n_parameters:15,} parameters by default")
    try:
        family_of({"model_type": "mixtral"})
    except ConfigError as error:
        print("caught:", error)
