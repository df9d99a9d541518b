"""Tech start-up pitches: an endless play with speakers, whose entropy is known exactly.

The sentences come from a hand-written probabilistic context-free grammar (`pitch_rules.py`). It is prefix-free, so every
text has exactly one derivation (`grammar.py` says why, `check_unambiguous` decides it), and the entropy of the source is
a sum over the grammar: `entropy()`, without any sampling.

What that means for a model. Its loss, in nats per character, is the entropy of the source plus how much its
probabilities differ from the true ones, which is never negative (Gibbs' inequality). So over long texts that the
model has not seen in training, no causal model's loss is below `entropy()`; the distance to it is what is left to
learn. Two remarks. A finite text has its own figure, a little above or below: `-log_probability(text) / len(text)`.
And a model whose window opens in the middle of a scene lacks what came before, so it stays above the floor.

Each scene chooses one company and keeps its name and its goods: only by looking back can they be predicted.
Read before: `grammar.py`.
"""

import random
from collections.abc import Iterator
from functools import cache

from tiny_transformer.config import check
from tiny_transformer.corpora.grammar import Grammar, Symbol, bind
from tiny_transformer.corpora.pitch_rules import COMPANIES, RULES

SEED = 1
"""The corpus `pitches` is the stream of this seed."""


@cache
def grammar() -> Grammar:
    """The grammar of one scene."""
    return Grammar(bind(RULES, "scene", COMPANIES), start="scene")


def check_unambiguous() -> None:
    """Raise ConfigError unless every stream of scenes has exactly one derivation. Takes a third of a second.

    The forty companies' rules are copies of each other, so the copies are not checked one by one, but all at once: with
    the name and the goods left free to change from word to word, which only adds texts, the rules are still prefix-free.
    And two companies' scenes cannot begin one another: they would have the same derivation, but every scene has an
    entrance, and every entrance says the name.
    """
    free = Grammar({**RULES, **{key: [company[key] for company in COMPANIES] for key in COMPANIES[0]}}, start="scene")
    free.check_prefix_free()
    for symbol, part in (("scene", Symbol("entrance")), ("entrance", Symbol("name"))):
        everywhere = all(part in alternative.parts for alternative in free.rules[Symbol(symbol)])
        check(everywhere, f"not every <{symbol}> has an <{part.name}>", "it must say which company this is", "Add it")


def entropy() -> float:
    """The exact entropy of the source, in nats per character."""
    return grammar().entropy_rate


def scenes(seed: int = SEED) -> Iterator[str]:
    """Independent scenes without end, the same ones for the same seed on every machine."""
    rng = random.Random(seed)
    while True:
        yield grammar().sample(rng)[0]


def text(size: int, seed: int = SEED) -> str:
    """Whole scenes, at least `size` characters of them."""
    pieces: list[str] = []
    length = 0
    for scene in scenes(seed):
        if length >= size:
            break
        pieces.append(scene)
        length += len(scene)
    return "".join(pieces)


def log_probability(scene_or_scenes: str) -> float:
    """ln of the probability of these whole scenes, by parsing them; -inf when they are no scenes of this grammar."""
    return grammar().log_probability(scene_or_scenes)


if __name__ == "__main__":
    scene = next(scenes(random.randrange(10**6)))
    print(scene)
    own = -log_probability(scene) / len(scene)
    made = grammar()
    print(f"this scene: {len(scene)} characters, {own:.4f} nats per character, {made.parse(scene).derivations} derivation")
    print(f"the source: {made.entropy:.4f} nats / {made.mean_length:.4f} characters = {entropy():.6f} nats per character, exactly")
