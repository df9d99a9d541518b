"""Where text comes from: named corpora, your own files, and what can be counted in them.

`load(name_or_path)` gives a `Corpus`; `names()` and `describe()` say which names there are.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tiny_transformer.corpora.corpus import Corpus, CorpusInfo
    from tiny_transformer.corpora.library import describe, load, names

__all__ = ["Corpus", "CorpusInfo", "describe", "load", "names"]


def __getattr__(name: str) -> Any:
    """`corpora.load` and friends, imported when they are asked for."""
    if name in __all__:
        from tiny_transformer.corpora import corpus, library

        return getattr(corpus if name.startswith("Corpus") else library, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
