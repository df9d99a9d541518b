"""`--draft`: a quick model, or counts of the training text, that guesses what the model then checks; for generate and chat.

Read before: sampling/speculative.py, writing.py.
"""

from collections.abc import Set
from typing import TYPE_CHECKING, Any

from tiny_transformer.config import SampleConfig, check

if TYPE_CHECKING:
    from tiny_transformer.cli.writing import Writer

NGRAM = "ngram"
"""The name of the draft that needs no second run."""
MOST_COUNTED = 2_000_000
"""Characters of the training text that are counted for it: a second's work."""


def check_draft(settings: Any, sampling: SampleConfig, given: Set[str]) -> None:
    """Raise ConfigError for flags that do not go with a draft, before anything is loaded."""
    if settings.draft is None:
        check("draft_tokens" not in given, "--draft-tokens without --draft", "there is nobody to guess", "Name a draft, or leave it out")
        return
    check(settings.draft_tokens >= 1, f"draft_tokens={settings.draft_tokens}", "it must be at least 1", "Try --draft-tokens 4")
    check(settings.engine == "torch", f"--draft with --engine {settings.engine}", "only PyTorch's engine can do it", "Leave one out")
    check(sampling.beams == 1, f"--draft with --beams {sampling.beams}", "a draft guesses for one text that is drawn", "Leave one out")
    compare = getattr(settings, "compare", False)
    check(not compare, "--draft with --compare", "a draft changes the speed, not the strategy", "Leave one out")


def use_draft(writer: "Writer", name: str, guesses: int) -> None:
    """Let the writer's generator be one with a draft: a run or checkpoint, or `ngram`.

    Raises ValueError naming what is wrong with the path or file, or for a draft with another tokenizer.
    """
    from tiny_transformer.sampling.speculative import SpeculativeGenerator

    draft = _ngrams(writer) if name == NGRAM else _model(writer, name)
    writer.drafted = SpeculativeGenerator(writer.model, writer.tokenizer, draft, guesses)


def _model(writer: "Writer", name: str) -> Any:
    from tiny_transformer.cli.writing import open_writer

    other = open_writer(name)
    same = other.tokenizer.to_dict() == writer.tokenizer.to_dict()
    got = f"--draft {other.path} has another tokenizer than {writer.path}"
    check(same, got, "both must read the same tokens", "Train both on one text, or with one --tokenizer-file; or try --draft ngram")
    return other.model


def _ngrams(writer: "Writer") -> Any:
    """Counts of the text that the model learned from, where it can be had; else of the text so far alone."""
    from tiny_transformer.sampling.ngram_draft import NgramDraft

    ids = writer.tokenizer.encode_array((writer.training_text or "")[:MOST_COUNTED])
    return NgramDraft(writer.tokenizer.vocab_size, ids)
