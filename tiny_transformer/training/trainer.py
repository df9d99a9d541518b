"""The training loop: `Trainer.fit` is the algorithm, the small methods below it are its lines.

    for every step:   batch → gradients of its mean loss → finite? → clip → AdamW → evaluate, sample, save when due

Leaves out: what is shown on screen (a `Listener` is told), sampling, the command line, and where text comes from.
Read before: `dataset.py`, `objectives.py`, `scheduler.py`, `optimizers.py`, `run.py`.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tiny_transformer import run as runs
from tiny_transformer.config import ModelConfig, TrainConfig
from tiny_transformer.corpora.text_statistics import conditional_entropy
from tiny_transformer.model import TinyTransformerLM
from tiny_transformer.run import Run
from tiny_transformer.tokenization.base import Tokenizer
from tiny_transformer.training import objectives
from tiny_transformer.training.dataset import IGNORE, Batch, batch_at, check_length, windows
from tiny_transformer.training.listener import Listener, Result, TrainingError, is_sample_step
from tiny_transformer.training.objectives import causal, count_targets
from tiny_transformer.training.optimizers import load_optimizer_state, make_optimizer, optimizer_state
from tiny_transformer.training.plausibility import parting, too_good
from tiny_transformer.training.resume import Progress, circumstances, differences
from tiny_transformer.training.rng import preserved_rng, restore_rng, rng_state, set_seed
from tiny_transformer.training.scheduler import lr_at
from tiny_transformer.training.signals import StopSignals
from tiny_transformer.training.utils import (
    Throughput,
    evaluating,
    gradient_norm,
    pick_device,
    pick_precision,
    scale_gradients,
    thread_count,
)
from tiny_transformer.utils.checkpoint import Checkpoint, load

Ids = NDArray[np.integer[Any]]
Objective = Callable[[Ids], Batch]
"""ids (batch, seq + 1) to inputs and targets, (batch, seq) each."""

EVAL_TOKENS_AT_ONCE, EVAL_LOGITS_AT_ONCE = 8192, 2**25


class Trainer:
    """Teaches a model a text, and can be stopped and resumed at any step without changing a bit of the outcome."""

    def __init__(
        self,
        model: TinyTransformerLM,
        tokenizer: Tokenizer | None,
        train_ids: Ids,
        val_ids: Ids,
        settings: TrainConfig,
        *,
        run: Run | None = None,
        listener: Listener | None = None,
        objective: Objective = causal,
        lineage: Mapping[str, Any] | None = None,
        floor: float | None = None,
    ) -> None:
        """Prepare, without learning yet: the model is moved to its device, nothing is written.

        `train_ids` and `val_ids` are token ids (n,) that do not overlap. `run` keeps checkpoints and metrics; without
        it nothing is written. `lineage` (parent, recipe, data, commit, …) is stored in every checkpoint. `floor` is the
        exact entropy of the source in nats per token where it is known: a lower loss brings a warning.
        Raises ValueError for texts that are too short, or hold ids that the model does not have.
        """
        self.model: TinyTransformerLM = getattr(model, "_orig_mod", model)  # a compiled model is a wrapper: keep the inside
        self.tokenizer, self.settings, self.run, self.objective, self.floor = tokenizer, settings, run, objective, floor
        self.train_ids, self.val_ids = np.asarray(train_ids), np.asarray(val_ids)
        self.listener = Listener() if listener is None else listener
        self.lineage = dict(lineage or {})
        self.seq_len = model.config.max_seq_len
        check_texts(self.train_ids, self.val_ids, model.config)
        self.device = pick_device(settings.device)
        self.precision = pick_precision(settings.precision, self.device)
        self.model.to(self.device)
        self.parameters = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        self.optimizer = make_optimizer(self.model, settings)
        self.progress = Progress()
        self.speed = Throughput()
        self._forward: Callable[[Tensor], Tensor] = self.model
        self._saved: dict[str, Any] | None = None  # the training state this session resumes from
        self._last_save = self._last_sample = -1
        self._begun = 0.0

    # ------------------------------------------------------------ the algorithm

    def fit(self) -> Result:
        """Learn until all steps are made, patience runs out, or a signal comes; leaves the model in evaluation mode.

        Raises TrainingError when the loss or the gradient is not finite: before the update, so the weights are those
        of the step before.
        """
        with thread_count(self.settings.threads), StopSignals() as stop:
            self._begin()
            while not stop.received and not self._is_over():
                started = time.perf_counter()
                loss, norm = self._gradients()
                self._check_finite(loss, norm)
                lr = self._update(norm)
                self._report(loss, lr, norm, time.perf_counter() - started)
                self._milestones()
            return self._end(stop.received)

    def _gradients(self) -> tuple[float, float]:
        """Gradients of this step's mean loss over all its targets; returns that loss and the gradients' norm.

        Each micro-batch adds (sum of its losses) / (targets of the whole step), so the sum of their gradients is the
        gradient of the large batch, whatever the sizes and however many targets are asked for in each.
        """
        settings, step = self.settings, self.progress.step
        batch = self._ask(batch_at(self.train_ids, settings.batch_size, self.seq_len, settings.seed, step))
        asked = max(1, count_targets(batch.targets))
        self.model.train()
        self.optimizer.zero_grad(set_to_none=True)
        loss = torch.zeros((), device=self.device)
        for micro in split_batch(batch, settings.accumulate):
            part = self._loss_sum(micro) / asked
            part.backward()  # type: ignore[no-untyped-call]
            loss = loss + part.detach()
        mean_loss, norm = torch.stack((loss, gradient_norm(self.parameters).to(loss))).tolist()  # the step's only wait for the device
        return mean_loss, norm

    def _check_finite(self, loss: float, norm: float) -> None:
        if math.isfinite(loss) and math.isfinite(norm):
            return
        self.optimizer.zero_grad(set_to_none=True)
        what = f"the loss is {loss}" if not math.isfinite(loss) else f"the gradient norm is {norm}"
        raise TrainingError(
            f"step {self.progress.step}: {what} (learning rate {self._lr():.3g}): it must be finite. The weights are as before this step. "
            "Try a lower learning_rate, a longer warmup_steps, or clip_norm=1"
        )

    def _update(self, norm: float) -> float:
        """Clip, set the learning rate, take the optimizer's step; returns the learning rate."""
        lr = self._lr()
        scale_gradients(self.parameters, norm, self.settings.clip_norm)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.step()
        self.progress.step += 1
        return lr

    def _milestones(self) -> None:
        """What is due after this many updates: evaluation, a sample, a save. None of it changes the training."""
        step, settings = self.progress.step, self.settings
        if step % settings.eval_every == 0 or step == settings.max_steps:
            self._evaluate()
        if is_sample_step(step):
            self._sample()
        if step > 0 and step % settings.save_every == 0:
            self._save("last")

    def _is_over(self) -> bool:
        return self.progress.step >= self.settings.max_steps or self._out_of_patience()

    def _out_of_patience(self) -> bool:
        return self.settings.patience is not None and self.progress.stale >= self.settings.patience

    # ------------------------------------------------------------ begin and end

    def _begin(self) -> None:
        self._begun = time.perf_counter()
        self.listener.on_start(self)
        self._try_compiled()
        if self._saved is None:
            set_seed(self.settings.seed)
            self._milestones()
            return
        for line in differences(self._saved, self._circumstances(), self.settings):
            self.listener.on_warning(line)
        if self.run is not None:
            self.run.truncate(self.progress.step)  # what a killed session logged after its last save comes again
        restore_rng(self._saved["rng"], self.device)

    def _try_compiled(self) -> None:
        """Train through torch.compile where that is wanted and works; weights and evaluations stay those of the plain model."""
        if not self.settings.compile:
            return
        rows = -(-self.settings.batch_size // self.settings.accumulate)
        try:
            compiled = torch.compile(self.model)
            with preserved_rng(self.device):
                self.model.train()
                compiled(torch.zeros((rows, self.seq_len), dtype=torch.int64, device=self.device))
            self._forward = compiled
        except Exception as error:  # no compiler, an unsupported Python, …: every reason has a type of its own
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            self.listener.on_warning(f"compile did not work here, training goes on without it: {reason}")

    def _end(self, received: int | None) -> Result:
        """Save; unless a signal hurries us, also take the last sample and measure on the whole validation text."""
        if self._last_save != self.progress.step:
            self._save("last")
        self._saved = self._state()  # should `fit` be called once more, it resumes
        final = None
        if received is None:
            if self._last_sample != self.progress.step:
                self._sample()
            final = self._final_val_loss()
            self._log(final_val_loss=final)
        self.model.eval()
        self.progress.seconds, self._begun = self._seconds(), 0.0
        result = self._result(final, received)
        self.listener.on_end(result)
        return result

    def _result(self, final: float | None, received: int | None) -> Result:
        p = self.progress
        return Result(
            steps=p.step, best_step=p.best_step, best_val_loss=p.best_val_loss, best_train_loss=p.best_train_loss,
            val_loss=p.val_loss, train_loss=p.train_loss, final_val_loss=final, seconds=p.seconds, tokens_per_second=self.speed.overall,
            stopped="signal" if received else "early" if p.step < self.settings.max_steps else "finished", signal=received,
        )  # fmt: skip

    def _final_val_loss(self) -> float:
        """Loss over the whole validation text with the best weights; the model has its last ones again afterwards."""
        best = None if self.run is None else self.run.path / "best.pt"
        if best is None or not best.exists() or self.progress.best_step == self.progress.step:
            return self.evaluate(self.val_ids)
        last = {name: tensor.clone() for name, tensor in self.model.weights().items()}
        self.model.load_weights(load(best).weights)
        try:
            return self.evaluate(self.val_ids)
        finally:
            self.model.load_weights(last)

    # ------------------------------------------------------------ the loss, in training and in evaluation

    def _ask(self, batch: Batch) -> Batch:
        """The objective's question about a plain batch. Where a window was padded, nothing is asked."""
        padding = batch.targets == IGNORE
        ids = np.concatenate((batch.inputs[:, :1], np.where(padding, 0, batch.targets)), axis=1)  # (batch, seq + 1)
        inputs, targets = self.objective(ids)
        return Batch(inputs, np.where(padding, IGNORE, targets))

    def _loss_sum(self, batch: Batch) -> Tensor:
        """The sum of the losses of all targets asked for, in float32 at least."""
        inputs, targets = self._to_device(batch.inputs), self._to_device(batch.targets)
        forward = self._forward if self.model.training else self.model
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision is torch.bfloat16):
            logits = forward(inputs)  # (batch, seq, vocab)
        return objectives.cross_entropy(logits, targets, reduction="sum")

    def _to_device(self, array: Ids) -> Tensor:
        tensor = torch.from_numpy(np.ascontiguousarray(array))
        if self.device.type == "cuda":
            return tensor.pin_memory().to(self.device, non_blocking=True)
        return tensor.to(self.device)

    def evaluate(self, ids: Ids, max_tokens: int | None = None) -> float:
        """Mean loss in nats per target over the first `max_tokens` targets of `ids`, or all of them.

        The text is read in windows of max_seq_len that do not overlap, so every target counts once. How many windows
        are computed at once depends on the model's sizes only: the result is the same for every batch size.
        Dropout is off; afterwards the model is in the mode it was in. Raises ValueError below two tokens.
        """
        if max_tokens is not None:
            ids = ids[: max_tokens + 1]
        if len(ids) < 2:
            raise ValueError(f"{len(ids)} tokens to evaluate on: there must be 2 or more, one to see and one to predict. Use a longer text")
        rows = max(1, min(EVAL_TOKENS_AT_ONCE, EVAL_LOGITS_AT_ONCE // self.model.config.vocab_size) // self.seq_len)
        sums, asked = [], 0
        with evaluating(self.model):
            for window in windows(ids, self.seq_len, rows):
                batch = self._ask(window)
                sums.append(self._loss_sum(batch))
                asked += count_targets(batch.targets)
        return math.fsum(torch.stack(sums).tolist()) / max(1, asked)

    # ------------------------------------------------------------ milestones

    def _evaluate(self) -> None:
        """Measure both texts, remember the best, save it, and say so."""
        p, tokens = self.progress, min(self.settings.eval_tokens, len(self.val_ids) - 1)
        with preserved_rng(self.device):
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
        with preserved_rng(self.device), evaluating(self.model):
            self.listener.on_sample(self.progress.step)

    def _report(self, loss: float, lr: float, norm: float, seconds: float) -> None:
        step = self.progress.step
        self.speed.add(self.settings.batch_size * self.seq_len, seconds)
        if step % self.settings.log_every == 0:
            self._log(loss=loss, lr=lr, grad_norm=norm, tokens_per_second=round(self.speed.recent, 1))
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

    def checkpoint(self, with_state: bool = True) -> Checkpoint:
        """The model as it is now; `with_state` adds all that `load_state` needs to go on as if never stopped."""
        p = self.progress
        metrics = {"train_loss": p.train_loss, "val_loss": p.val_loss, "best_val_loss": p.best_val_loss, "best_step": p.best_step}
        return Checkpoint(
            config=self.model.config,
            tokenizer=None if self.tokenizer is None else self.tokenizer.to_dict(),
            weights=self.model.weights(),
            step=p.step,
            metrics={name: value for name, value in metrics.items() if math.isfinite(value)},
            lineage=self.lineage,
            training=self._state() if with_state else None,
        )

    def _state(self) -> dict[str, Any]:
        """Everything that changes the next step, and what it was computed with: tensors and plain values."""
        return {
            "progress": self.progress.to_dict() | {"seconds": self._seconds()},
            "optimizer": optimizer_state(self.optimizer, self.model),
            "rng": rng_state(self.device),
            "settings": asdict(self.settings),
            "circumstances": self._circumstances(),
        }

    def load_state(self, checkpoint: Checkpoint) -> None:
        """Continue from `checkpoint`: the next `fit` makes the steps that an uninterrupted run would have made.

        What makes that impossible (other versions, thread count, device, text or settings) is not refused: `fit`
        begins with a warning for each. Raises ValueError for a checkpoint without training state, or of another model.
        """
        saved = checkpoint.training
        if saved is None:
            raise ValueError("this checkpoint holds weights only: resuming needs the training state. Use the run's last.pt")
        self.model.load_weights(checkpoint.weights)
        load_optimizer_state(self.optimizer, self.model, saved["optimizer"])
        self.progress = Progress.from_dict(saved["progress"])
        self.lineage = self.lineage or dict(checkpoint.lineage)
        self._saved = saved

    @classmethod
    def resume(cls, run: Run, train_ids: Ids, val_ids: Ids, settings: TrainConfig | None = None, **more: Any) -> Self:
        """A trainer that continues `run` from its last.pt, with its own settings unless others are given.

        `more` are the other arguments of Trainer (listener, objective, lineage, floor).
        """
        checkpoint = load(run.path / "last.pt")
        model, tokenizer = runs.build(checkpoint)
        saved = (checkpoint.training or {}).get("settings", {})
        trainer = cls(model, tokenizer, train_ids, val_ids, settings or TrainConfig(**saved), run=run, **more)
        trainer.load_state(checkpoint)
        return trainer

    # ------------------------------------------------------------ small things

    def _lr(self) -> float:
        s = self.settings
        return lr_at(
            self.progress.step, max_steps=s.max_steps, learning_rate=s.learning_rate, warmup_steps=s.warmup_steps,
            min_lr_ratio=s.min_lr_ratio, schedule=s.schedule, decay_share=s.decay_share,
        )  # fmt: skip

    def _circumstances(self) -> dict[str, Any]:
        return circumstances(self.device, (self.train_ids, self.val_ids))

    def _seconds(self) -> float:
        return self.progress.seconds + (time.perf_counter() - self._begun if self._begun else 0.0)


def check_texts(train_ids: Ids, val_ids: Ids, config: ModelConfig) -> None:
    """Raise ValueError when a text is too short, or holds ids that a model of this config does not have."""
    check_length(train_ids, config.max_seq_len)
    for name, ids in (("training", train_ids), ("validation", val_ids)):
        if len(ids) < 2:
            raise ValueError(f"the {name} text has {len(ids)} tokens: it must have 2 or more, to see one and predict one. Use a longer one")
        low, high = int(ids.min()), int(ids.max())
        if low < 0 or high >= config.vocab_size:
            raise ValueError(
                f"the {name} text holds token {low if low < 0 else high}: ids must lie in 0 to {config.vocab_size - 1}. "
                "Use the tokenizer that the model was made for"
            )


def split_batch(batch: Batch, parts: int) -> Iterator[Batch]:
    """The rows of a batch in `parts` micro-batches whose sizes differ by at most one: 10 rows in 4 parts are 3, 3, 2, 2."""
    yield from map(Batch, np.array_split(batch.inputs, parts), np.array_split(batch.targets, parts))


if __name__ == "__main__":

    class Print(Listener):
        """Shows the evaluations."""

        def on_eval(self, step: int, train_loss: float, val_loss: float, is_best: bool) -> None:  # noqa: D102
            print(f"step {step:3}: training loss {train_loss:.3f}, validation loss {val_loss:.3f}{' (best)' if is_best else ''}")

    ids = np.frombuffer(b"a rose is a rose is a rose. " * 200, dtype=np.uint8) % 32
    model = TinyTransformerLM(ModelConfig(vocab_size=32, max_seq_len=16, d_model=32, n_layers=1, n_heads=2), seed=0)
    settings = TrainConfig(max_steps=60, batch_size=8, learning_rate=1e-2, warmup_steps=10, eval_every=20, eval_tokens=512)
    result = Trainer(model, None, ids[:5000], ids[5000:], settings, listener=Print()).fit()
    print(f"ids {ids.shape}: {result.stopped} after {result.steps} steps, loss on all validation text {result.final_val_loss:.3f}")
