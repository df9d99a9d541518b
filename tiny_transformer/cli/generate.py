"""`tiny generate`: a trained model writes. The text goes to standard output, everything about it to standard error.

Read before: writing.py, settings.py.
"""

import json
import random
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

import tyro

from tiny_transformer.cli.drafts import check_draft, use_draft
from tiny_transformer.cli.engines import EngineName
from tiny_transformer.cli.screen import Screen, visible
from tiny_transformer.cli.settings import SampleFlags, checked, given, parse, unchecked, value_of, with_file
from tiny_transformer.cli.texts import prompt_note, save_text
from tiny_transformer.config import SAMPLING_PRESETS, SampleConfig, check, check_choice
from tiny_transformer.recipes import PROMPTS

if TYPE_CHECKING:
    from tiny_transformer.cli.writing import Writer

DESCRIPTION = """\
Let a trained model write. RUN is a run directory or a checkpoint file.

The same seed gives the same text; without one a fresh seed is drawn and named.

  tiny generate runs/a --prompt "ROMEO:" --preset creative
  tiny generate runs/a --compare
  tiny generate runs/a --batch --n 30 --output samples/gallery.txt
  tiny generate runs/a --draft runs/small
"""


@dataclass(frozen=True, kw_only=True)
class GenerateSettings:
    """What `tiny generate` accepts."""

    run: tyro.conf.Positional[str | None] = None
    """A run directory, or a checkpoint file."""
    checkpoint: str | None = None
    """The same as RUN, as a flag."""
    prompt: str | None = None
    """How the text begins; default: the opening that the run was shown with."""
    preset: str = "balanced"
    """focused, balanced or creative: where temperature and top-k start from."""
    compare: bool = False
    """Several strategies with one seed, and what can be counted in what they write."""
    batch: bool = False
    """Write many samples, each with its own seed."""
    n: int = 20
    """How many samples; naming a number means --batch."""
    output: str | None = None
    """Write to this file instead of the screen."""
    stream: bool = False
    """Print each character as soon as it is chosen; on a terminal this is always so."""
    config: str | None = None
    """Read sampling settings from this TOML file; flags win over it."""
    json: bool = False
    """Print the texts and their settings as one JSON object."""
    engine: EngineName = "torch"
    """torch, or numpy: the same text without PyTorch, from a run that was trained with it."""
    draft: str | None = None
    """Speculative decoding: a smaller run of the same tokenizer, or ngram, guesses ahead; the same distribution in less time."""
    draft_tokens: int = 4
    """How many tokens the draft guesses at a time."""
    int8: bool = False
    """Round the weights to 8 bits first: a quarter of the memory, faster on a processor, and almost the same model."""
    measure: bool = False
    """Also count variety, repetition and copying from the training text in what it writes."""
    sampling: SampleFlags = field(default_factory=SampleFlags)
    """How it writes."""


def main(argv: list[str]) -> int:
    """Load, write, show."""
    settings, sampling = read_settings(argv)
    path = settings.run or settings.checkpoint
    many = settings.batch or "n" in given(argv)
    check(not (many and settings.compare), "--compare with --batch", "only one of them can be done at a time", "Leave one out")
    check_draft(settings, sampling, given(argv))
    check(path is not None, "no model named", "a run or a checkpoint is needed", "Try: tiny generate checkpoints/demo (see tiny runs)")
    from tiny_transformer.cli.writing import open_writer  # torch: two seconds that bad flags need not wait for

    writer = open_writer(str(path), settings.engine, int8=settings.int8)
    if settings.draft is not None:
        use_draft(writer, settings.draft, settings.draft_tokens)
    prompt = writer.prompt(settings.prompt)
    if settings.compare:
        return _compare(settings, sampling, writer, prompt)
    if many:
        return _batch(settings, sampling, writer, prompt)
    return _single(settings, sampling, writer, prompt)


def read_settings(
    argv: Sequence[str], cls: Any = GenerateSettings, command: str = "generate", description: str = DESCRIPTION
) -> tuple[Any, SampleConfig]:
    """The flags, and the checked sampling settings with a seed drawn where none was given."""
    tokens = with_file(argv, ("sampling",), ("prompt",) if cls is GenerateSettings else ())
    name = value_of(tokens, "preset") or "balanced"
    check_choice("preset", name, tuple(SAMPLING_PRESETS))
    default = cls(sampling=unchecked(SampleFlags, SAMPLING_PRESETS[name]))
    settings = parse(cls, tokens, command=command, description=description, default=default)
    sampling = checked(SampleConfig, settings.sampling)
    check(getattr(settings, "n", 1) >= 1, f"n={getattr(settings, 'n', 1)}", "it must be at least 1", "Try --n 20")
    check(sampling.seed is None or sampling.seed >= 0, f"seed={sampling.seed}", "it must be 0 or more", "Try --seed 1")
    return settings, sampling if sampling.seed is not None else replace(sampling, seed=random.SystemRandom().randrange(2**31))


def about(text: str) -> None:
    """A line about the text: never mixed into it."""
    print(text, file=sys.stderr)


def _single(settings: GenerateSettings, sampling: SampleConfig, writer: "Writer", prompt: str) -> int:
    from tiny_transformer.cli.writing import settings_line

    if settings.json or settings.output:
        text = writer.generator.generate(prompt, sampling)
        _deliver(settings, text, _as_json(writer, prompt, [("", sampling, text)]))
    elif settings.stream or sys.stdout.isatty():
        text = _stream(writer, prompt, sampling)
    else:
        text = writer.generator.generate(prompt, sampling)
        print(text)
    about(f"{writer.describe()}: {settings_line(sampling)}, seed {sampling.seed}")
    _tell_draft(settings, writer)
    _tell(prompt_note(prompt, writer.training_text))
    if settings.measure:
        from tiny_transformer.evaluation.repetition import Source, repetition

        source = writer.training_text
        about(str(repetition(text.removeprefix(prompt), None if source is None else Source(source))))
    return 0


def _tell_draft(settings: GenerateSettings, writer: "Writer") -> None:
    if writer.drafted is not None:
        about(f"draft {settings.draft}: {writer.drafted.tally}")


def _tell(note: str | None) -> None:
    if note:
        about(f"note: {note}")


def _stream(writer: "Writer", prompt: str, sampling: SampleConfig) -> str:
    """Print the text piece by piece, and return it with its prompt."""
    harmless = visible if sys.stdout.isatty() else str
    print(harmless(prompt), end="", flush=True)
    pieces = [prompt]
    for piece in writer.generator.stream(prompt, sampling):
        pieces.append(piece)
        print(harmless(piece), end="", flush=True)
    print()
    return "".join(pieces)


def _compare(settings: GenerateSettings, sampling: SampleConfig, writer: "Writer", prompt: str) -> int:
    from tiny_transformer.cli.writing import show_strategies, strategies, write_all

    texts = write_all(writer.generator, prompt, strategies(sampling))
    if settings.json:
        print(_as_json(writer, prompt, texts))
        return 0
    screen = Screen()
    lines: list[str] = []
    screen.logs.append(lines.append)
    screen.say(f"{writer.describe()}: seed {sampling.seed}")
    show_strategies(screen, texts, prompt, writer.training_text)
    _tell(prompt_note(prompt, writer.training_text))
    if settings.output:
        _write(settings.output, "\n".join(lines) + "\n")
    return 0


def _batch(settings: GenerateSettings, sampling: SampleConfig, writer: "Writer", prompt: str) -> int:
    from tiny_transformer.cli.writing import gallery, settings_line

    prompts = [prompt] if settings.prompt is not None else _openings(writer, prompt)
    rows = list(gallery(writer.generator, prompts, sampling, settings.n))
    if settings.json:
        _deliver(settings, "", _as_json(writer, prompt, [("", replace(sampling, seed=seed), text) for seed, _, text in rows]))
        _tell_draft(settings, writer)
        return 0
    head = [
        f"# {settings.n} samples from {writer.describe()}",
        f"# {settings_line(sampling)}, {sampling.max_tokens} tokens each, seeds {sampling.seed} to {(sampling.seed or 0) + settings.n - 1}",
        f"# one of them again: tiny generate {writer.path} --seed SEED --prompt PROMPT, with the same settings",
        *(f"# note: {note}" for p in dict.fromkeys(prompts) if (note := prompt_note(p, writer.training_text))),
    ]
    parts = [f"\n=== {i} of {settings.n} · seed {seed} · prompt {p!r} ===\n{text}" for i, (seed, p, text) in enumerate(rows, 1)]
    _deliver(settings, "\n".join([*head, *parts]), None)
    _tell_draft(settings, writer)
    return 0


def _openings(writer: "Writer", prompt: str) -> list[str]:
    """Different prompts for a gallery, as far as the text they belong to is known and the model can read them."""
    known = PROMPTS.get(str(writer.record.get("corpus", {}).get("name")), ())
    return [prompt, *(p for p in known if p != prompt and _readable(writer, p))]


def _readable(writer: "Writer", prompt: str) -> bool:
    try:
        return bool(writer.tokenizer.encode(prompt))
    except ValueError:
        return False


def _as_json(writer: "Writer", prompt: str, texts: Sequence[tuple[str, SampleConfig, str]]) -> str:
    from tiny_transformer.cli.writing import measures

    source = writer.training_text
    samples = [
        {"strategy": name or None, "settings": asdict(settings), "text": text, "measures": measures(text.removeprefix(prompt), source)}
        for name, settings, text in texts
    ]
    note = prompt_note(prompt, source)
    return json.dumps({"checkpoint": str(writer.path), "step": writer.step, "prompt": prompt, "note": note, "samples": samples})


def _deliver(settings: GenerateSettings, text: str, as_json: str | None) -> None:
    """To the file or the screen; JSON when it was asked for."""
    content = as_json if settings.json and as_json is not None else text
    if settings.output:
        _write(settings.output, content + "\n")
    else:
        print(content)


def _write(path: str, content: str) -> None:
    """The whole file or none of it."""
    save_text(path, content)
    about(f"written to {path}")
