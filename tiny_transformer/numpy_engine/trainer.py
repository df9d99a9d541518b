"""The training loop's NumPy half: gradients by hand, the optimizer's step, dropout masks, threads. Mirrors `training/trainer.py`.

The algorithm itself is `training/loop.py`, shared by both engines: same batches, same schedule, same run folder.
Leaves out: GPUs, bfloat16, compiling. Read before: `training/loop.py`, `model.py`, `optimizers.py`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from tiny_transformer import tokenization
from tiny_transformer.config import TrainConfig, check
from tiny_transformer.numpy_engine.checkpoint import Checkpoint, load
from tiny_transformer.numpy_engine.linear import Array, Gradients
from tiny_transformer.numpy_engine.model import TinyTransformerLM
from tiny_transformer.numpy_engine.muon import Muon
from tiny_transformer.numpy_engine.objectives import cross_entropy
from tiny_transformer.numpy_engine.optimizers import AdamW, gradient_norm, scale_gradients
from tiny_transformer.numpy_engine.threads import blas_threads, using_threads
from tiny_transformer.tokenization.base import Tokenizer
from tiny_transformer.training.dataset import Batch
from tiny_transformer.training.frozen_rows import TABLE, FrozenRows
from tiny_transformer.training.listener import Listener
from tiny_transformer.training.loop import Ids, Objective, Question, Record, TrainingLoop
from tiny_transformer.training.objectives import causal


class Trainer(TrainingLoop):
    """Teaches a NumPy model a text, and can be stopped and resumed at any step without changing a bit of the outcome."""

    def __init__(
        self,
        model: TinyTransformerLM,
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
        """Prepare, without learning yet: nothing is written. The other arguments and errors are those of `TrainingLoop`.

        The arithmetic is done in the type of the model's weights. Raises ConfigError for settings that only PyTorch can follow.
        """
        check_settings(settings)
        super().__init__(
            model.config, tokenizer, train_ids, val_ids, settings,
            run=run, listener=listener, objective=objective, lineage=lineage, floor=floor, fresh=fresh,
        )  # fmt: skip
        self.model: TinyTransformerLM = model
        self.optimizer = make_optimizer(model.weights(), settings)
        self.gradients: Gradients = {}
        self._frozen: FrozenRows | None = None

    # ------------------------------------------------------------ a step

    def _loss_and_norm(self, micro_batches: Sequence[Question], asked: int) -> tuple[float, float]:
        loss, self.gradients = 0.0, {}
        for number, micro in enumerate(micro_batches):
            part, gradients = self.model.loss_and_gradients(
                micro.batch, dropout=self._dropout(micro.batch, number), reduction="sum", expected=micro.expected
            )
            loss += part / asked
            for name, gradient in gradients.items():
                gradient /= asked
                if name in self.gradients:
                    self.gradients[name] += gradient
                else:
                    self.gradients[name] = gradient
        if self._frozen is not None:
            self._frozen.clear(self.gradients[TABLE])
        return loss, gradient_norm(self.gradients.values())

    def _dropout(self, batch: Batch, number: int) -> Callable[[str], Array] | None:
        """Masks of what stays, drawn one after the other from a generator of this step and micro-batch: resuming needs no memory."""
        rate = self.config.dropout
        if rate == 0:
            return None
        generator = np.random.default_rng([self.settings.seed, self.progress.step, number])
        shape = (*batch.inputs.shape, self.config.d_model)
        return lambda place: generator.random(shape, dtype=np.float32) >= rate

    def _take_step(self, norm: float, lr: float) -> None:
        scale_gradients(self.gradients.values(), norm, self.settings.clip_norm)
        self.optimizer.step(self.gradients, lr)
        if self._frozen is not None:
            self._frozen.restore(self.model.weights()[TABLE])

    def _freeze(self, rows: NDArray[np.int64]) -> None:
        self._frozen = FrozenRows(rows, self.model.weights()[TABLE]) if len(rows) else None

    def _drop_gradients(self) -> None:
        self.gradients = {}

    def _loss_sums(self, batches: Iterator[Batch]) -> list[float]:
        return [cross_entropy(self.model.forward(batch.inputs), batch.targets, "sum")[0] for batch in batches]

    # ------------------------------------------------------------ around the steps

    @contextmanager
    def _computing(self) -> Iterator[None]:
        # A gradient that overflows is found by the loop's own check, in one line; NumPy need not say so too.
        with using_threads(self.settings.threads), np.errstate(over="ignore", invalid="ignore"):
            yield

    @contextmanager
    def _with_best_weights(self) -> Iterator[None]:
        best = None if self.run is None else self.run.path / "best.safetensors"
        if best is None or not best.exists():
            yield
            return
        weights = self.model.weights()
        last = {name: weight.copy() for name, weight in weights.items()}
        _write_into(weights, load(best).weights)
        try:
            yield
        finally:
            _write_into(weights, last)

    # ------------------------------------------------------------ saving and resuming

    def checkpoint(self, with_state: bool = True) -> Checkpoint:
        """The model as it is now; `with_state` adds all that `load_state` needs to go on as if never stopped."""
        return Checkpoint(**self._description(), weights=self.model.weights(), training=self._state() if with_state else None)

    def _state_of_engine(self) -> dict[str, Any]:
        return {"optimizer": self.optimizer.state}

    def _circumstances_of_engine(self) -> dict[str, Any]:
        return {"engine": "numpy", "threads": blas_threads()}

    def _load(self, weights: Mapping[str, Array], saved: Mapping[str, Any]) -> None:
        self.model.load_weights(weights)
        self.optimizer.weights = self.model.weights()
        self.optimizer.load_state(saved["optimizer"])

    @classmethod
    def resume(cls, run: Record, train_ids: Ids, val_ids: Ids, settings: TrainConfig | None = None, **more: Any) -> Self:
        """A trainer that continues `run` from its last.safetensors, with its own settings unless others are given.

        `more` are the other arguments of Trainer (listener, objective, lineage, floor, fresh).
        """
        checkpoint = load(run.path / "last.safetensors")
        tokenizer = None if checkpoint.tokenizer is None else tokenization.from_dict(checkpoint.tokenizer)
        saved = (checkpoint.training or {}).get("settings", {})
        model = TinyTransformerLM(checkpoint.config, checkpoint.weights)
        trainer = cls(model, tokenizer, train_ids, val_ids, settings or TrainConfig(**saved), run=run, **more)
        trainer.load_state(checkpoint)
        return trainer


def make_optimizer(weights: Mapping[str, Array], settings: TrainConfig) -> AdamW:
    """AdamW for all weights, or Muon for the matrices inside the blocks and AdamW for the rest, as the settings say."""
    betas, eps, decay = (settings.beta1, settings.beta2), settings.adam_eps, settings.weight_decay
    if settings.optimizer == "muon":
        ratio = settings.muon_learning_rate / settings.learning_rate
        return Muon(weights, momentum=settings.muon_momentum, lr_ratio=ratio, betas=betas, eps=eps, weight_decay=decay)
    return AdamW(weights, betas=betas, eps=eps, weight_decay=decay)


def check_settings(settings: TrainConfig) -> None:
    """Raise ConfigError for what only the PyTorch engine can do."""
    remedy = "Leave it out, or use the PyTorch engine"
    check(settings.device in ("auto", "cpu"), f"device={settings.device!r}", "the NumPy engine computes on the CPU", remedy)
    check(settings.precision in ("auto", "float32"), f"precision={settings.precision!r}", "the NumPy engine computes in float32", remedy)
    check(not settings.checkpoint_layers, "checkpoint_layers=True", "the NumPy engine keeps every block's inside", remedy)
    check(not settings.compile, "compile=True", "the NumPy engine has nothing to compile", remedy)


def _write_into(weights: Mapping[str, Array], values: Mapping[str, Array]) -> None:
    for name, weight in weights.items():
        weight[...] = values[name]


if __name__ == "__main__":
    from tiny_transformer.config import ModelConfig
    from tiny_transformer.numpy_engine.model import init_weights

    class Print(Listener):
        """Shows the evaluations."""

        def on_eval(self, step: int, train_loss: float, val_loss: float, is_best: bool) -> None:  # noqa: D102
            print(f"step {step:3}: training loss {train_loss:.3f}, validation loss {val_loss:.3f}{' (best)' if is_best else ''}")

    ids = np.frombuffer(b"a rose is a rose is a rose. " * 200, dtype=np.uint8) % 32
    config = ModelConfig(vocab_size=32, max_seq_len=16, d_model=32, n_layers=1, n_heads=2)
    settings = TrainConfig(max_steps=60, batch_size=8, learning_rate=1e-2, warmup_steps=10, eval_every=20, eval_tokens=512)
    model = TinyTransformerLM(config, init_weights(config, seed=0))
    result = Trainer(model, None, ids[:5000], ids[5000:], settings, listener=Print()).fit()
    print(f"{result.stopped} after {result.steps} steps, loss on all validation text {result.final_val_loss:.3f}")
