"""What `tiny profile` is asked: its flags, and the one model and step that they decide on. Read before: settings.py."""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

import tyro

from tiny_transformer.cli.settings import ModelFlags, TrainFlags, checked, fit_heads, given, parse, unchecked
from tiny_transformer.config import SAMPLING_PRESETS, ModelConfig, TrainConfig, check, check_choice, preset
from tiny_transformer.recipes import recipe

DESCRIPTION = """\
Show where the time of a training step goes, by part of the model, beside what
each part costs in operations and bytes and how fast this machine could be.

The model is RUN's, a recipe's, a preset's, or what the flags say; the batches
are random. Nothing that RUN holds is changed.

  tiny profile --recipe demo
  tiny profile --n-layers 6 --d-model 384 --n-heads 6 --max-seq-len 256 --batch-size 4
  tiny profile runs/a --output step.svg
  tiny profile runs/a --generate                a token's time, the sampler's included
"""
SUFFIXES = (".svg", ".png", ".html")
MOST_STEPS = 1000
SIZES = {"d_model", "n_layers", "n_heads", "n_kv_heads", "d_head", "d_ff", "max_seq_len"}


@dataclass(frozen=True, kw_only=True)
class ProfileSettings:
    """What `tiny profile` accepts."""

    run: tyro.conf.Positional[str | None] = None
    """A run directory or a checkpoint file: its model and, as far as they are known, its training settings."""
    recipe: str | None = None
    """Start from a named experiment (`tiny recipes`)."""
    preset: str | None = None
    """Use a named architecture: tiny, cpu, baby-gpt, gpt2 and others."""
    generate: bool = False
    """Profile writing a token instead of a training step; --batch-size is then how many texts are written at once, default 1."""
    steps: int = 10
    """How many steps (or tokens) are watched; as many are made undisturbed, in turn."""
    reference: bool = False
    """Run the readable implementations instead of the fused ones: scores, softmax and values are then told apart."""
    sampler: str = "balanced"
    """With --generate: the sampling preset, focused, balanced or creative."""
    vocab_size: int | None = None
    """How many different tokens; default: the run's, the preset's, or 65."""
    output: str | None = None
    """Draw the profile into this file: .svg, .png or .html."""
    json: str | None = None
    """Write everything that was measured and counted to this file as JSON; - for standard output."""
    model: ModelFlags = field(default_factory=ModelFlags)
    """Its size and shape; with no run, recipe, preset or size, `tiny hardware` decides."""
    training: TrainFlags = field(default_factory=TrainFlags)
    """How it learns; what has nothing to do with a step's time (rates, saving) makes no difference."""


@dataclass(frozen=True)
class Subject:
    """What is profiled, fully decided."""

    name: str
    config: ModelConfig
    training: TrainConfig
    path: str | None
    """Where its weights are; None for first weights."""
    notes: tuple[str, ...] = ()


def decide(argv: Sequence[str]) -> tuple[ProfileSettings, Subject]:
    """All settings and what is profiled. Raises ConfigError before anything is run."""
    first = read(argv, ProfileSettings())
    sources = [name for name in (first.run and "RUN", first.recipe and "--recipe", first.preset and "--preset") if name]
    check(len(sources) <= 1, " and ".join(sources), "a profile is that of one model", "Name one of them")
    start, name, notes = _starting_point(first, given(argv))
    settings = read(argv, replace(start, run=None))
    check_writing(settings)
    check_choice("sampler", settings.sampler, tuple(SAMPLING_PRESETS))
    known = f"steps={settings.steps}"
    check(1 <= settings.steps <= MOST_STEPS, known, f"it must be 1 to {MOST_STEPS}", "Try --steps 10")
    n_heads, more = fit_heads(settings.model, start.model, given(argv))
    vocab_size = settings.model.vocab_size if settings.vocab_size is None else settings.vocab_size
    config = checked(ModelConfig, settings.model, n_heads=n_heads, vocab_size=vocab_size)
    rows = {"batch_size": 1} if settings.generate and "batch_size" not in given(argv) else {}
    both = settings.reference and settings.training.compile
    check(not both, "--reference with --compile", "a compiled model is not the readable one", "Leave one out")
    return settings, Subject(name, config, checked(TrainConfig, settings.training, **rows), settings.run, (*notes, *more))


def read(argv: Sequence[str], default: ProfileSettings) -> ProfileSettings:
    """The flags over `default`."""
    return parse(ProfileSettings, argv, command="profile", description=DESCRIPTION, default=default)


def _starting_point(first: ProfileSettings, asked: set[str]) -> tuple[ProfileSettings, str, list[str]]:
    """The settings before the flags, what the model is called, and what to say about it."""
    if first.run is not None:
        return _from_run(first.run, asked)
    if first.recipe is not None:
        base = recipe(first.recipe)
        return _with(base.model, base.training), f"the recipe {base.name}", []
    if first.preset is not None:
        return _with(preset(first.preset), TrainConfig()), f"the preset {first.preset}", []
    if asked & SIZES:
        return ProfileSettings(), "a model of these sizes", []
    from tiny_transformer.hardware import detect, recommend

    advice = recommend(detect())
    return _with(advice.config, advice.training), "the model that suits this machine", [f"no size given: {advice.why}"]


def _from_run(path: str, asked: set[str]) -> tuple[ProfileSettings, str, list[str]]:
    own = sorted("--" + f.name.replace("_", "-") for f in fields(ModelConfig) if f.name in asked)
    check(not own, f"{', '.join(own)} with a run", "its model is as it is", "Leave them out, or profile a recipe or sizes")
    from tiny_transformer import run as runs

    file = runs.resolve(path)
    config = runs.read(file).config
    try:
        training = TrainConfig(**runs.Run.open(file.parent).record["training"])
    except (ValueError, KeyError, TypeError):
        return _with(config, TrainConfig()), str(file), [f"no training settings beside {file}: batches of {TrainConfig().batch_size}"]
    return _with(config, training), str(file), []


def _with(model: ModelConfig, training: TrainConfig) -> ProfileSettings:
    return ProfileSettings(model=unchecked(ModelFlags, model), training=unchecked(TrainFlags, training))


def check_writing(settings: ProfileSettings) -> None:
    """Raise ConfigError for a file that can't be drawn into, before minutes are spent on measuring."""
    if settings.output is not None:
        suffix = Path(settings.output).suffix.lower()
        check(suffix in SUFFIXES, f"--output {settings.output}", f"it must end in {', '.join(SUFFIXES)}", "Try --output step.svg")
    check(settings.json != "", "--json without a name", "it needs a file", "Try --json profile.json, or --json -")
    for path in (settings.output, settings.json):
        check(path is None or not Path(path).is_dir(), f"{path} is a folder", "a file is needed", "Name a file in it")
