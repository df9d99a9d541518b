"""One voice for everything the commands print: rich on a terminal, plain lines elsewhere, the same words in the log.

A terminal gets colours and a moving bar; a pipe or a file gets lines without a single control character. Log files get
the plain form as well. Left out: what is said. Read before: nothing.
"""

import io
import sys
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich import box
from rich.console import Console, RenderableType
from rich.panel import Panel
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID
from rich.table import Table
from rich.text import Text

LOG_WIDTH = 100
"""Columns of a heading's rule in a pipe, a file or a log."""
NO_EDGE = 1000
"""A pipe, a file and a log have no edge: a table is as wide as it needs."""
ACCENT = "cyan"
HARMLESS = "\n\t\u200c\u200d"
"""Characters that Python calls not printable and that a terminal may have: line feed, tab, and the two joiners."""


class Screen:
    """Prints to the terminal and to any number of listeners (log files) that receive plain text."""

    def __init__(self, *, to_stderr: bool = False) -> None:
        plain = not (sys.stderr if to_stderr else sys.stdout).isatty()
        self.console = Console(stderr=to_stderr, highlight=False, width=NO_EDGE if plain else None)
        self.live = self.console.is_terminal and not self.console.is_dumb_terminal
        self.logs: list[Callable[[str], None]] = []

    def say(self, what: RenderableType = "", style: str = "") -> None:
        """Print a text (never read as markup) or anything rich can draw, and log its plain form."""
        shown = Text(what, style=style) if isinstance(what, str) else what
        self.console.print(shown, soft_wrap=isinstance(what, str) and not self.live)
        self.log(what if isinstance(what, str) else plain_text(shown))

    def log(self, text: str) -> None:
        """Write plain text to the logs only."""
        for log in self.logs:
            log(text)

    def warn(self, text: str) -> None:
        """A line that should not be overlooked."""
        self.console.print(Text.assemble(("warning: ", "bold yellow"), (text, "yellow")), soft_wrap=not self.live)
        self.log(f"warning: {text}")

    def sample(self, title: str, text: str, *, prompt: str = "", lines: int = 1000) -> None:
        """Something a model wrote: in a frame on a terminal, behind a bar elsewhere. Shows `lines` lines, logs all."""
        if self.live:
            self.console.print(sample_panel(title, clip(text.rstrip("\n"), lines), prompt=prompt))
        else:
            self.console.print(Text(sample_lines(title, clip(text.rstrip("\n"), lines))), soft_wrap=True)
        self.log(sample_lines(title, text))

    def heading(self, text: str) -> None:
        """A line with a rule through the page."""
        ruled = f"\n━━ {text} " + "━" * max(0, min(LOG_WIDTH, self.console.width) - len(text) - 4)
        self.console.print(Text(ruled, style=f"bold {ACCENT}"), overflow="fold")
        self.log(ruled)


@contextmanager
def downloading(screen: Screen, name: str) -> Iterator[Callable[[int, int], None]]:
    """`with downloading(screen, "shakespeare") as progress:` shows a bar on a terminal, one line elsewhere; nothing without a download."""
    bar = Progress("{task.description}", BarColumn(), DownloadColumn(), console=screen.console, transient=True, disable=not screen.live)
    tasks: list[TaskID] = []

    def progress(done: int, total: int) -> None:
        if not tasks:
            screen.log(f"downloading {name}")
            if not screen.live:
                screen.console.print(f"downloading {name}: {total / 1e6:.1f} MB")
            bar.start()
            tasks.append(bar.add_task(f"downloading {name}", total=total))
        bar.update(tasks[0], completed=done, total=total)

    try:
        yield progress
    finally:
        bar.stop()


def plain_text(what: RenderableType) -> str:
    """Anything rich can draw, as text without control characters and without blanks at line ends."""
    page = Console(file=io.StringIO(), width=NO_EDGE, color_system=None, force_terminal=False, highlight=False)
    page.print(what)
    drawn: Any = page.file
    return "\n".join(line.rstrip() for line in drawn.getvalue().splitlines())


def visible(text: str) -> str:
    """The text with control characters (except line feeds and tabs) replaced by their pictures: ESC becomes ␛.

    A model trained on any text may write any character; a terminal must not obey it. Spaces of every width, and the joiners that
    emoji and many scripts need, command nothing and stay.
    """
    return "".join(c if c in HARMLESS or c.isprintable() or unicodedata.category(c) == "Zs" else _picture(c) for c in text)


def _picture(character: str) -> str:
    return chr(0x2400 + ord(character)) if ord(character) < 32 else "\N{REPLACEMENT CHARACTER}" if ord(character) != 127 else "␡"


def clip(text: str, lines: int) -> str:
    """At most `lines` lines of a text; an ellipsis says that there was more."""
    kept = text.split("\n")
    return text if len(kept) <= lines else "\n".join(kept[:lines]) + " …"


def sample_panel(title: str, text: str, *, prompt: str = "") -> Panel:
    """A sample in a frame: the prompt in bold, what the model wrote after it in plain."""
    body = Text(visible(text))
    if prompt and text.startswith(prompt):
        body.stylize("bold", 0, len(visible(prompt)))
    return Panel(body, title=Text(title, style=ACCENT), title_align="left", border_style="dim")


def sample_lines(title: str, text: str) -> str:
    """A sample as plain lines, each behind a bar."""
    return "\n".join([f"── {title}", *("  │ " + line for line in visible(text).split("\n"))])


def table(*columns: str, title: str | None = None) -> Table:
    """An empty table in the house style: first column left, the others right."""
    made = Table(title=title, title_justify="left", title_style="bold", header_style="bold", border_style="dim", box=box.ROUNDED)
    for index, column in enumerate(columns):
        made.add_column(column, justify="left" if index == 0 else "right", overflow="fold")
    return made


if __name__ == "__main__":
    screen = Screen()
    screen.heading("a heading")
    screen.say("a line with [brackets], which are not markup")
    screen.warn("something to look at")
    screen.sample("step 30 · loss 2.91", "ROMEO:\nthe \x1b[31m and o the", prompt="ROMEO:")
    numbers = table("measure", "nats")
    numbers.add_row("ours", "1.47")
    screen.say(numbers)
