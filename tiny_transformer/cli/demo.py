"""`tiny demo`: train, watch, read, in under five minutes. Read before: train.py."""

import json

from tiny_transformer.cli.screen import Screen
from tiny_transformer.cli.settings import training_job, value_of
from tiny_transformer.config import check

DESCRIPTION = """\
Train a small model from scratch in under five minutes on two cores, watch its
voice grow from noise to styled text, and let it write in three moods. It reads
Tiny Shakespeare where that text can be had, else a built-in text. Every flag of
`tiny train` works here too.
"""


def main(argv: list[str]) -> int:
    """Run the recipe `demo`, then write in three moods."""
    directory = value_of(argv, "resume")
    check(directory is None, "--resume", "a demo begins from nothing", f"Try: tiny train --resume {directory}")
    job = training_job(["--recipe", "demo", *argv], command="demo", description=DESCRIPTION)
    screen = Screen(to_stderr=job.json)
    screen.say("Tiny Transformer: a model that knows nothing, a text, and a few minutes.", style="bold")
    from tiny_transformer.cli.training import train  # torch: two seconds
    from tiny_transformer.cli.writing import moods, open_writer, show_strategies, write_all

    outcome = train(job, screen)
    if outcome.result.stopped == "signal":
        return outcome.result.exit_code
    texts = write_all(open_writer(str(outcome.run.path)).generator, outcome.prompt, moods(job.training.seed))
    screen.heading("the best model writes in three moods")
    show_strategies(screen, texts, outcome.prompt, outcome.reading.train)
    _what_next(screen, str(outcome.run.path), outcome.prompt)
    if job.json:
        print(json.dumps({**outcome.to_dict(), "moods": {name: text for name, _, text in texts}}))
    return 0


def _what_next(screen: Screen, path: str, prompt: str) -> None:
    opening = prompt.strip() or "The"
    screen.heading("what next")
    commands = (
        (f"tiny chat {path}", "type openings, it continues them"),
        (f'tiny generate {path} --prompt "{opening}" --compare', "strategies side by side"),
        (f"tiny plot {path} --timelapse", "the curve and the voice in one picture"),
        ("tiny train --data my.txt --out runs/mine", "the same with your own text"),
        ("tiny recipes", "larger models"),
    )
    width = max(len(command) for command, _ in commands)
    for command, why in commands:
        screen.say(f"  {command:{width}}  {why}")
