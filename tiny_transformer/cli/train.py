"""`tiny train`: from a text to a run. Read before: settings.py, training.py."""

import json
from typing import Any

from tiny_transformer.cli.screen import Screen
from tiny_transformer.cli.settings import TrainSettings, given, parse, training_job, value_of
from tiny_transformer.config import check

DESCRIPTION = """\
Train a model on a text, and watch it learn to write.

A run is a directory: config.json, best.pt, last.pt, metrics.jsonl, log.txt,
samples/ and the loss curve. Settings come from, each winning over the one
before: defaults, --recipe or --preset, --config, flags. When no size is given,
this machine decides (tiny hardware). --minutes N times this machine, chooses
what makes the best of N minutes, says what loss to expect, and ends on time.

  tiny train --corpus shakespeare --out runs/first
  tiny train --data my.txt --out runs/mine --max-steps 2000
  tiny train --corpus shakespeare --minutes 3 --out runs/three
  tiny train --recipe shakespeare --d-model 384 --batch-size 64
  tiny train --resume runs/first
"""

RESUMABLE = {"max_steps", "minutes", "eval_every", "eval_tokens", "patience", "save_every", "log_every"}
"""Settings that may change when a run goes on: none of them touches what has been learned."""


def main(argv: list[str]) -> int:
    """Train or resume; the exit code is 0, or 130 or 143 after a signal."""
    directory = value_of(argv, "resume")
    if directory is not None and not given(argv) & {"help", "h"}:
        return _resume(directory, argv)
    job = training_job(argv, command="train", description=DESCRIPTION)
    screen = Screen(to_stderr=job.json)
    from tiny_transformer.cli.training import train  # torch: two seconds that bad flags need not wait for

    outcome = train(job, screen)
    if job.json:
        print(json.dumps(outcome.to_dict()))
    return outcome.result.exit_code


def _resume(directory: str, argv: list[str]) -> int:
    changes, as_json = resumed_settings(argv)
    screen = Screen(to_stderr=as_json)
    from tiny_transformer.cli.training import resume

    outcome = resume(directory, changes, screen, recipe=value_of(argv, "recipe"), json=as_json)
    if as_json:
        print(json.dumps(outcome.to_dict()))
    return outcome.result.exit_code


def resumed_settings(argv: list[str]) -> tuple[dict[str, Any], bool]:
    """The settings that a resumed run changes, and whether `--json` was asked for. Raises ConfigError on any other flag.

    `--recipe` may stay: tools/shakespeare_train.py always says it, and `resume` compares it with the run's own.
    """
    settings = parse(TrainSettings, argv, command="train", description=DESCRIPTION)
    asked = given(argv) - {"resume", "json", "recipe"}
    refused = sorted("--" + name.replace("_", "-") for name in asked - RESUMABLE)
    allowed = ", ".join("--" + name.replace("_", "-") for name in sorted(RESUMABLE))
    check(not refused, f"--resume with {', '.join(refused)}", "a resumed run keeps its own settings", f"Only {allowed} can change")
    both = {"minutes", "max_steps"} <= asked
    check(not both, "--minutes with --max-steps", "one of them says when training ends", "Leave one out")
    return {name: getattr(settings.training, name) for name in asked}, settings.json
