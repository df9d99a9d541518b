"""`tiny data batch`: what a model is shown. A batch aligned with its targets, how often tokens occur, what an epoch has touched.

Read before: training/dataset.py, training/batch_views.py.
"""

from dataclasses import dataclass, field

import tyro

from tiny_transformer import corpora
from tiny_transformer.cli.material import gather
from tiny_transformer.cli.noise import Noise
from tiny_transformer.cli.screen import Screen
from tiny_transformer.cli.settings import DataFlags, checked, parse
from tiny_transformer.config import DataConfig, check
from tiny_transformer.training.batch_views import coverage, coverage_report, frequency_table, show, token_counts, token_text
from tiny_transformer.training.dataset import batch_at

DESCRIPTION = """\
What training reads: a batch with its targets under it, how often tokens occur,
and how much of the text so many steps have touched.

  tiny data batch --corpus shakespeare --tokenizer bpe --vocab-size 512
  tiny data batch --data tokens --step 7 --steps 2000
"""


@dataclass(frozen=True, kw_only=True)
class BatchSettings:
    """What `tiny data batch` accepts."""

    name: tyro.conf.Positional[str | None] = None
    """A built-in text, a file, or a folder of token files; the same as --corpus or --data."""
    batch_size: int = 2
    """Rows of the batch that is shown."""
    max_seq_len: int = 32
    """Tokens in a row."""
    step: int = 0
    """Which step's batch: the one that training with this seed and these sizes reads."""
    seed: int = 1337
    """The training seed."""
    steps: int = 1000
    """Steps whose reach is shown."""
    train_batch_size: int = 32
    """Rows of a training step, for that."""
    top: int = 15
    """How many of the most frequent tokens are shown."""
    data: DataFlags = field(default_factory=DataFlags)
    """What is read, and how it becomes tokens."""


def main(argv: list[str]) -> int:
    """Read, then show three views."""
    settings = parse(BatchSettings, argv, command="data batch", description=DESCRIPTION)
    for name, least in (("batch_size", 1), ("max_seq_len", 1), ("step", 0), ("seed", 0), ("steps", 1), ("train_batch_size", 1), ("top", 1)):
        value = getattr(settings, name)
        check(value >= least, f"{name}={value}", f"it must be {least} or more", f"Try {name}={max(least, 1)}")
    data = checked(DataConfig, settings.data, **_named(settings))
    check(data.corpus is not None or data.data is not None, "no text", "there must be one to look at", "Try: tiny data batch pitches")
    material, notes = gather(data, Noise(), settings.seed)
    screen = Screen()
    for note in notes:
        screen.say(note, style="yellow")
    ids, text_of = material.train_ids, token_text(material.tokenizer)
    screen.say(f"{material.reading.corpus.source}: {material.size()}, {material.tokenizer.vocab_size:,} different tokens")
    screen.heading(f"the batch of step {settings.step}, {settings.batch_size} × {settings.max_seq_len}, seed {settings.seed}")
    batch = batch_at(ids, settings.batch_size, settings.max_seq_len, settings.seed, settings.step)
    screen.say(show(batch, text_of, min(screen.console.width, 100)))
    screen.heading("how often tokens occur in the training text")
    screen.say(frequency_table(token_counts(ids, material.tokenizer.vocab_size), text_of, settings.top))
    screen.heading(f"what {settings.steps:,} steps of {settings.train_batch_size} × {settings.max_seq_len} have asked for")
    seen = coverage(len(ids), settings.train_batch_size, settings.max_seq_len, settings.seed, settings.steps)
    screen.say(coverage_report(seen, min(screen.console.width, 80) - 8))
    return 0


def _named(settings: BatchSettings) -> dict[str, str]:
    """The one text that the bare name means."""
    if settings.name is None:
        return {}
    both = settings.data.corpus is not None or settings.data.data is not None
    check(not both, f"{settings.name} beside --corpus or --data", "only one text can be read", "Leave one out")
    return {"corpus" if settings.name in corpora.names() else "data": settings.name}
