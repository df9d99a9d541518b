"""Their names of the weights and ours, and the few ways in which the numbers lie differently: all of it goes both ways.

One rule pairs one of their tensors with one of ours, or with several of ours that lie on top of each other in theirs (GPT-2 keeps
query, key and value in one matrix), the whole perhaps transposed (GPT-2 keeps its matrices as (in, out), we as (out, in)).
Cutting and turning are views: nothing is copied here. Read before: `utils/safetensors_file.py`, `numpy_engine/model.py` (`weight_shapes`).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from tiny_transformer.config import ModelConfig
from tiny_transformer.numpy_engine.model import weight_shapes
from tiny_transformer.utils.safetensors_file import Array

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Rule:
    """One of their tensors, and what it is here. In both, `N` between dots counts the blocks from 0."""

    theirs: str
    ours: tuple[str, ...]
    """One name, or several from top to bottom."""
    transposed: bool = False
    """Theirs is (in, out)."""

    def their_shape(self, shapes: Shapes) -> tuple[int, ...]:
        """The shape of theirs, from the shapes of ours."""
        first = shapes[self.ours[0]]
        stacked = (sum(shapes[name][0] for name in self.ours), *first[1:])
        return stacked[::-1] if self.transposed else stacked

    def split(self, theirs: Array, shapes: Shapes) -> dict[str, Array]:
        """Their tensor as ours: views. `join` is the inverse."""
        stacked = theirs.T if self.transposed else theirs
        ends = np.cumsum([shapes[name][0] for name in self.ours])
        return {name: stacked[end - shapes[name][0] : end] for name, end in zip(self.ours, ends, strict=True)}

    def join(self, ours: Mapping[str, Array]) -> Array:
        """Our tensors as theirs, lying in memory as a file wants them."""
        stacked = ours[self.ours[0]] if len(self.ours) == 1 else np.concatenate([ours[name] for name in self.ours])
        return np.ascontiguousarray(stacked.T if self.transposed else stacked)


def rule(theirs: str, *ours: str, transposed: bool = False) -> Rule:
    """A line of a family's table.

    >>> rule("h.N.attn.c_proj.weight", "blocks.N.attention.out_proj.weight", transposed=True).ours
    ('blocks.N.attention.out_proj.weight',)
    """
    return Rule(theirs, ours, transposed)


def with_biases(rules: Iterable[Rule]) -> tuple[Rule, ...]:
    """The rules for weights, each followed by the same for the bias, which has no second side to turn."""

    def bias(name: str) -> str:
        return name.removesuffix("weight") + "bias"

    return tuple(r for one in rules for r in (one, Rule(bias(one.theirs), tuple(map(bias, one.ours)))))


def rules_of(table: Sequence[Rule], config: ModelConfig) -> list[Rule]:
    """The table written out for a model: each block's rules, and only those whose weights the model has."""
    shapes = weight_shapes(config)
    written = [
        replace(r, theirs=_numbered(r.theirs, block), ours=tuple(_numbered(name, block) for name in r.ours))
        for r in table
        for block in (range(config.n_layers) if ".N." in r.theirs else range(1))
    ]
    return [r for r in written if all(name in shapes for name in r.ours)]


def _numbered(name: str, block: int) -> str:
    return name.replace(".N.", f".{block}.")


if __name__ == "__main__":
    config = ModelConfig(vocab_size=5, max_seq_len=7, d_model=4, n_layers=1, n_heads=2)
    query_key_value = with_biases(
        [rule("h.N.attn.c_attn.weight", *(f"blocks.N.attention.W_{part}.weight" for part in ("query", "key", "value")), transposed=True)]
    )
    shapes = weight_shapes(config)
    for one in rules_of(query_key_value, config):
        theirs = np.random.default_rng(0).standard_normal(one.their_shape(shapes))
        ours = one.split(theirs, shapes)
        print(one.theirs, theirs.shape, "->", {name: part.shape for name, part in ours.items()})
        print("and back the same:", bool((one.join(ours) == theirs).all()))
