"""The training loop's PyTorch half: gradients, the optimizer's step, random numbers, devices, compiling.

Leaves out: the algorithm itself (`loop.py`, which is one reading with this file). Read before: `loop.py`, `optimizers.py`.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tiny_transformer import run as runs
from tiny_transformer.config import ModelConfig, TrainConfig
from tiny_transformer.model import TinyTransformerLM
from tiny_transformer.run import Run
from tiny_transformer.tokenization.base import Tokenizer
from tiny_transformer.training import objectives
from tiny_transformer.training.dataset import Batch
from tiny_transformer.training.frozen_rows import FrozenRows
from tiny_transformer.training.listener import Listener
from tiny_transformer.training.loop import Ids, Objective, Question, TrainingLoop
from tiny_transformer.training.objectives import causal
from tiny_transformer.training.optimizers import load_optimizer_state, make_optimizer, optimizer_state
from tiny_transformer.training.rng import preserved_rng, restore_rng, rng_state, set_seed
from tiny_transformer.training.steps_ahead import MOST_AHEAD, StepsAhead, can_run_ahead, guarded_step
from tiny_transformer.training.utils import evaluating, gradient_norm, pick_device, pick_precision, scale_gradients, thread_count
from tiny_transformer.utils.checkpoint import Checkpoint, load


class Trainer(TrainingLoop):
    """Teaches a PyTorch model a text, and can be stopped and resumed at any step without changing a bit of the outcome."""

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
        fresh: Callable[[int], Ids] | None = None,
    ) -> None:
        """Prepare, without learning yet: the model is moved to its device, nothing is written.

        The other arguments and errors are those of `TrainingLoop`.
        """
        self.model: TinyTransformerLM = getattr(model, "_orig_mod", model)  # a compiled model is a wrapper: keep the inside
        super().__init__(
            self.model.config, tokenizer, train_ids, val_ids, settings,
            run=run, listener=listener, objective=objective, lineage=lineage, floor=floor, fresh=fresh,
        )  # fmt: skip
        self.device = pick_device(settings.device)
        self.precision = pick_precision(settings.precision, self.device)
        self.model.to(self.device)
        self.model.checkpoint_layers = settings.checkpoint_layers
        self.parameters = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        self.optimizer = make_optimizer(self.model, settings)
        self._frozen: FrozenRows | None = None
        self._forward: Callable[[Tensor], Tensor] = self.model
        self._cross_entropy: Callable[..., Tensor] | None = None  # compiled, where that pays
        self._ahead = StepsAhead(self.device) if can_run_ahead(self.optimizer, self.device) else None

    # ------------------------------------------------------------ a step

    def _step(self) -> None:
        """On a GPU with a fused optimizer nothing in here waits for the device, save for numbers of steps long past."""
        if self._ahead is None:
            super()._step()
            return
        self._ahead.begin()
        step, lr = self.progress.step, self._lr()
        numbers = self._queue_gradients(*self._questions())
        self._set_lr(lr)
        guarded_step(self.optimizer, numbers, self._ahead.bad, self.settings.clip_norm)
        self._hold_frozen()
        self.progress.step += 1
        self._ahead.put(step, lr, numbers)
        self._hear(self._ahead, leave=MOST_AHEAD)

    def _catch_up(self) -> None:
        """Before anyone looks at the model: wait for the steps that are on their way."""
        if self._ahead is not None:
            self._hear(self._ahead, leave=0)

    def _hear(self, ahead: StepsAhead, leave: int) -> None:
        """Check and report the steps whose numbers are known now, as if it were then."""
        now = self.progress.step
        for step, lr, loss, norm, seconds in ahead.take(leave):
            self.progress.step = step
            if not (math.isfinite(loss) and math.isfinite(norm)):
                ahead.forget()  # no weight has changed since
            self._check_finite(loss, norm)
            self.progress.step = step + 1
            self._report(loss, lr, norm, seconds)
        self.progress.step = now

    def _loss_and_norm(self, micro_batches: Sequence[Question], asked: int) -> tuple[float, float]:
        mean_loss, norm = self._queue_gradients(micro_batches, asked).tolist()  # the step's only wait for the device
        return mean_loss, norm

    def _queue_gradients(self, micro_batches: Sequence[Question], asked: int) -> Tensor:
        """Gradients of the mean loss, and that loss with their norm, (2,), on the device: asked for, not waited for."""
        self.model.train()
        self.optimizer.zero_grad(set_to_none=True)
        loss = torch.zeros((), device=self.device)
        for micro in micro_batches:
            part = self._loss_sum(*micro) / asked
            part.backward()  # type: ignore[no-untyped-call]
            loss = loss + part.detach()
        if self._frozen is not None:
            self._frozen.clear(self.model.embeddings.token.weight.grad)
        return torch.stack((loss, gradient_norm(self.parameters).to(loss)))

    def _take_step(self, norm: float, lr: float) -> None:
        scale_gradients(self.parameters, norm, self.settings.clip_norm)
        self._set_lr(lr)
        self.optimizer.step()
        self._hold_frozen()

    def _freeze(self, rows: NDArray[np.int64]) -> None:
        table = self.model.embeddings.token.weight.detach()
        self._frozen = FrozenRows(torch.from_numpy(rows).to(self.device), table) if len(rows) else None

    def _hold_frozen(self) -> None:
        if self._frozen is not None:
            self._frozen.restore(self.model.embeddings.token.weight.detach())

    def _set_lr(self, lr: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = lr * group.get("lr_ratio", 1.0)  # Muon's matrices: the same schedule, another peak

    def _drop_gradients(self) -> None:
        self.optimizer.zero_grad(set_to_none=True)

    def _loss_sum(self, batch: Batch, expected: objectives.Expected | None = None) -> Tensor:
        """The sum of the losses of all targets asked for, in float32 at least."""
        inputs, targets = self._to_device(batch.inputs), self._to_device(batch.targets)
        learning = self.model.training
        with self._autocast():
            logits = (self._forward if learning else self.model)(inputs)  # (batch, seq, vocab)
        if expected is not None:
            return objectives.soft_cross_entropy(logits, targets, self._to_device(expected.probabilities), expected.share, "sum")
        loss = (self._cross_entropy if learning else None) or objectives.cross_entropy
        return loss(logits, targets, reduction="sum")

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision is torch.bfloat16)

    def _loss_sums(self, batches: Iterator[Batch]) -> list[float]:
        with evaluating(self.model):
            sums: list[float] = torch.stack([self._loss_sum(batch) for batch in batches]).tolist()
        return sums

    def _to_device(self, array: NDArray[Any]) -> Tensor:
        tensor = torch.from_numpy(np.ascontiguousarray(array))
        if self.device.type == "cuda":
            return tensor.pin_memory().to(self.device, non_blocking=True)
        return tensor.to(self.device)

    # ------------------------------------------------------------ around the steps

    @contextmanager
    def _computing(self) -> Iterator[None]:
        with thread_count(self.settings.threads):
            yield

    @contextmanager
    def _undisturbed(self) -> Iterator[None]:
        self._catch_up()
        with preserved_rng(self.device), evaluating(self.model):
            yield

    def _start_fresh(self) -> None:
        set_seed(self.settings.seed)

    def _start_resumed(self, saved: Mapping[str, Any]) -> None:
        restore_rng(saved["rng"], self.device)

    def _prepare(self) -> None:
        """Train through torch.compile where that is wanted and works; weights and evaluations stay those of the plain model."""
        if not self.settings.compile:
            return
        batch, seq = self._batch_shape()
        rows = -(-batch // self.settings.accumulate)
        try:
            # With two lengths each gets code of its own, not one code for any length.
            lengths: dict[str, Any] = {} if self.settings.short_context is None else {"dynamic": False}
            compiled, loss = torch.compile(self.model, **lengths), None
            ids = torch.zeros((rows, seq), dtype=torch.int64, device=self.device)
            with preserved_rng(self.device), self._autocast():  # what is compiled is compiled for a kind of arithmetic
                self.model.train()
                logits = compiled(ids)
            if self.device.type == "cuda":  # logits of a large vocabulary are the step's largest tensor: read and write them once
                loss = torch.compile(objectives.cross_entropy)
                loss(logits, ids, reduction="sum")
            self._forward, self._cross_entropy = compiled, loss
        except Exception as error:  # no compiler, an unsupported Python, …: every reason has a type of its own
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            self.listener.on_warning(f"compile did not work here, training goes on without it: {reason}")

    def _settle(self) -> None:
        self.model.eval()

    # ------------------------------------------------------------ saving and resuming

    @contextmanager
    def _with_best_weights(self) -> Iterator[None]:
        best = None if self.run is None else self.run.path / "best.pt"
        if best is None or not best.exists():
            yield
            return
        last = {name: tensor.clone() for name, tensor in self.model.weights().items()}
        self.model.load_weights(load(best).weights)
        try:
            yield
        finally:
            self.model.load_weights(last)

    def checkpoint(self, with_state: bool = True) -> Checkpoint:
        """The model as it is now; `with_state` adds all that `load_state` needs to go on as if never stopped."""
        return Checkpoint(**self._description(), weights=self.model.weights(), training=self._state() if with_state else None)

    def _state_of_engine(self) -> dict[str, Any]:
        self._catch_up()
        return {"optimizer": optimizer_state(self.optimizer, self.model), "rng": rng_state(self.device)}

    def _circumstances_of_engine(self) -> dict[str, Any]:
        return {"torch": str(torch.__version__), "device": self.device.type, "threads": torch.get_num_threads()}

    def _load(self, weights: dict[str, Tensor], saved: Mapping[str, Any]) -> None:
        self.model.load_weights(weights)
        load_optimizer_state(self.optimizer, self.model, saved["optimizer"])

    @classmethod
    def resume(cls, run: Run, train_ids: Ids, val_ids: Ids, settings: TrainConfig | None = None, **more: Any) -> Self:
        """A trainer that continues `run` from its last.pt, with its own settings unless others are given.

        `more` are the other arguments of Trainer (listener, objective, lineage, floor, fresh).
        """
        checkpoint = load(run.path / "last.pt")
        model, tokenizer = runs.build(checkpoint)
        saved = (checkpoint.training or {}).get("settings", {})
        trainer = cls(model, tokenizer, train_ids, val_ids, settings or TrainConfig(**saved), run=run, **more)
        trainer.load_state(checkpoint)
        return trainer


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
