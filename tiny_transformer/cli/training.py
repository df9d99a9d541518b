"""From a decided job to a finished run: read, check, train, show, report, draw. `tiny train` and `tiny demo` both end here.

Everything is checked before the first directory is made. Read before: settings.py, display.py, report.py, training/trainer.py.
"""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from tiny_transformer import corpora, tokenization
from tiny_transformer import run as runs
from tiny_transformer.cli.display import TrainingDisplay, duration
from tiny_transformer.cli.engines import engine
from tiny_transformer.cli.main import STARTED
from tiny_transformer.cli.material import Material, gather
from tiny_transformer.cli.minutes import Plan, chooses, closing_line, command_started, lines, plan
from tiny_transformer.cli.noise import Noise, noise_of
from tiny_transformer.cli.report import Landmarks, landmarks, loss_table
from tiny_transformer.cli.screen import Screen, downloading
from tiny_transformer.cli.settings import Job
from tiny_transformer.cli.texts import Reading, choose_prompt
from tiny_transformer.cli.vectors import begin_with, coverage_table, remarks, vectors_for
from tiny_transformer.config import DataConfig, SampleConfig, TrainConfig, check
from tiny_transformer.corpora.text_statistics import overlap
from tiny_transformer.run import Run
from tiny_transformer.tokenization.base import Tokenizer
from tiny_transformer.training.listener import Result
from tiny_transformer.training.loop import TrainingLoop
from tiny_transformer.utils.atomic import atomic_save
from tiny_transformer.word_vectors import WordVectors

SAMPLE_TOKENS = 200
"""Length of a timelapse sample."""
UNITS = {"char": "character", "byte": "byte", "word": "word"}
"""What a token is called, by the kind of tokenizer."""
COPIED = 0.01
"""Share of the validation text that may stand in the training text before it is worth a warning."""


@dataclass(frozen=True)
class Outcome:
    """What is left of a training run."""

    run: Run
    result: Result
    reading: Reading
    marks: Landmarks
    prompt: str
    warnings: list[str]

    @property
    def val_loss(self) -> float:
        """Over the whole validation text; the last regular evaluation when a signal ended the run."""
        final = self.result.final_val_loss
        return self.result.best_val_loss if final is None else final

    def to_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "run": str(self.run.path), "corpus": self.reading.corpus.name, "val_loss": self.val_loss,
            "bits_per_byte": self.marks.bits_per_byte(self.val_loss), "landmarks": self.marks.to_dict(), "warnings": self.warnings,
            **asdict(self.result),
        }  # fmt: skip


@dataclass(frozen=True)
class Prepared:
    """A job whose text has been read and whose model has been built: nothing is written yet, and nothing can be refused any more."""

    job: Job
    material: Material
    trainer: TrainingLoop
    display: TrainingDisplay
    marks: Landmarks
    prompt: str
    plan: Plan | None = None
    """How `--minutes` was met, where it was asked for."""
    vectors: WordVectors | None = None
    """What the model began with, where a file of word vectors was named."""


def train(job: Job, screen: Screen) -> Outcome:
    """Run a job from its text to its report."""
    ready = prepare(job, screen)
    run = _open_run(ready, screen)
    return learn(ready, run, screen)


def prepare(job: Job, screen: Screen) -> Prepared:
    """Read the text, build the model, check that they fit. Writes nothing."""
    with downloading(screen, job.data.corpus or "") as progress:
        material, notes = gather(job.data, job.noise, job.training.seed, job.base, progress)
    vectors = vectors_for(job.data, job.model, material, screen)
    if vectors is not None:
        job = replace(job, asked=job.asked | {"d_model"})  # the file has settled the width
    made: Plan | None = None
    if chooses(job):
        job, made = plan(job, material)
    reading, tokenizer, train_ids, val_ids = material.reading, material.tokenizer, material.train_ids, material.val_ids
    prompt = choose_prompt(job.prompt, reading.corpus.name, tokenizer, reading.train)
    used = engine(job.engine)
    model = used.new_model(replace(job.model, vocab_size=tokenizer.vocab_size), job.training.seed)
    if vectors is not None:
        begin_with(model, vectors)
    display = TrainingDisplay(screen, max_steps=job.training.max_steps, prompt=prompt)
    lineage = {"recipe": job.base.name if job.base else None, "objective": "causal", "corpus": reading.corpus.name}
    entropy = reading.corpus.entropy  # in nats per character
    floor = None if entropy is None else entropy * len(reading.val) / len(val_ids)
    trainer = used.trainer(
        model, tokenizer, train_ids, val_ids, job.training, listener=display, lineage=lineage, floor=floor, fresh=material.fresh
    )
    if vectors is not None and job.data.freeze_embeddings:
        trainer.freeze_rows(vectors.ids)
    trainer.command_started = command_started(job)
    unit = UNITS.get(str(tokenizer.to_dict()["kind"]), "token")
    marks = landmarks(material.counted_ids(), tokenizer.vocab_size, material.bytes_per_token, floor, unit)
    display.bits_per_byte = marks.bits_per_byte
    for note in (*job.notes, *notes):  # not before here: a refusal is one line and nothing else
        screen.say(note, style="yellow")
    return Prepared(job, material, trainer, display, marks, prompt, made, vectors)


def _open_run(ready: Prepared, screen: Screen) -> Run:
    """Make the run's directory and let the log begin. The first thing that is written."""
    job = ready.job
    run = Run.create(Path(job.out), record(ready))
    ready.trainer.run = run
    connect(screen, run, job.base.log_too if job.base else None)
    if run.moved_aside is not None:
        screen.say(f"the run that was in {job.out} is now in {run.moved_aside}")
    config, material = ready.trainer.config, ready.material
    kind = ready.material.tokenizer.to_dict()["kind"]
    different = f", {config.vocab_size} different" if kind == "char" else ""
    screen.heading(f"training {job.out}")
    screen.say(f"text      {material.reading.corpus.source}")
    screen.say(f"          {material.size()}{different}")
    if kind != "char":
        screen.say(f"tokens    {kind}, {config.vocab_size:,} different, {material.bytes_per_token:.2f} bytes each in the validation text")
    if ready.vectors is not None:
        screen.say(f"vectors   {ready.vectors.path}: {ready.vectors.in_file:,} of {config.d_model} numbers")
        screen.say(coverage_table(ready.vectors))
        for line in remarks(ready.vectors, job.data.freeze_embeddings):
            screen.say(f"          {line}")
    if material.fresh is not None:
        screen.say(f"noise     {noise_line(job.noise)}; anew for every epoch, and never on what is measured")
    screen.say(f"model     {describe(config.n_layers, config.n_heads, config.d_model, config.max_seq_len, config.n_parameters)}")
    if job.engine == "numpy":
        screen.say("engine    NumPy, every backward pass by hand; PyTorch is not loaded")
    steps = f"{job.training.max_steps:,} steps" if job.training.minutes is None else f"{job.training.minutes:g} minutes of steps"
    screen.say(f"training  {steps} of {job.training.batch_size} x {config.max_seq_len} {ready.marks.unit}s")
    if ready.plan is not None:
        chosen, expected = lines(ready.plan, job.training, config, ready.marks.unit)
        screen.say(f"chosen    {chosen}")
        screen.say(f"expected  {expected}")
    return run


def resume(directory: str, changes: dict[str, Any], screen: Screen, *, recipe: str | None = None, json: bool = False) -> Outcome:
    """Continue a run from its last.pt, bit for bit unless `changes` (fields of TrainConfig) say otherwise.

    A `recipe` may be named again; any other than the run's own is refused.
    """
    run = Run.open(Path(directory))
    own = run.record.get("recipe")
    check(recipe in (None, own), f"--resume with --recipe {recipe}", f"this run began with {own or 'no recipe'}", "Leave --recipe out")
    name = run.record.get("engine", "torch")
    used = engine(name)
    last = used.read(run.path / f"last{used.suffix}")
    ends = {"minutes": None} if "max_steps" in changes else {}  # steps that are asked for replace the minutes that were
    settings = TrainConfig(**{**run.record["training"], **ends, **changes})
    with downloading(screen, str(run.record["data"]["corpus"])) as progress:
        tokenizer, noise = tokenization.from_dict(last.tokenizer or {}), noise_of(run.record)
        material, _ = gather(DataConfig(**run.record["data"]), noise, settings.seed, progress=progress, tokenizer=tokenizer)
    prompt = run.record["prompt"]
    display = TrainingDisplay(screen, max_steps=settings.max_steps, prompt=prompt)
    marks = Landmarks(**run.record["landmarks"])
    display.bits_per_byte = marks.bits_per_byte
    trainer = used.trainer.resume(
        run, material.train_ids, material.val_ids, settings, listener=display, floor=marks.floor, fresh=material.fresh
    )
    job = Job(
        data=material.reading.data, model=last.config, training=settings, out=directory, prompt=prompt, base=None,
        json=json, engine=name, noise=noise,
    )  # fmt: skip
    connect(screen, run, run.record.get("log_too"))
    trainer.command_started = STARTED.get("train")
    _say_where_it_stands(trainer, last.step, directory, screen)
    return learn(Prepared(job, material, trainer, display, marks, prompt), run, screen)


def _say_where_it_stands(trainer: TrainingLoop, step: int, directory: str, screen: Screen) -> None:
    settings, used = trainer.settings, trainer.progress.used
    if settings.minutes is None:
        screen.heading(f"resuming after {step:,} of {settings.max_steps:,} steps: {directory}")
        complete, more = step >= settings.max_steps, f"--max-steps {2 * step}"
    else:
        screen.heading(f"resuming after {duration(used)} of {duration(60 * settings.minutes)}: {directory}")
        complete, more = used >= 0.99 * 60 * settings.minutes, f"--minutes {2 * settings.minutes:g}"
    if complete:
        screen.say(f"this run is complete. To train on: tiny train --resume {directory} {more}")


def describe(n_layers: int, n_heads: int, d_model: int, max_seq_len: int, n_parameters: int) -> str:
    """A model in one line."""
    return f"{n_layers} layers, {n_heads} heads, {d_model} wide, context {max_seq_len}: {n_parameters / 1e6:.2f} M parameters"


def noise_line(noise: Noise) -> str:
    """The rates that are not 0, in words."""
    return ", ".join(f"{name.replace('_', ' ')} {rate:g}" for name, rate in asdict(noise).items() if rate)


def record(ready: Prepared) -> dict[str, Any]:
    """What config.json keeps: every setting as it was used, and what is needed to find text and landmarks again."""
    job, reading = ready.job, ready.material.reading
    corpus, data = reading.corpus, asdict(reading.data)
    for name in ("data", "tokenizer_file", "val_data", "embeddings"):
        if data[name] not in (None, "-", *corpora.names()):
            data[name] = str(Path(data[name]).resolve())
    return {
        "recipe": job.base.name if job.base else None,
        "engine": job.engine,
        "data": data,
        "model": ready.trainer.config.to_dict(),
        "training": asdict(job.training),
        "noise": asdict(job.noise),
        "corpus": {"name": corpus.name, "source": corpus.source, "characters": None if reading.on_disk else len(corpus.text)},
        "prompt": ready.prompt,
        "parameters": ready.trainer.config.n_parameters,
        "landmarks": ready.marks.to_dict(),
        "plan": None if ready.plan is None else ready.plan.to_dict(),
        "coverage": None if ready.vectors is None else ready.vectors.coverage.to_dict(),
        "also_save": job.base.also_save if job.base else None,
        "log_too": job.base.log_too if job.base else None,
    }


def connect(screen: Screen, run: Run, log_too: str | None) -> None:
    """From now on everything on the screen also goes to the run's log, and to a second file where the recipe wants one."""
    screen.logs.append(run.say)
    if log_too is not None:
        path = Path(log_too)
        path.parent.mkdir(parents=True, exist_ok=True)
        screen.logs.append(lambda text: _append(path, text))


def _append(path: Path, text: str) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(text + "\n")


def learn(ready: Prepared, run: Run, screen: Screen) -> Outcome:
    """Train, and tell how it went. The terminal is given back whatever happens."""
    warn_about_overlap(ready)
    ready.display.write_sample = timelapse(ready.job, ready.trainer, ready.material.tokenizer, ready.prompt, run)
    try:
        result = ready.trainer.fit()
    finally:
        ready.display.close()
    outcome = Outcome(run, result, ready.material.reading, ready.marks, ready.prompt, ready.display.warnings)
    finish(outcome, ready, screen)
    return outcome


def warn_about_overlap(ready: Prepared) -> None:
    """Validation text that stands in the training text makes the validation loss a lie."""
    found = overlap(ready.material.reading.train, ready.material.reading.val)
    if found.share > COPIED:
        ready.display.on_warning(str(found))


def timelapse(job: Job, trainer: TrainingLoop, tokenizer: Tokenizer, prompt: str, run: Run) -> Any:
    """A function step → sample: always the same prompt and seed, so that only the model changes. Keeps each under samples/."""
    settings = SampleConfig(max_tokens=SAMPLE_TOKENS, seed=trainer.settings.seed)
    generator = engine(job.engine).generator(trainer.model, tokenizer)

    def write(step: int) -> str:
        text: str = generator.generate(prompt, settings)
        run.sample(step, text)
        return text

    return write


def finish(outcome: Outcome, ready: Prepared, screen: Screen) -> None:
    """The table, the picture, and where everything is."""
    result, run = outcome.result, outcome.run
    if result.stopped == "signal":
        screen.say(f"stopped by a signal after {result.steps:,} steps; saved. Go on with:", style="bold yellow")
        screen.say(f"  tiny train --resume {run.path}")
        return
    if also_save := run.record.get("also_save"):
        best = runs.resolve(run.path)
        atomic_save((run.path / also_save).with_suffix(best.suffix), lambda file: file.writelines([best.read_bytes()]))
    screen.heading("result")
    screen.say(loss_table(result.best_train_loss, outcome.val_loss, outcome.marks, at_step=result.best_step))
    early = " (stopped early: no better evaluation for a while)" if result.stopped == "early" else ""
    screen.say(f"{result.steps:,} steps in {duration(result.seconds)}, {result.tokens_per_second:,.0f} {outcome.marks.unit}s/s{early}")
    made = run.record.get("plan")
    if made and made["minutes"] == ready.job.training.minutes:  # a resumed run may have been given more
        screen.say(closing_line(made, outcome.val_loss, result.trained_seconds))
    for warning in outcome.warnings:
        screen.warn(warning)
    pictures = draw(run)
    suffix = runs.resolve(run.path).suffix
    screen.say(f"saved in {run.path}: best{suffix}, last{suffix}, samples/, {', '.join(path.name for path in pictures)}")


def draw(run: Run) -> list[Path]:
    """The loss curve of a run as PNG and SVG in its directory."""
    from tiny_transformer.cli.pictures import curve_of  # matplotlib takes half a second: not before it is needed
    from tiny_transformer.cli.plots import loss_figure, save

    return save(loss_figure(curve_of(run)), run.path / "loss")
