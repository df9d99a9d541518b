"""`tiny chat`: type an opening, the model continues it; commands begin with a slash. Works from a pipe too.

Read before: writing.py, generate.py.
"""

import atexit
import contextlib
import os
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro

from tiny_transformer.cli.conversation import Conversation
from tiny_transformer.cli.drafts import check_draft, use_draft
from tiny_transformer.cli.engines import EngineName
from tiny_transformer.cli.generate import read_settings
from tiny_transformer.cli.main import unknown
from tiny_transformer.cli.screen import visible
from tiny_transformer.cli.settings import SampleFlags, given
from tiny_transformer.cli.texts import prompt_note, save_text
from tiny_transformer.config import SAMPLING_PRESETS, SampleConfig, check, check_choice

if TYPE_CHECKING:
    from tiny_transformer.cli.writing import Writer

DESCRIPTION = """\
Type openings, the model continues them. RUN is a run directory or a checkpoint file.

An empty line continues the last text; lines that begin with a slash are
commands (/help lists them). Ctrl-C stops a text, Ctrl-D leaves.
A chat model that came with a template of its own (tiny import) answers messages.
"""

HELP = """\
  TEXT               the model continues it (\\n in it means a new line)
  (an empty line)    goes on with the last text
  /temperature 0.8   bolder above, safer below; 0 always takes the likeliest
  /topk 40  /topp 0.9  /minp 0.1   filters; `off` switches one off
  /tokens 200        how much to write
  /preset NAME       focused, balanced or creative
  /seed 7            the same texts every time; `off` for fresh ones
  /settings          what is set
  /reset             forget the last text, and begin with the first settings again
  /save FILE         write everything said so far to a file
  /quit              leave (or Ctrl-D)"""


@dataclass(frozen=True, kw_only=True)
class ChatSettings:
    """What `tiny chat` accepts."""

    run: tyro.conf.Positional[str | None] = None
    """A run directory, or a checkpoint file."""
    checkpoint: str | None = None
    """The same as RUN, as a flag."""
    preset: str = "balanced"
    """focused, balanced or creative: where temperature and top-k start from."""
    config: str | None = None
    """Read sampling settings from this TOML file; flags win over it."""
    engine: EngineName = "torch"
    """torch, or numpy: the same text without PyTorch, from a run that was trained with it."""
    draft: str | None = None
    """Speculative decoding: a smaller run of the same tokenizer, or ngram, guesses ahead; the same distribution in less time."""
    draft_tokens: int = 4
    """How many tokens the draft guesses at a time."""
    int8: bool = False
    """Round the weights to 8 bits first: a quarter of the memory, faster on a processor, and almost the same model."""
    sampling: SampleFlags = field(default_factory=SampleFlags)
    """How it writes."""


def main(argv: list[str]) -> int:
    """Load, then read lines until there are no more."""
    settings, sampling = read_settings(argv, ChatSettings, "chat", DESCRIPTION)
    path = settings.run or settings.checkpoint
    check_draft(settings, sampling, given(argv))
    check(path is not None, "no model named", "a run or a checkpoint is needed", "Try: tiny chat checkpoints/demo (see tiny runs)")
    from tiny_transformer.cli.writing import open_writer  # torch: two seconds that bad flags need not wait for

    writer = open_writer(str(path), settings.engine, int8=settings.int8)
    if settings.draft is not None:
        use_draft(writer, settings.draft, settings.draft_tokens)
    with_history = sys.stdin.isatty() and _remember_lines()
    chats = Conversation.of(writer.lineage) is not None
    arrows = ", arrow keys bring lines back" if with_history else ""
    print(f"{writer.describe()}\nType {'a message' if chats else 'an opening'}; /help lists the commands{arrows}.")
    Chat(writer, sampling).loop()
    return 0


class Chat:
    """A conversation with a text-continuing model: each line is a new opening, an empty one goes on."""

    def __init__(self, writer: "Writer", settings: SampleConfig) -> None:
        self.writer = writer
        self.first = self.settings = settings
        self.text = ""
        self.conversation = Conversation.of(writer.lineage)
        self.transcript: list[str] = []
        self.commands: dict[str, Callable[[str], None]] = {
            "help": lambda _: print(HELP),
            "temperature": lambda value: self._set("temperature", value, float),
            "temp": lambda value: self._set("temperature", value, float),
            "topk": lambda value: self._set("top_k", value, int),
            "topp": lambda value: self._set("top_p", value, float),
            "minp": lambda value: self._set("min_p", value, float),
            "tokens": lambda value: self._set("max_tokens", value, int),
            "seed": self._seed,
            "preset": self._preset,
            "settings": lambda _: self._show_settings(),
            "reset": lambda _: self._reset(),
            "save": self._save,
        }

    def loop(self) -> None:
        """Read and answer until /quit or the end of input."""
        while True:
            try:
                line = input("> ")
            except EOFError:
                print()
                return
            except KeyboardInterrupt:
                print("\n(Ctrl-D or /quit leaves)")
                continue
            if not self.handle(line):
                return

    def handle(self, line: str) -> bool:
        """Answer one line; False when it asks to leave. A mistake is one line, never the end."""
        name, _, value = line[1:].strip().partition(" ") if line.startswith("/") else ("", "", "")
        name = re.sub(r"[-_]", "", name.lower())
        if name in ("quit", "exit", "q"):
            return False
        try:
            if not line.startswith("/"):
                (self.write if self.conversation is None else self.answer)(line.replace("\\n", "\n"))
            elif name in self.commands:
                self.commands[name](value.strip())
            else:
                print(unknown("command", "/" + name, ["/" + known for known in (*self.commands, "quit")]))
        except (ValueError, OSError) as error:
            print(f"({error})")
        return True

    def answer(self, said: str) -> None:
        """A chat model's answer, to its own template's form of the whole dialogue."""
        talk = self.conversation
        if talk is None or not said:
            return
        pieces = self._show(self.writer.generator.stream(talk.prompt(said), talk.settings(self.settings)))
        talk.keep(said, "".join(pieces).strip())
        self.transcript.append(f"> {said}\n{talk.messages[-1]['content']}")
        self._next_seed()

    def write(self, opening: str) -> None:
        """Continue an opening, or the last text when it is empty; each character is shown as soon as it is chosen."""
        prompt = opening or self.text or self.writer.prompt(None)
        self.writer.tokenizer.encode(prompt)
        note = prompt_note(opening, self.writer.training_text)
        if note:
            print(f"(note: {note})")
        print(visible(prompt) if opening or not self.text else "", end="", flush=True)
        pieces = [prompt, *self._show(self.writer.generator.stream(prompt, self.settings))]
        self.text = "".join(pieces)
        self.transcript.append(self.text if opening else "".join(pieces[1:]))
        self._next_seed()

    def _show(self, stream: Iterator[str]) -> list[str]:
        """Print the pieces as they come, until the end or Ctrl-C; gives those that came."""
        pieces: list[str] = []
        try:
            for piece in stream:
                pieces.append(piece)
                print(visible(piece), end="", flush=True)
        except KeyboardInterrupt:
            print(" (stopped)", end="")
        print()
        return pieces

    def _next_seed(self) -> None:
        """The same opening twice should not give the same text twice."""
        self.settings = replace(self.settings, seed=((self.settings.seed or 0) + 1) % 2**31)

    def _set(self, name: str, value: str, kind: Callable[[str], Any]) -> None:
        if not value:
            print(f"{name} = {getattr(self.settings, name)}")
            return
        try:
            number = None if value == "off" else kind(value)
        except ValueError:
            wanted = "whole number" if kind is int else "number"
            raise ValueError(f"{value!r} is not a {wanted}. Try /{name.replace('_', '')} {getattr(SampleConfig(), name) or 0.9}") from None
        check(number is not None or name in ("top_k", "top_p", "min_p"), f"{name} off", "it must be a number", "Try /settings")
        change: dict[str, Any] = {name: number}
        self.settings = replace(self.settings, **change)
        self._show_settings()

    def _seed(self, value: str) -> None:
        if value == "off":
            value = str(int.from_bytes(os.urandom(3)))
        check(value.isdigit(), f"seed {value!r}", "it must be a whole number", "Try /seed 7")
        self.settings = replace(self.settings, seed=int(value))
        self._show_settings()

    def _preset(self, value: str) -> None:
        check_choice("preset", value, tuple(SAMPLING_PRESETS))
        self.settings = replace(SAMPLING_PRESETS[value], seed=self.settings.seed, max_tokens=self.settings.max_tokens)
        self._show_settings()

    def _show_settings(self) -> None:
        from tiny_transformer.cli.writing import settings_line

        print(f"({settings_line(self.settings)}, {self.settings.max_tokens} tokens, next seed {self.settings.seed})")
        if self.writer.drafted is not None:
            print(f"(the draft so far: {self.writer.drafted.tally})")

    def _reset(self) -> None:
        self.settings, self.text, self.conversation = self.first, "", Conversation.of(self.writer.lineage)
        print("(a new page)")

    def _save(self, value: str) -> None:
        check(bool(value), "/save without a name", "it needs a file to write", "Try /save chat.txt")
        save_text(value, "\n\n".join(self.transcript) + "\n")
        print(f"({len(self.transcript)} texts written to {value})")


def _remember_lines() -> bool:
    """Line editing with a history that lasts, where the platform has it."""
    try:
        import readline
    except ImportError:
        return False
    file = _history_file()
    with contextlib.suppress(OSError):
        readline.read_history_file(file)
    readline.set_history_length(1000)
    atexit.register(_write_history, readline, file)
    return True


def _history_file() -> Path:
    cache = os.environ.get("TINY_CACHE")
    return (Path(cache) if cache else Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "tiny-transformer") / "history"


def _write_history(readline: Any, file: Path) -> None:
    with contextlib.suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        readline.write_history_file(file)
