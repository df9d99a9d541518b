"""`tiny import`: other people's weights as a run, which every other command then reads. Read before: pretrained/loading.py, run.py."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro

from tiny_transformer.cli.screen import Screen
from tiny_transformer.cli.settings import parse
from tiny_transformer.config import check

if TYPE_CHECKING:
    from tiny_transformer.pretrained.accounting import Source
    from tiny_transformer.pretrained.chat_template import ChatTemplate
    from tiny_transformer.tokenization.base import Tokenizer

DESCRIPTION = """\
Make a run of a Hugging Face directory: GPT-2, Llama 2 and 3, Mistral, Qwen 2, 2.5 and 3,
BERT. DIRECTORY holds config.json, the weights and perhaps a tokenizer; the name of a
downloaded model will do too. RUN is the folder to make.

  tiny import path/to/directory checkpoints/theirs
  tiny import gpt2 checkpoints/gpt2       after: tiny download gpt2
  tiny generate checkpoints/gpt2 --prompt "Hello, I'm a language model,"
"""


@dataclass(frozen=True, kw_only=True)
class ImportSettings:
    """What `tiny import` accepts."""

    directory: tyro.conf.Positional[str | None] = None
    """The Hugging Face directory, or the name of a downloaded model."""
    run: tyro.conf.Positional[str | None] = None
    """The run to make; one that is there already is kept under another name."""


def main(argv: list[str]) -> int:
    """Account for everything, read, write the run, say what was found."""
    settings = parse(ImportSettings, argv, command="import", description=DESCRIPTION)
    check(settings.directory is not None, "no directory named", "a Hugging Face directory is needed", "Try: tiny import DIRECTORY RUN")
    check(settings.run is not None, "no run named", "a place for the run is needed", "Try: tiny import DIRECTORY checkpoints/theirs")
    directory, screen = find(str(settings.directory)), Screen()
    from tiny_transformer.pretrained.accounting import open_source

    source = open_source(directory)  # before torch is loaded: what can't be done is said at once
    from tiny_transformer.pretrained.tokenizer_files import read_chat_template, read_tokenizer

    tokenizer = read_tokenizer(directory, source.family.name, source.config.vocab_size)
    template = read_chat_template(directory)
    path, moved = write_run(source, tokenizer, template, Path(str(settings.run)))
    for line in report(source, tokenizer, template):
        screen.say(line)
    if moved is not None:
        screen.say(f"the run that was there is now {moved}")
    screen.say(f"Next: {_next(source, tokenizer, template, path)}")
    return 0


def find(name: str) -> Path:
    """The directory that a word on the command line means: a path, or a model that `tiny download` has fetched."""
    from tiny_transformer.pretrained import published

    fetched = None if Path(name).exists() else published.find(name)
    known = name in published.PUBLISHED and fetched is None and not Path(name).exists()
    check(not known, f"there is no directory {name}", f"{name} must be downloaded first", f"Try: tiny download {name}")
    return fetched or Path(name)


def write_run(
    source: "Source", tokenizer: "Tokenizer | None", template: "ChatTemplate | None", path: Path
) -> tuple[Path, Path | None]:
    """The run at `path`, with the weights as best.pt; and where an older one there was moved to."""
    from tiny_transformer.pretrained.loading import build
    from tiny_transformer.run import Run
    from tiny_transformer.utils.checkpoint import Checkpoint

    model = build(source)
    record, lineage = origin(source, template)
    run = Run.create(path, record)
    words = None if tokenizer is None else tokenizer.to_dict()
    run.save(Checkpoint(source.config, words, model.weights(), lineage=lineage), "best")
    return run.path, run.moved_aside


def origin(source: "Source", template: "ChatTemplate | None") -> tuple[dict[str, Any], dict[str, Any]]:
    """Where such a run comes from: for its record, and for its checkpoint's lineage."""
    from tiny_transformer.corpora.transfer import sha256

    files = sorted({entry.file for entry in source.files.entries.values()})
    digests = {file.name: sha256(file) for file in files}
    found: dict[str, Any] = {"imported_from": str(source.directory.resolve()), "family": source.family.name, "sha256": digests}
    record = {"imported": found, "model": source.config.to_dict(), "parameters": source.config.n_parameters, "prompt": None}
    return record, found if template is None else {**found, "chat_template": template.to_dict()}


def report(source: "Source", tokenizer: "Tokenizer | None", template: "ChatTemplate | None") -> list[str]:
    """What came, in a few lines."""
    config, kinds = source.config, sorted({entry.dtype for entry in source.files.entries.values()})
    shape = f"{config.n_layers} layers, {config.n_heads} heads, {config.d_model} wide, context {config.max_seq_len:,}"
    words = "none in the directory" if tokenizer is None else f"{type(tokenizer).__name__}, {tokenizer.vocab_size:,} tokens"
    spare = 0 if tokenizer is None else config.vocab_size - tokenizer.vocab_size
    lines = [
        f"model      {source.family.title}: {config.n_parameters:,} parameters ({shape})",
        f"weights    {len(source.account.rules)} tensors, {', '.join(kinds)}, every name and shape accounted for",
        f"tokenizer  {words}" + (f"; the model has {spare:,} rows more, which stand for nothing" if spare else ""),
        *([] if template is None else ["chat       the model's own template, which tiny chat applies"]),
    ]
    return [*lines, *(f"note       {note}" for note in source.notes)]


def _next(source: "Source", tokenizer: "Tokenizer | None", template: "ChatTemplate | None", path: Path) -> str:
    if tokenizer is None or not source.config.causal:
        return f"tiny inspect {path}"
    return f"tiny chat {path}" if template is not None else f'tiny generate {path} --prompt "Hello"'
