"""Which family can say what a model is, and why none can: the way from a `ModelConfig` to a family.

A family says a model when every field comes back from its config.json as it was. Three changes of a config change no logit, and they are
tried too: dropping the settings of a kind of position that the model does not have, dropping a window as long as the context, and
biases that are 0 where the family has biases and the model has none. Read before: `family.py`, `families.py`.
"""

from collections.abc import Container, Iterator
from dataclasses import dataclass, replace
from typing import Any

from tiny_transformer.config import Bias, ConfigError, ModelConfig
from tiny_transformer.pretrained.families import FAMILIES
from tiny_transformer.pretrained.family import Family, Values, differences, to_hugging_face, without_idle


@dataclass(frozen=True)
class Expression:
    """A model as a family has it."""

    family: Family
    config: ModelConfig
    """As it will be read back: the model's own, or one that computes the same."""
    values: Values
    """The entries of config.json."""
    notes: tuple[str, ...] = ()
    """What is not word for word the same, one line each."""


def express(config: ModelConfig, avoid: Container[str] = ()) -> Expression:
    """The first family, the simplest one, that can say `config`: exactly if any can, else with biases of 0.

    Families named in `avoid` are taken only where no other can. Raises ConfigError in one line: the settings that stand in the way, and
    what the nearest family has instead.
    """
    able = (
        Expression(family, same, to_hugging_face(family, same), notes)
        for same, notes in equivalents(config)
        for family in FAMILIES.values()
        if not differences(family, same)
    )
    found = sorted(able, key=lambda expression: expression.family.name in avoid)  # a stable sort: otherwise the order stays
    if found:
        return found[0]
    family, unlike = nearest(config)
    got = ", ".join(f"{name}={ours!r}" for name, (ours, _) in unlike.items())
    has = ", ".join(f"{name}={theirs!r}" for name, (_, theirs) in unlike.items())
    others = "Train a model so, or choose the format safetensors, npz or onnx: they take any"
    raise ConfigError(f"{got}: no family has that; the nearest, {family.title}, has {has}. {others}")


def equivalents(config: ModelConfig) -> Iterator[tuple[ModelConfig, tuple[str, ...]]]:
    """`config` and configs of models that compute the same, the most alike first, and what to say about each."""
    same = without_idle(config)
    notes = () if same.window == config.window else (f"window={config.window} is as long as the context, so it is not written",)
    yield same, notes
    more: dict[Bias, tuple[Bias, ...]] = {"none": ("qkv", "all"), "qkv": ("all",), "all": ()}
    for bias in more[config.bias]:
        said = "biases of the query, key and value" if bias == "qkv" else "the missing biases"
        yield replace(same, bias=bias), (*notes, f"{said} are written as 0: the family has them, and the model computes the same")


def nearest(config: ModelConfig) -> tuple[Family, dict[str, tuple[Any, Any]]]:
    """The family with the fewest differences, and these: field → (ours, theirs)."""
    found = [(family, differences(family, same)) for same, _ in equivalents(config) for family in FAMILIES.values()]
    return min(found, key=lambda pair: len(pair[1]))


if __name__ == "__main__":
    from tiny_transformer.config import PRESETS

    for name, config in PRESETS.items():
        try:
            expression = express(config)
            print(f"{name:16} {expression.family.title:16} {'; '.join(expression.notes)}")
        except ConfigError as error:
            print(f"{name:16} {error}")
