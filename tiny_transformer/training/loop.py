"""The training loop, for both engines: `TrainingLoop.fit` is the algorithm, the small methods below it are its lines.

    for every step:   batch → gradients of its mean loss → finite? → clip → AdamW → evaluate, sample, save when due

What computes is left open: `training/trainer.py` fills it in with PyTorch, `numpy_engine/trainer.py` with NumPy, so both
engines read the same batches, take the same decisions and leave the same files behind.
Leaves out: what is shown on screen (a `Listener` is told), sampling, the command line, and where text comes from.
Read before: `dataset.py`, `objectives.py`, `scheduler.py`, `time_budget.py`, `listener.py`, `resume.py`.
"""

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from tiny_transformer.config import ModelConfig, TrainConfig, check
from tiny_transformer.corpora.text_statistics import conditional_entropy
from tiny_transformer.tokenization.base import Tokenizer
from tiny_transformer.training.counted_targets import CountedTargets, counted_targets
from tiny_transformer.training.dataset import IGNORE, Batch, IdStore, as_ids, batch_at, blocks, check_length, windows
from tiny_transformer.training.listener import Listener, Result, TrainingError, is_sample_step
from tiny_transformer.training.objectives import Expected, causal, count_targets
from tiny_transformer.training.plausibility import parting, too_good
from tiny_transformer.training.resume import Progress, circumstances, differences
from tiny_transformer.training.scheduler import lr_at, lr_at_share
from tiny_transformer.training.signals import StopSignals
from tiny_transformer.training.throughput import Throughput
from tiny_transformer.training.time_budget import TimeBudget

Ids = NDArray[np.integer[Any]] | IdStore
"""A text as ids (n,): in memory, or on disk (`token_files.py`)."""
Objective = Callable[[NDArray[np.integer[Any]]], Batch]
"""ids (batch, seq + 1) to inputs and targets, (batch, seq) each."""

EVAL_TOKENS_AT_ONCE, EVAL_LOGITS_AT_ONCE = 8192, 2**25


class Record(Protocol):
    """What the loop asks of the folder that keeps an experiment; `run.Run` is one."""

    @property
    def path(self) -> Path:
        """Where it lies."""
        ...

    def log(self, step: int, **numbers: Any) -> None:
        """Keep numbers of one step."""
        ...

    def save(self, checkpoint: Any, name: str = "last") -> Path:
        """Keep a checkpoint under a name."""
        ...

    def truncate(self, step: int) -> None:
        """Forget what was logged after `step`."""
        ...


class Question(NamedTuple):
    """A micro-batch, and what counting expects at its places where the settings ask for that."""

    batch: Batch
    expected: Expected | None


class TrainingLoop(ABC):
    """Teaches a model a text, and can be stopped and resumed at any step without changing a bit of the outcome.

    A subclass sets `model` and `optimizer`-like things of its own and answers the questions under "the engine's part".
    """

    model: Any
    """Anything with a `config`, in the engine's own form."""

    def __init__(
        self,
        config: ModelConfig,
        tokenizer: Tokenizer | None,
        train_ids: Ids,
        val_ids: Ids,
        settings: TrainConfig,
        *,
        run: Record | None = None,
        listener: Listener | None = None,
        objective: Objective = causal,
        lineage: Mapping[str, Any] | None = None,
        floor: float | None = None,
        fresh: Callable[[int], Ids] | None = None,
    ) -> None:
        """Prepare, without learning yet: nothing is written.

        `train_ids` and `val_ids` are token ids (n,) that do not overlap. `run` keeps checkpoints and metrics; without
        it nothing is written. `lineage` (parent, recipe, data, commit, …) is stored in every checkpoint. `floor` is the
        exact entropy of the source in nats per token where it is known: a lower loss brings a warning.
        `fresh(epoch)` gives the training text anew for each epoch (noise, other tokens); it must be a pure function. What is
        measured is always measured on `train_ids` and `val_ids` as they are.
        Raises ValueError for texts that are too short, or hold ids that the model does not have.
        """
        self.config, self.tokenizer, self.settings, self.run = config, tokenizer, settings, run
        self.objective, self.floor = objective, floor
        self.train_ids, self.val_ids = as_ids(train_ids), as_ids(val_ids)
        self._fresh = fresh
        self._epoch: tuple[int, Ids] = (-1, self.train_ids)
        self.listener = Listener() if listener is None else listener
        self.lineage = dict(lineage or {})
        self.seq_len = config.max_seq_len
        check_texts(self.train_ids, self.val_ids, config)
        short = settings.short_context
        check(
            short is None or self.seq_len % short == 0, f"short_context={short}", f"it must divide max_seq_len={self.seq_len}",
            f"Try short_context={self.seq_len // 2}, or leave it out",
        )  # fmt: skip
        check(
            not settings.counted_share or (fresh is None and objective is causal), f"counted_share={settings.counted_share}",
            "it needs a text that stays as it is, and the question for the next token", "Try counted_share=0",
        )  # fmt: skip
        self._counted: Future[CountedTargets] | None = None
        self.progress = Progress()
        self.speed = Throughput()
        self._saved: dict[str, Any] | None = None  # the training state this session resumes from
        self._last_save = self._last_sample = self._last_evaluation = -1
        self._begun = 0.0
        self.command_started: float | None = None  # time.perf_counter of the command's start: `minutes` count from there, default `fit`
        self.budget: TimeBudget | None = None
        self.frozen_rows: list[int] = []

    def freeze_rows(self, rows: Iterable[int]) -> None:
        """From now on the vectors of these tokens stay as they are, and all else learns. A resumed run keeps to it by itself.

        Raises ValueError for ids that the model does not have.
        """
        ids = sorted(set(map(int, rows)))
        wrong = [i for i in ids[:1] + ids[-1:] if not 0 <= i < self.config.vocab_size]
        if wrong:
            raise ValueError(f"frozen token {wrong[0]}: ids must lie in 0 to {self.config.vocab_size - 1}. Use this model's tokenizer")
        self.frozen_rows = ids
        self._freeze(np.array(ids, dtype=np.int64))

    # ------------------------------------------------------------ the algorithm

    def fit(self) -> Result:
        """Learn until all steps are made or the minutes are over, patience runs out, or a signal comes.

        Leaves the model in evaluation mode.

        Raises TrainingError when the loss or the gradient is not finite: before the update, so the weights are those
        of the step before; and when the minutes are over before the first step.
        """
        with self._computing(), StopSignals() as stop:
            self._begin()
            while not stop.received and not self._is_over():
                self._step()
                self._milestones()
            return self._end(stop.received)

    def _step(self) -> None:
        """Gradients, a look at them, the update, a report."""
        started = time.perf_counter()
        loss, norm = self._gradients()
        self._check_finite(loss, norm)
        lr = self._update(norm)
        self._report(loss, lr, norm, time.perf_counter() - started)

    def _gradients(self) -> tuple[float, float]:
        """Gradients of this step's mean loss over all its targets; returns that loss and the gradients' norm."""
        return self._loss_and_norm(*self._questions())

    def _questions(self) -> tuple[list[Question], int]:
        """This step's batch in micro-batches, and how many targets they ask for together."""
        settings, step = self.settings, self.progress.step
        shape = *self._batch_shape(), settings.seed, step
        batch = self._ask(batch_at(self._ids_of_epoch(), *shape, settings.windows))
        questions = [Question(part, None) for part in split_batch(batch, settings.accumulate)]
        if settings.counted_share:
            counted = self._count().result()
            rows = batch_at(counted.rows, *shape, settings.windows).inputs  # of the very places that the batch comes from
            parts = np.array_split(rows, settings.accumulate)
            questions = [
                Question(question.batch, Expected(counted.table[part], settings.counted_share))
                for question, part in zip(questions, parts, strict=True)
            ]
        return questions, max(1, count_targets(batch.targets))

    def _count(self) -> Future[CountedTargets]:
        """What counting expects, once for the whole training; a thread of its own finds it, while the model is compiled."""
        if self._counted is None:
            ids = np.asarray(self.train_ids[0 : len(self.train_ids)])
            counting = ThreadPoolExecutor(1)
            self._counted = counting.submit(counted_targets, ids, self.config.vocab_size, self.settings.counted_order)
            counting.shutdown(wait=False)
        return self._counted

    def _batch_shape(self) -> tuple[int, int]:
        """This step's sequences and their length. Short ones first (Li et al. 2022, "The Stability-Efficiency Dilemma"): near tokens are
        learned before far ones, and attention over few tokens is cheap. A step always has batch_size · max_seq_len tokens.
        """
        s = self.settings
        if s.short_context is None or self._share() >= s.short_share:
            return s.batch_size, self.seq_len
        return s.batch_size * (self.seq_len // s.short_context), s.short_context

    def _share(self) -> float:
        """How far the training is, 0 to 1."""
        return self.progress.step / max(1, self.settings.max_steps) if self.budget is None else self.budget.share()

    def _ids_of_epoch(self) -> Ids:
        """What this step learns from: the training text, or what `fresh` makes of it for the epoch that the step lies in."""
        if self._fresh is None:
            return self._epoch[1]
        epoch = self.progress.step * self.settings.batch_size * self.seq_len // len(self.train_ids)
        if self._epoch[0] != epoch:
            ids: Ids = as_ids(self._fresh(epoch))
            check_texts(ids, self.val_ids, self.config)
            self._epoch = epoch, ids
        return self._epoch[1]

    def _check_finite(self, loss: float, norm: float) -> None:
        if math.isfinite(loss) and math.isfinite(norm):
            return
        self._drop_gradients()
        what = f"the loss is {loss}" if not math.isfinite(loss) else f"the gradient norm is {norm}"
        raise TrainingError(
            f"step {self.progress.step}: {what} (learning rate {self._lr():.3g}): it must be finite. The weights are as before this step. "
            "Try a lower learning_rate, a longer warmup_steps, or clip_norm=1"
        )

    def _update(self, norm: float) -> float:
        """Clip, set the learning rate, take the optimizer's step; returns the learning rate."""
        lr = self._lr()
        self._take_step(norm, lr)
        self.progress.step += 1
        return lr

    def _milestones(self) -> None:
        """What is due after this many updates: evaluation, a sample, a save. None of it changes the training."""
        if self.budget is None:
            self._due()
        elif self.budget.has_room_for_pause():
            started = time.perf_counter()
            self._due()
            self.budget.note_pause(time.perf_counter() - started)

    def _due(self) -> None:
        """All that this step's number asks for. With a time budget the last evaluation is made by `_end`."""
        step, settings = self.progress.step, self.settings
        if step % settings.eval_every == 0 or (step == settings.max_steps and self.budget is None):
            self._evaluate()
        if is_sample_step(step):
            self._sample()
        if step > 0 and step % settings.save_every == 0:
            self._save("last")

    def _is_over(self) -> bool:
        return self._is_complete() or self._out_of_patience()

    def _is_complete(self) -> bool:
        return self.progress.step >= self.settings.max_steps if self.budget is None else self.budget.is_over()

    def _out_of_patience(self) -> bool:
        return self.settings.patience is not None and self.progress.stale >= self.settings.patience

    # ------------------------------------------------------------ the engine's part

    @abstractmethod
    def _loss_and_norm(self, micro_batches: Sequence[Question], asked: int) -> tuple[float, float]:
        """Compute and keep this step's gradients; return its loss and the gradients' norm.

        Each micro-batch adds (sum of its losses) / asked, where `asked` counts the targets of the whole step, so the sum of
        their gradients is the gradient of the large batch, whatever the sizes and however many targets are asked for in each.
        """

    @abstractmethod
    def _take_step(self, norm: float, lr: float) -> None:
        """Clip the kept gradients, whose norm is `norm`, and update the weights."""

    @abstractmethod
    def _freeze(self, rows: NDArray[np.int64]) -> None:
        """From now on these rows of the token table have no gradient, and hold after every update what they hold now."""

    @abstractmethod
    def _drop_gradients(self) -> None:
        """Forget the kept gradients."""

    @abstractmethod
    def _loss_sums(self, batches: Iterator[Batch]) -> list[float]:
        """The sum of the losses of each batch, without dropout."""

    @abstractmethod
    def checkpoint(self, with_state: bool = True) -> Any:
        """The model as it is now; `with_state` adds all that `load_state` needs to go on as if never stopped."""

    @abstractmethod
    def _load(self, weights: Any, saved: Mapping[str, Any]) -> None:
        """Take weights, and the part of a checkpoint's training state that `_state_of_engine` gave."""

    @abstractmethod
    def _with_best_weights(self) -> AbstractContextManager[None]:
        """Inside, the model has the weights of the best checkpoint in `run`; afterwards the ones that it had."""

    @abstractmethod
    def _state_of_engine(self) -> dict[str, Any]:
        """What the engine alone knows and the next step depends on."""

    @abstractmethod
    def _circumstances_of_engine(self) -> dict[str, Any]:
        """What else its exact numbers depend on."""

    def _computing(self) -> AbstractContextManager[None]:
        """Around everything: thread counts and the like."""
        return nullcontext()

    def _undisturbed(self) -> AbstractContextManager[None]:
        """Around everything that must not change the training: random numbers drawn inside do not count."""
        return nullcontext()

    def _start_fresh(self) -> None:
        """Before the first step of a new run."""

    def _start_resumed(self, saved: Mapping[str, Any]) -> None:
        """Before the first step of a resumed one."""

    def _prepare(self) -> None:
        """Before either: compile and the like."""

    def _settle(self) -> None:
        """After the last step: the model is left ready for use."""

    # ------------------------------------------------------------ begin and end

    def _begin(self) -> None:
        self._begun = time.perf_counter()
        self._start_clock()
        self.listener.on_start(self)
        if self.settings.counted_share:
            self._count()
        self._prepare()
        if self._saved is None:
            self._start_fresh()
            self._milestones()
            self._check_time()
            return
        for line in differences(self._saved, self._circumstances(), self.settings):
            self.listener.on_warning(line)
        if self.run is not None:
            self.run.truncate(self.progress.step)  # what a killed session logged after its last save comes again
        self._start_resumed(self._saved)

    def _start_clock(self) -> None:
        minutes, p = self.settings.minutes, self.progress
        if minutes is not None:
            self.budget = TimeBudget(60 * minutes, started=self.command_started, used=p.used, learned=p.learned)
        self.command_started = None  # a second `fit` is no new command

    def _check_time(self) -> None:
        if self.budget is not None and self.budget.left <= 0:
            raise TrainingError(self.budget.too_short())

    def _stop_clock(self, received: int | None) -> None:
        """After the last step: what follows is not counted."""
        if self.budget is None:
            return
        self.budget.stop()
        self.progress.used, self.progress.learned = self.budget.used, self.budget.learned
        if received is None and self.progress.step == 1:
            self.listener.on_warning(self.budget.one_step())

    def _end(self, received: int | None) -> Result:
        """Save; unless a signal hurries us, also take the last sample and measure on the whole validation text."""
        self._stop_clock(received)
        if self.budget is not None and received is None and self._last_evaluation != self.progress.step:
            self._evaluate()
        if self.budget is not None or self._last_save != self.progress.step:
            self._save("last")
        self._saved = self._state()  # should `fit` be called once more, it resumes
        final = None
        if received is None:
            if self._last_sample != self.progress.step:
                self._sample()
            final = self._final_val_loss()
            trained = {} if self.budget is None else {"trained_seconds": round(self.budget.used, 2)}
            self._log(final_val_loss=final, **trained)
        self._settle()
        self.progress.seconds, self._begun = self._seconds(), 0.0
        result = self._result(final, received)
        self.listener.on_end(result)
        return result

    def _result(self, final: float | None, received: int | None) -> Result:
        p = self.progress
        return Result(
            steps=p.step, best_step=p.best_step, best_val_loss=p.best_val_loss, best_train_loss=p.best_train_loss,
            val_loss=p.val_loss, train_loss=p.train_loss, final_val_loss=final, seconds=p.seconds, tokens_per_second=self.speed.overall,
            stopped="signal" if received else "finished" if self._is_complete() else "early", signal=received,
            trained_seconds=None if self.budget is None else self.budget.used,
        )  # fmt: skip

    def _final_val_loss(self) -> float:
        """Loss over the whole validation text with the best weights; the model has its last ones again afterwards."""
        if self.run is None or self.progress.best_step == self.progress.step:
            return self.evaluate(self.val_ids)
        with self._with_best_weights():
            return self.evaluate(self.val_ids)

    # ------------------------------------------------------------ the loss, in training and in evaluation

    def _ask(self, batch: Batch) -> Batch:
        """The objective's question about a plain batch. Where a window was padded, nothing is asked."""
        padding = batch.targets == IGNORE
        ids = np.concatenate((batch.inputs[:, :1], np.where(padding, 0, batch.targets)), axis=1)  # (batch, seq + 1)
        inputs, targets = self.objective(ids)
        return Batch(inputs, np.where(padding, IGNORE, targets))

    def evaluate(self, ids: Ids, max_tokens: int | None = None, stride: int | None = None) -> float:
        """Mean loss in nats per target over the first `max_tokens` targets of `ids`, or all of them.

        The text is read in windows of max_seq_len that do not overlap, or begin `stride` tokens apart: every target counts once. How
        many windows are computed at once depends on the model's sizes only: the result is the same for every batch size.
        Dropout is off; afterwards the model is in the mode it was in. Raises ValueError below two tokens.
        """
        if max_tokens is not None:
            ids = ids[: max_tokens + 1]
        if len(ids) < 2:
            raise ValueError(f"{len(ids)} tokens to evaluate on: there must be 2 or more, one to see and one to predict. Use a longer text")
        rows = max(1, min(EVAL_TOKENS_AT_ONCE, EVAL_LOGITS_AT_ONCE // self.config.vocab_size) // self.seq_len)
        asked = 0

        def questions() -> Iterator[Batch]:
            nonlocal asked
            for window in windows(ids, self.seq_len, rows, stride):
                batch = self._ask(window)
                asked += count_targets(batch.targets)
                yield batch

        return math.fsum(self._loss_sums(questions())) / max(1, asked)

    # ------------------------------------------------------------ milestones

    def _evaluate(self) -> None:
        """Measure both texts, remember the best, save it, and say so."""
        p, tokens = self.progress, min(self.settings.eval_tokens, len(self.val_ids) - 1)
        self._last_evaluation = p.step
        with self._undisturbed():
            train_loss, val_loss = self.evaluate(self.train_ids, tokens), self.evaluate(self.val_ids, tokens)
            if not math.isfinite(val_loss):
                raise TrainingError(f"step {p.step}: the validation loss is {val_loss}: it must be finite. Try a lower learning_rate")
            is_best = p.note_evaluation(train_loss, val_loss)
            if is_best:
                self._save("best")
            self._log(train_loss=train_loss, val_loss=val_loss)
            self.listener.on_eval(p.step, train_loss, val_loss, is_best)
            self._warn()

    def _warn(self) -> None:
        p = self.progress
        yardstick = conditional_entropy(self.val_ids[: self.settings.eval_tokens + 1])
        kinds = {"parting": parting(p.train_loss, p.val_loss, p.best_val_loss), "too good": too_good(p.val_loss, yardstick, self.floor)}
        for kind, text in kinds.items():
            if text is not None and kind not in p.warned:
                p.warned = (*p.warned, kind)
                self.listener.on_warning(text)

    def _sample(self) -> None:
        self._last_sample = self.progress.step
        with self._undisturbed():
            self.listener.on_sample(self.progress.step)

    def _report(self, loss: float, lr: float, norm: float, seconds: float) -> None:
        step = self.progress.step
        self.speed.add(self.settings.batch_size * self.seq_len, seconds)
        if self.budget is not None:
            self.budget.note_step(seconds)
        if step % self.settings.log_every == 0:
            used = {} if self.budget is None else {"seconds_used": round(self.budget.used, 2)}
            self._log(loss=loss, lr=lr, grad_norm=norm, tokens_per_second=round(self.speed.recent, 1), **used)
        self.listener.on_step(step, loss, lr, norm, self.speed.recent)

    def _log(self, **numbers: float) -> None:
        if self.run is not None:
            self.run.log(self.progress.step, **numbers)

    # ------------------------------------------------------------ saving and resuming

    def _save(self, name: str) -> None:
        if self.run is not None:
            self.run.save(self.checkpoint(with_state=name == "last"), name)
        if name == "last":
            self._last_save = self.progress.step

    def _description(self) -> dict[str, Any]:
        """What every engine's checkpoint says beside the weights."""
        p = self.progress
        metrics = {"train_loss": p.train_loss, "val_loss": p.val_loss, "best_val_loss": p.best_val_loss, "best_step": p.best_step}
        return {
            "config": self.config,
            "tokenizer": None if self.tokenizer is None else self.tokenizer.to_dict(),
            "step": p.step,
            "metrics": {name: value for name, value in metrics.items() if math.isfinite(value)},
            "lineage": self.lineage,
        }

    def _state(self) -> dict[str, Any]:
        """Everything that changes the next step, and what it was computed with: arrays of the engine and plain values."""
        return {
            **self._state_of_engine(),
            "progress": self.progress.to_dict() | {"seconds": self._seconds()} | self._clock(),
            "settings": asdict(self.settings),
            "circumstances": self._circumstances(),
            **({"frozen_rows": self.frozen_rows} if self.frozen_rows else {}),
        }

    def load_state(self, checkpoint: Any) -> None:
        """Continue from `checkpoint`: the next `fit` makes the steps that an uninterrupted run would have made.

        What makes that impossible (other versions, thread count, device, text or settings) is not refused: `fit`
        begins with a warning for each. Raises ValueError for a checkpoint without training state, or of another model.
        """
        saved: dict[str, Any] | None = checkpoint.training
        if saved is None:
            raise ValueError("this checkpoint holds weights only: resuming needs the training state. Use the run's last checkpoint")
        self._load(checkpoint.weights, saved)
        self.progress = Progress.from_dict(saved["progress"])
        self.lineage = self.lineage or dict(checkpoint.lineage)
        self.freeze_rows(saved.get("frozen_rows", ()))
        self._saved = saved

    # ------------------------------------------------------------ small things

    def _lr(self) -> float:
        s = self.settings
        if self.budget is not None:
            return lr_at_share(
                self.progress.step, self.budget.share(), learning_rate=s.learning_rate, warmup_steps=s.warmup_steps,
                min_lr_ratio=s.min_lr_ratio, schedule=s.schedule, decay_share=s.decay_share,
            )  # fmt: skip
        return lr_at(
            self.progress.step, max_steps=s.max_steps, learning_rate=s.learning_rate, warmup_steps=s.warmup_steps,
            min_lr_ratio=s.min_lr_ratio, schedule=s.schedule, decay_share=s.decay_share,
        )  # fmt: skip

    def _circumstances(self) -> dict[str, Any]:
        return circumstances((self.train_ids, self.val_ids), self._circumstances_of_engine())

    def _clock(self) -> dict[str, float]:
        return {} if self.budget is None else {"used": self.budget.used, "learned": self.budget.learned}

    def _seconds(self) -> float:
        return self.progress.seconds + (time.perf_counter() - self._begun if self._begun else 0.0)


def check_texts(train_ids: Ids, val_ids: Ids, config: ModelConfig) -> None:
    """Raise ValueError when a text is too short, or holds ids that a model of this config does not have."""
    check_length(train_ids, config.max_seq_len)
    for name, ids in (("training", train_ids), ("validation", val_ids)):
        if len(ids) < 2:
            raise ValueError(f"the {name} text has {len(ids)} tokens: it must have 2 or more, to see one and predict one. Use a longer one")
        low, high = min(int(block.min()) for block in blocks(ids)), max(int(block.max()) for block in blocks(ids))
        if low < 0 or high >= config.vocab_size:
            raise ValueError(
                f"the {name} text holds token {low if low < 0 else high}: ids must lie in 0 to {config.vocab_size - 1}. "
                "Use the tokenizer that the model was made for"
            )


def split_batch(batch: Batch, parts: int) -> Iterator[Batch]:
    """The rows of a batch in `parts` micro-batches whose sizes differ by at most one: 10 rows in 4 parts are 3, 3, 2, 2."""
    yield from map(Batch, np.array_split(batch.inputs, parts), np.array_split(batch.targets, parts))


if __name__ == "__main__":
    batch = Batch(np.arange(20).reshape(10, 2), np.arange(20).reshape(10, 2) + 1)
    print("10 rows in 4 micro-batches:", [len(part.inputs) for part in split_batch(batch, 4)])
    print("left to an engine:", ", ".join(sorted(TrainingLoop.__abstractmethods__)))
