"""From a command line to settings: defaults < recipe or preset < `--config file.toml` < flags.

The flags are the fields of the dataclasses in config.py (tyro reads names, types and help from them), so a setting is
written once. A flag's value is looked at twice: tyro reads its type, and config.py's own check says what it must be.
Left out: what the settings do. Read before: config.py, recipes.py.
"""

import contextlib
import io
import math
import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

import tyro

from tiny_transformer.cli.engines import EngineName
from tiny_transformer.cli.main import unknown
from tiny_transformer.cli.noise import Noise
from tiny_transformer.config import ConfigError, DataConfig, ModelConfig, SampleConfig, TrainConfig, check, preset
from tiny_transformer.recipes import Recipe, recipe

_HIDDEN = ("vocab_size", "rope_scaling", "causal", "n_token_types")
"""Settings of a model that no flag sets: the tokenizer decides the vocabulary, the others belong to models that are loaded."""

T = TypeVar("T")
Checked = TypeVar("Checked", ModelConfig, TrainConfig, DataConfig, SampleConfig)


@dataclass(frozen=True, kw_only=True)
class ModelFlags(ModelConfig):
    """A ModelConfig that is still being put together: not checked yet, and without what the text decides."""

    vocab_size: tyro.conf.Suppress[int] = 65
    rope_scaling: tyro.conf.Suppress[dict[str, Any] | None] = None
    causal: tyro.conf.Suppress[bool] = True
    n_token_types: tyro.conf.Suppress[int] = 0

    def __post_init__(self) -> None:
        """Nothing is checked before everything is known."""


@dataclass(frozen=True, kw_only=True)
class TrainFlags(TrainConfig):
    """A TrainConfig that is still being put together."""

    def __post_init__(self) -> None:
        """Nothing is checked before everything is known."""


@dataclass(frozen=True, kw_only=True)
class DataFlags(DataConfig):
    """A DataConfig that is still being put together."""

    def __post_init__(self) -> None:
        """Nothing is checked before everything is known."""


@dataclass(frozen=True, kw_only=True)
class SampleFlags(SampleConfig):
    """A SampleConfig that is still being put together; `--stop` may be given more than once."""

    stop: tyro.conf.UseAppendAction[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        """Nothing is checked before everything is known."""


def unchecked(cls: type[T], config: Any) -> T:
    """`config` as the flags class `cls`, its values unchanged."""
    return cls(**{f.name: getattr(config, f.name) for f in fields(cls)})  # type: ignore[arg-type]


def checked(cls: type[Checked], flags: Checked, **changes: Any) -> Checked:
    """The flags as a real `cls`, checked. Raises ConfigError."""
    return cls(**{f.name: getattr(flags, f.name) for f in fields(cls)} | changes)


def parse(cls: type[T], argv: Sequence[str], *, command: str, description: str, default: T | None = None) -> T:
    """Read flags into a dataclass. `--help` prints and ends; a bad flag raises ConfigError in one line."""
    if {"-h", "--help"} & set(argv):
        print(description.rstrip() + "\n")  # here, because tyro would join its lines
    complaint = io.StringIO()
    more: dict[str, Any] = {} if default is None else {"default": default}
    try:
        with contextlib.redirect_stderr(complaint):
            settings: T = tyro.cli(
                cls, args=list(argv), prog=f"tiny {command}", description="",
                config=(tyro.conf.OmitArgPrefixes, tyro.conf.PositionalMetavarFromFieldName), **more,
            )
            return settings
    except SystemExit as stop:
        if stop.code in (0, None):
            raise
        raise ConfigError(_one_line(complaint.getvalue(), flag_names(cls))) from None


def flag_names(cls: Any) -> list[str]:
    """Every flag of a (nested) settings dataclass, as on the command line."""
    names = ["--help"]
    for f in fields(cls):
        nested: Any = f.default_factory
        if issubclass(cls, ModelConfig) and f.name in _HIDDEN:
            continue
        names += flag_names(nested) if is_dataclass(nested) else ["--" + f.name.replace("_", "-")]
    return names


def _one_line(box: str, known: list[str]) -> str:
    """The first thing that tyro says inside its box, as one line."""
    text = _first_section(box)
    if found := re.match(r"Unrecognized options?: (\S+?),?(?:\s|$)", text):
        return _unknown_flag(found[1], known)
    if found := re.match(r"Error parsing (--\S+): invalid literal for int\(\) with base 10: (.*)", text):
        return f"{found[1]} {found[2]}: it must be a whole number. Try {found[1]} 100"
    if found := re.match(r"Error parsing (--\S+): could not convert string to float: (.*)", text):
        return f"{found[1]} {found[2]}: it must be a number. Try {found[1]} 0.1"
    if found := re.match(r"Missing value for argument '(--[\w-]+)", text):
        return f"{found[1]} stands without a value: it needs one. Write {found[1]} VALUE"
    if found := re.match(r"invalid choice (.*) for argument '(--[\w-]+).*Expected one of \((.*?),?\)", text):
        return f"{found[2]} {found[1]}: it must be one of {found[3]}. Pick one of these"
    return re.sub(r"^Error parsing ", "", text) or "the command line could not be read. See --help"


def _first_section(box: str) -> str:
    """What stands between the title and the first rule; without Unicode, tyro draws with minus signs and the title has a rule too."""
    sections: list[list[str]] = [[]]
    for line in (line.strip("│|+ \t") for line in box.splitlines()):
        if line.startswith(("╭", "─", "╰", "---")):
            sections.append([])
        elif line:
            sections[-1].append(line)
    spoken = [" ".join(section) for section in sections if section]
    return spoken[0 if "╭" in box else min(1, len(spoken) - 1)] if spoken else ""


def _unknown_flag(flag: str, known: list[str]) -> str:
    if not flag.startswith("-"):
        return f"{flag!r} is one word too many. Quote a text that has spaces, and see --help"
    plain = flag.split("=")[0].replace("_", "-")
    near = get_close_matches(plain, known, n=1, cutoff=0.6)
    return f"there is no flag {plain}. {f'Did you mean {near[0]}?' if near else 'See --help'}"


def given(tokens: Sequence[str]) -> set[str]:
    """The names of the settings that a command line sets, as field names: `--d-model 384` gives `d_model`."""
    names = {token.lstrip("-").split("=")[0].replace("-", "_") for token in tokens if re.match(r"--\w|-h$", token)}
    return names | {name.removeprefix("no_") for name in names}


def value_of(tokens: Sequence[str], name: str) -> str | None:
    """The value that a command line gives to one flag (the last one counts), before anything is parsed."""
    flag, found = "--" + name, None
    for index, token in enumerate(tokens):
        if token == flag and index + 1 < len(tokens):
            found = tokens[index + 1]
        elif token.startswith(flag + "="):
            found = token[len(flag) + 1 :]
    return found


# --- the file ---------------------------------------------------------------------------------------------------------

_TABLES: dict[str, tuple[type, tuple[str, ...]]] = {
    "data": (DataConfig, ()),
    "model": (ModelConfig, _HIDDEN),
    "training": (TrainConfig, ()),
    "sampling": (SampleConfig, ()),
    "noise": (Noise, ()),
}
_LOOSE = ("out", "prompt", "recipe", "preset")


def with_file(argv: Sequence[str], tables: Sequence[str], loose: Sequence[str] = ()) -> list[str]:
    """The flags, and before them what the file of `--config` says about everything that they leave open."""
    path, taken = value_of(argv, "config"), given(argv)
    if taken & {"corpus", "data"}:  # one text, so naming either settles both
        taken |= {"corpus", "data"}
    if taken & {"minutes", "max_steps"}:  # and one end
        taken |= {"minutes", "max_steps"}
    return [*([] if path is None else file_tokens(path, tables, loose, taken)), *argv]


def file_tokens(path: str, tables: Sequence[str], loose: Sequence[str], taken: set[str]) -> list[str]:
    """A TOML file as the flags it stands for; keys stand loose or under [data], [model], [training], [sampling].

    Every key is checked; only those of `tables` and `loose` that are not `taken` are given back, so that one file can
    describe training and writing. Raises ConfigError naming the file.
    """
    flat = _flatten(path, _read_toml(path))
    known = {table: _known(table) for table in _TABLES}
    everything = sorted({*_LOOSE, *(name for names in known.values() for name in names)})
    tokens: list[str] = []
    for table, name, value in flat:
        allowed = known[table] if table else everything
        if name not in allowed:
            raise ConfigError(f"{path}: {unknown('setting', name, list(allowed))}")
        wanted = any(name in known[t] for t in ([table] if table else tables) if t in tables)
        if name not in taken and (wanted or (not table and name in loose)):
            tokens += _as_flag(path, name, value)
    return tokens


def _known(table: str) -> list[str]:
    cls, hidden = _TABLES[table]
    return [f.name for f in fields(cls) if f.name not in hidden]


def _read_toml(path: str) -> dict[str, Any]:
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"there is no settings file {path}. Check the path given to --config") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not TOML: {error}") from None


def _flatten(path: str, content: dict[str, Any]) -> list[tuple[str, str, Any]]:
    """(table, name, value) of every key; the table of a loose key is empty."""
    flat: list[tuple[str, str, Any]] = []
    for name, value in content.items():
        if not isinstance(value, dict):
            flat.append(("", name.replace("-", "_"), value))
            continue
        if name not in _TABLES:
            raise ConfigError(f"{path}: {unknown('table', name, list(_TABLES))}")
        flat += [(name, key.replace("-", "_"), inner) for key, inner in value.items()]
    return flat


def _as_flag(path: str, name: str, value: Any) -> list[str]:
    flag = "--" + name.replace("_", "-")
    if isinstance(value, bool):
        return [flag if value else "--no-" + flag[2:]]
    if isinstance(value, list):
        return [f"{flag}={part}" for part in value]
    simple = isinstance(value, int | float | str)
    check(simple, f"{path}: {name}={value!r}", "it must be a number, a text, true, false or a list", "Mend it")
    return [f"{flag}={'None' if value == 'none' else value}"]


# --- training ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """What `tiny train` accepts."""

    out: str | None = None
    """The run's directory; default: the recipe's, else checkpoints/NAME. A run that is there already is moved aside."""
    recipe: str | None = None
    """Start from a named experiment (`tiny recipes`)."""
    preset: str | None = None
    """Use a named architecture: tiny, cpu, baby-gpt, gpt2 and others."""
    config: str | None = None
    """Read settings from this TOML file; flags win over it."""
    resume: str | None = None
    """Continue the run in this directory, bit for bit. Only --max-steps, --minutes and --json go with it."""
    prompt: str | None = None
    """The opening of the samples shown while training; default: one that suits the text."""
    engine: EngineName = "torch"
    """torch, or numpy: the same model with every backward pass by hand and no PyTorch in the process."""
    law: str | None = None
    """With --minutes: expect and choose by the law in this file (`tiny law fit`); default: the package's."""
    json: bool = False
    """Print the result as one JSON object on standard output; everything else goes to standard error."""
    data: DataFlags = field(default_factory=DataFlags)
    """What it reads: one of --corpus and --data."""
    model: ModelFlags = field(default_factory=ModelFlags)
    """Its size and shape; with no recipe, preset, file or size, `tiny hardware` decides."""
    training: TrainFlags = field(default_factory=TrainFlags)
    """How it learns."""
    noise: Noise = field(default_factory=Noise)
    """Noise on the training text, anew for every epoch; what is measured stays clean."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """A training run, fully decided and checked, before anything is read or written."""

    data: DataConfig
    model: ModelConfig
    training: TrainConfig
    out: str
    prompt: str | None
    base: Recipe | None
    notes: tuple[str, ...] = ()
    """What was decided for the user, each in one line."""
    json: bool = False
    command: str = "train"
    engine: EngineName = "torch"
    noise: Noise = field(default_factory=Noise)
    asked: frozenset[str] = frozenset()
    """The settings that flags or a file fix: `--minutes` chooses none of them."""
    law: str | None = None


MINUTES_RECIPE = "quick"
"""Whose parts `--minutes` begins with when neither recipe nor preset is named."""
_SIZES = {"d_model", "n_layers", "n_heads", "n_kv_heads", "d_head", "d_ff", "max_seq_len"}


def training_job(argv: Sequence[str], *, command: str = "train", description: str = "Train a model.") -> Job:
    """Decide everything about a training run from its flags. Raises ConfigError before anything is touched."""
    tokens = with_file(argv, ("data", "model", "training", "noise"), _LOOSE)
    asked = given(tokens)
    base_recipe = recipe(name) if (name := value_of(tokens, "recipe")) else None
    if base_recipe is not None and base_recipe.training.minutes is not None:
        base_recipe = _lasting(base_recipe, value_of(tokens, "minutes"))
    default, notes = _starting_point(base_recipe, value_of(tokens, "preset"), asked, value_of(tokens, "engine") or "torch")
    settings = parse(TrainSettings, tokens, command=command, description=description, default=default)
    n_heads, more = fit_heads(settings.model, default.model, asked)
    training = _one_end(settings.training, asked)
    data = checked(DataConfig, settings.data, **_one_text(asked, settings.data))
    check(
        data.corpus is not None or data.data is not None,
        "no text to learn from", "a model needs one", "Try --corpus shakespeare, or --data FILE",
    )
    check(settings.out != "", "--out without a name", "a run needs a folder of its own", "Try --out checkpoints/mine")
    return Job(
        data=data,
        model=checked(ModelConfig, settings.model, n_heads=n_heads),
        training=training,
        out=settings.out or f"checkpoints/{data.corpus or _stem(data.data)}",
        prompt=settings.prompt,
        base=base_recipe,
        notes=(*notes, *more),
        json=settings.json,
        command=command,
        engine=settings.engine,
        noise=settings.noise,
        asked=frozenset(asked),
        law=settings.law,
    )


def _one_end(training: TrainFlags, asked: set[str]) -> TrainConfig:
    """Steps or minutes: what a flag says wins over the recipe's; two flags contradict each other."""
    both = {"minutes", "max_steps"} <= asked
    check(not both, "--minutes with --max-steps", "one of them says when training ends", "Leave one out")
    return checked(TrainConfig, training, **({"minutes": None} if "max_steps" in asked else {}))


def _starting_point(base: Recipe | None, preset_name: str | None, asked: set[str], engine: str) -> tuple[TrainSettings, list[str]]:
    """The settings before file and flags, and what to say about them."""
    notes: list[str] = []
    start = TrainSettings() if base is None else _from_recipe(base)
    if base is None and "minutes" in asked:
        usual = recipe(MINUTES_RECIPE)
        start = replace(start, model=unchecked(ModelFlags, usual.model), training=unchecked(TrainFlags, usual.training))
    if preset_name is not None:
        start = replace(start, model=unchecked(ModelFlags, preset(preset_name)))
    elif "minutes" in asked:
        pass  # chosen when the text is known and the machine has been timed: minutes.py
    elif base is None and not asked & (_SIZES | {"help", "h"}):
        from tiny_transformer.hardware import detect, recommend

        advice = recommend(detect(look_for_gpu=engine == "torch"))
        start = replace(start, model=unchecked(ModelFlags, advice.config), training=unchecked(TrainFlags, advice.training))
        notes.append(f"no size given: {advice.why}")
    return start, notes


def _lasting(base: Recipe, minutes: str | None) -> Recipe:
    """A recipe by the clock, for the time that was asked for; what is no number is refused later, by the flag's own check."""
    try:
        asked = float(minutes or "nan")
    except ValueError:
        return base
    return base.lasting(asked) if 0 < asked < math.inf else base


def _from_recipe(base: Recipe) -> TrainSettings:
    return TrainSettings(
        out=base.out, prompt=base.prompt, data=unchecked(DataFlags, base.data), model=unchecked(ModelFlags, base.model),
        training=unchecked(TrainFlags, base.training),
    )


def _one_text(asked: set[str], data: DataConfig) -> dict[str, Any]:
    """A text or tokenizer named by a flag replaces the recipe's; two texts named by flags stay, and are refused by DataConfig."""
    changes: dict[str, Any] = {}
    if asked & {"corpus", "data"}:
        changes = dict.fromkeys({"corpus", "data"} - asked)
        if "val_data" not in asked:  # what the recipe measures on belongs to the recipe's text
            changes["val_data"] = None
    if "word_style" not in asked and (data.tokenizer != "word" or data.tokenizer_file is not None):
        changes["word_style"] = "natural"
    return changes


def _stem(path: str | None) -> str:
    return "stdin" if path in (None, "-") else Path(path or "").stem or "text"


def fit_heads(model: ModelConfig, before: ModelConfig, asked: set[str]) -> tuple[int, list[str]]:
    """A number of heads that fits a changed d_model, unless it was asked for; and a line that says so.

    The heads keep about the width they had: 128 with 4 heads made 384 wide gets 12 heads of 32.
    """
    d, heads = model.d_model, model.n_heads
    fits = model.d_head is not None or d < 1 or heads < 1 or d % heads == 0
    if fits or "n_heads" in asked or "d_model" not in asked:
        return heads, []
    step = 2 if model.position == "rotary" else 1  # rotary positions turn pairs
    widths = [w for w in range(step, d + 1, step) if d % w == 0] or [d]
    width = min(widths, key=lambda w: abs(w - before.head_width))
    return d // width, [f"n_heads={d // width} instead of {heads}, so that heads of equal width ({width}) fill d_model={d}"]
