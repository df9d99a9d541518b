"""`tiny import`: other people's weights as a run, which every other command then reads. Read before: pretrained/loading.py, run.py."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro

from tiny_transformer.cli.screen import Screen
from tiny_transformer.cli.settings import parse
from tiny_transformer.config import check

if TYPE_CHECKING:
    from tiny_transformer.config import ModelConfig
    from tiny_transformer.model import TinyTransformerLM
    from tiny_transformer.pretrained.accounting import Source
    from tiny_transformer.pretrained.chat_template import ChatTemplate
    from tiny_transformer.tokenization.base import Tokenizer

DESCRIPTION = """\
Make a run of a Hugging Face directory: GPT-2, Llama 2 and 3, Mistral, Qwen 2, 2.5 and 3,
BERT. DIRECTORY holds config.json, the weights and perhaps a tokenizer; the name of a
downloaded model or a .gguf file will do too. RUN is the folder to make.

  tiny import path/to/directory checkpoints/theirs
  tiny import gpt2 checkpoints/gpt2       after: tiny download gpt2
  tiny generate checkpoints/gpt2 --prompt "Hello, I'm a language model,"
"""


@dataclass(frozen=True, kw_only=True)
class ImportSettings:
    """What `tiny import` accepts."""

    directory: tyro.conf.Positional[str | None] = None
    """The Hugging Face directory, the name of a downloaded model, or a .gguf file."""
    run: tyro.conf.Positional[str | None] = None
    """The run to make; one that is there already is kept under another name."""
    tokenizer: bool = True
    """Read the tokenizer and the chat template too; --no-tokenizer leaves them, for one that we don't have."""


def main(argv: list[str]) -> int:
    """Account for everything, read, write the run, say what was found."""
    settings = parse(ImportSettings, argv, command="import", description=DESCRIPTION)
    check(settings.directory is not None, "no directory named", "a Hugging Face directory is needed", "Try: tiny import DIRECTORY RUN")
    check(settings.run is not None, "no run named", "a place for the run is needed", "Try: tiny import DIRECTORY checkpoints/theirs")
    directory, screen = find(str(settings.directory)), Screen()
    if directory.suffix == ".gguf" and not directory.is_dir():
        return _import_gguf(directory, Path(str(settings.run)), screen, words=settings.tokenizer)
    from tiny_transformer.pretrained.accounting import open_source

    source = open_source(directory)  # before torch is loaded: what can't be done is said at once
    from tiny_transformer.pretrained.tokenizer_files import read_chat_template, read_tokenizer

    words = settings.tokenizer
    tokenizer = read_tokenizer(directory, source.family.name, source.config.vocab_size) if words else None
    template = read_chat_template(directory) if words else None
    path, moved = write_run(source, tokenizer, template, Path(str(settings.run)))
    for line in report(source, tokenizer, template):
        screen.say(line)
    if moved is not None:
        screen.say(f"the run that was there is now {moved}")
    screen.say(f"Next: {_next(source.config, tokenizer, template, path)}")
    return 0


def _import_gguf(file: Path, path: Path, screen: Screen, *, words: bool) -> int:
    """The same for one GGUF file."""
    from tiny_transformer.pretrained.gguf_file import open_gguf, read_gguf

    source = open_gguf(file)
    model, tokenizer = read_gguf(file, tokenizer=words)
    template = source.chat_template if words else None
    origin: dict[str, Any] = {"imported_from": str(file.resolve()), "family": source.architecture.name}
    made, moved = _write(origin, [file], model, tokenizer, template, path)
    kinds = sorted({entry.kind for entry in source.file.entries.values()})
    lines = _model_lines(source.config, f"GGUF's {source.architecture.name}", len(source.file.entries), kinds, tokenizer, template)
    if source.new:
        lines.append(f"note       not in the file, so they begin as in a new model: {', '.join(source.new)}")
    for line in lines:
        screen.say(line)
    if moved is not None:
        screen.say(f"the run that was there is now {moved}")
    screen.say(f"Next: {_next(source.config, tokenizer, template, made)}")
    return 0


def find(name: str) -> Path:
    """The directory that a word on the command line means: a path, or a model that `tiny download` has fetched."""
    from tiny_transformer.pretrained import published

    fetched = None if Path(name).exists() else published.find(name)
    known = name in published.PUBLISHED and fetched is None and not Path(name).exists()
    check(not known, f"there is no directory {name}", f"{name} must be downloaded first", f"Try: tiny download {name}")
    return fetched or Path(name)


def others_directory(name: str) -> Path | None:
    """The Hugging Face directory that a word means, a path or a downloaded model; None where it means a run or a file.

    A run of ours goes first, as in ./checkpoints. Raises ConfigError for a published model that is not downloaded yet.
    """
    from tiny_transformer.pretrained.published import PUBLISHED
    from tiny_transformer.run import PREFERRED, is_run

    folder = Path(name)
    if is_run(folder) or any((folder / file).is_file() for file in PREFERRED):
        return None
    published = name in PUBLISHED and not folder.exists() and not (Path("checkpoints") / name).exists()
    return find(name) if published or (folder / "config.json").is_file() else None


def write_run(
    source: "Source", tokenizer: "Tokenizer | None", template: "ChatTemplate | None", path: Path
) -> tuple[Path, Path | None]:
    """The run at `path`, with the weights as best.pt; and where an older one there was moved to."""
    from tiny_transformer.pretrained.loading import build

    origin: dict[str, Any] = {"imported_from": str(source.directory.resolve()), "family": source.family.name}
    files = sorted({entry.file for entry in source.files.entries.values()})
    return _write(origin, files, build(source), tokenizer, template, path)


def _write(
    origin: dict[str, Any], files: list[Path], model: "TinyTransformerLM", tokenizer: "Tokenizer | None", template: "ChatTemplate | None",
    path: Path,
) -> tuple[Path, Path | None]:  # fmt: skip
    from tiny_transformer.run import Run
    from tiny_transformer.utils.checkpoint import Checkpoint

    record, lineage = provenance(origin, files, model.config, template)
    run = Run.create(path, record)
    words = None if tokenizer is None else tokenizer.to_dict()
    run.save(Checkpoint(model.config, words, model.weights(), lineage=lineage), "best")
    return run.path, run.moved_aside


def provenance(
    origin: dict[str, Any], files: list[Path], config: "ModelConfig", template: "ChatTemplate | None"
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Where such a run comes from, with the files' digests: for its record, and for its checkpoint's lineage."""
    from tiny_transformer.corpora.transfer import sha256

    origin = {**origin, "sha256": {file.name: sha256(file) for file in files}}
    record = {"imported": origin, "model": config.to_dict(), "parameters": config.n_parameters, "prompt": None}
    return record, origin if template is None else {**origin, "chat_template": template.to_dict()}


def report(source: "Source", tokenizer: "Tokenizer | None", template: "ChatTemplate | None") -> list[str]:
    """What came, in a few lines."""
    kinds = sorted({entry.dtype for entry in source.files.entries.values()})
    lines = _model_lines(source.config, source.family.title, len(source.account.rules), kinds, tokenizer, template)
    return [*lines, *(f"note       {note}" for note in source.notes)]


def _model_lines(
    config: "ModelConfig", title: str, tensors: int, kinds: list[str], tokenizer: "Tokenizer | None", template: "ChatTemplate | None"
) -> list[str]:
    shape = f"{config.n_layers} layers, {config.n_heads} heads, {config.d_model} wide, context {config.max_seq_len:,}"
    words = "none" if tokenizer is None else f"{type(tokenizer).__name__}, {tokenizer.vocab_size:,} tokens"
    spare = 0 if tokenizer is None else config.vocab_size - tokenizer.vocab_size
    return [
        f"model      {title}: {config.n_parameters:,} parameters ({shape})",
        f"weights    {tensors} tensors, {', '.join(kinds)}, every name and shape accounted for",
        f"tokenizer  {words}" + (f"; the model has {spare:,} rows more, which stand for nothing" if spare else ""),
        *([] if template is None else ["chat       the model's own template, which tiny chat applies"]),
    ]


def _next(config: "ModelConfig", tokenizer: "Tokenizer | None", template: "ChatTemplate | None", path: Path) -> str:
    if tokenizer is None or not config.causal:
        return f"tiny inspect {path}"
    return f"tiny chat {path}" if template is not None else f'tiny generate {path} --prompt "Hello"'
