"""The whole model: ids in, logits out.

Left out: losses, sampling, loading and saving; they are verbs, and live elsewhere.
Read before: `embeddings.py`, `transformer_block.py`.
"""

import math
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from functools import partial
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tiny_transformer import attention, block_by_hand, embeddings
from tiny_transformer.config import ModelConfig
from tiny_transformer.embeddings import Embeddings
from tiny_transformer.feedforward import ACTIVATIONS
from tiny_transformer.initialization import initial_weight
from tiny_transformer.kv_cache import KVCache
from tiny_transformer.linear import Linear
from tiny_transformer.normalization import make_norm
from tiny_transformer.transformer_block import TransformerBlock
from tiny_transformer.utils.reference import is_reference, reference_path


class Unembedding(nn.Module):
    """hidden (…, d_model) to logits (…, vocab): one matrix, its own or the token embedding's, and the soft-cap.

    BERT's kind (`config.output_head`) has more: logits = norm(activation(dense(hidden))) Wᵀ + bias.
    """

    def __init__(self, config: ModelConfig, token: Tensor) -> None:
        super().__init__()
        self.weight = token if config.tie_weights else nn.Parameter(torch.empty_like(token))  # tied: Press & Wolf 2017
        self.softcap = config.logit_softcap
        head, bias = config.output_head, config.bias == "all"
        self.bias = nn.Parameter(torch.zeros(config.vocab_size)) if head and bias else None
        self.dense = Linear(config.d_model, config.d_model, bias=bias) if head else None
        self.norm = make_norm(config) if head else None
        self.activation = ACTIVATIONS[config.activation]

    def forward(self, hidden: Tensor) -> Tensor:  # noqa: D102
        if self.dense is not None and self.norm is not None:
            hidden = self.norm(self.activation(self.dense(hidden)))  # (batch, seq, d_model)
        logits = F.linear(hidden, self.weight, self.bias)  # (batch, seq, vocab)
        if self.softcap is not None:
            logits = self.softcap * torch.tanh(logits / self.softcap)  # Gemma 2: linear near 0, never beyond the cap
        return logits


class TinyTransformerLM(nn.Module):
    """A transformer language model: logits = unembed(norm(block_n(… block_1(embeddings(ids)))))."""

    cosines: Tensor
    sines: Tensor
    slopes: Tensor
    checkpoint_layers = False
    """While training, keep each block's input only and compute its inside again in the backward pass (Chen et al. 2016)."""

    def __init__(self, config: ModelConfig, seed: int | None = None, *, weights: Mapping[str, Tensor] | None = None) -> None:
        """Make the model with `weights`, or with first weights; without a seed, one is drawn from torch's generator."""
        super().__init__()
        self.config = config
        self.embeddings = Embeddings(config)
        self.blocks = nn.ModuleList(TransformerBlock(config) for _ in range(config.n_layers))
        self.norm = make_norm(config) if config.norm_position == "pre" else nn.Identity()
        self.unembed = Unembedding(config, self.embeddings.token.weight)
        self._settle()
        if weights is not None:
            self.load_weights(weights)
            return
        init_weights(self, int(torch.randint(2**31, (), device="cpu").item()) if seed is None else seed)

    def forward(
        self, ids: Tensor, mask: Tensor | None = None, *, cache: KVCache | None = None, token_types: Tensor | None = None
    ) -> Tensor:
        """ids (batch, seq) to logits (batch, seq, vocab). The other arguments are `hidden`'s."""
        logits: Tensor = self.unembed(self.hidden(ids, mask, cache=cache, token_types=token_types))
        return logits

    def hidden(self, ids: Tensor, mask: Tensor | None = None, *, cache: KVCache | None = None, token_types: Tensor | None = None) -> Tensor:
        """The residual stream after the last norm: (batch, seq, d_model).

        `mask` is boolean, True = may look, (seq, seq) or (batch, seq, seq), and can only hide more than the config does.
        `cache` holds earlier positions: pass only the new ids, and the same cache again.
        Raises ValueError for ids of another shape or type, outside the vocabulary, or too many for learned positions.
        """
        self._check_ids(ids, 0 if cache is None else cache.length)
        ids = ids if ids.dtype in (torch.int64, torch.int32) else ids.long()
        seq = ids.size(1)
        positions = torch.arange(seq, device=ids.device) if cache is None else cache.positions(seq)
        if cache is not None:
            if ids.size(0) != cache.batch_size:
                raise ValueError(f"ids have {ids.size(0)} rows and the cache {cache.batch_size}: they must agree. Make a new cache")
            mask = attention.join_masks(cache.mask(seq), mask)
        bias = self._score_bias(seq, seq if cache is None else cache.length + seq)
        rotate = self._rotation(positions, seq if cache is None else cache.length + seq)
        before = None if cache is None or not self.config.ngram_rows else cache.remember(ids, len(self.config.ngram_rows))
        try:
            x = self.embeddings(ids, positions, token_types, before)
        except IndexError:
            raise ValueError(
                f"ids run from {ids.min().item()} to {ids.max().item()}: they must lie in 0 to {self.config.vocab_size - 1} "
                f"(vocab_size={self.config.vocab_size}). Was another tokenizer used?"
            ) from None
        in_c = mask is None and cache is None and block_by_hand.fits(self.blocks, x, self.config)
        again = self.checkpoint_layers and self.training and cache is None
        with_norm = in_c and block_by_hand.takes(self.norm)
        layers: list[Callable[..., Tensor]] = self._in_c(again, with_norm) if in_c else list(self.blocks)
        for index, layer in enumerate(layers):
            layer = self._again_in_backward(layer) if again else layer
            x = layer(x, mask, bias=bias, rotate=rotate, cache=None if cache is None else cache.layers[index])
        out: Tensor = x if with_norm else self.norm(x)
        return out

    def _in_c(self, one_by_one: bool, with_norm: bool) -> list[Callable[..., Tensor]]:
        """What stands in for the blocks, and for the norm behind them: one function for them all, or one for each."""
        blocks, last = list(self.blocks), self.norm if with_norm else None
        if not one_by_one:
            return [partial(block_by_hand.run, blocks, last=last)]
        norms = (*[None] * (len(blocks) - 1), last)
        return [partial(block_by_hand.run, [block], last=norm) for block, norm in zip(blocks, norms, strict=True)]

    def _again_in_backward(self, block: Callable[..., Tensor]) -> Callable[..., Tensor]:
        """`block`, keeping only what it is given. Dropout draws the same numbers the second time, so not a bit of any gradient differs."""
        if attention.is_recording() or not torch.is_grad_enabled():
            return block  # recorded weights would come twice
        mode = reference_path if is_reference() else nullcontext
        return partial(
            checkpoint, block, use_reentrant=False, preserve_rng_state=self.config.dropout > 0,
            context_fn=lambda: (nullcontext(), mode()),
        )  # fmt: skip

    def _check_ids(self, ids: Tensor, start: int) -> None:
        if not isinstance(ids, Tensor):
            raise ValueError(f"ids are a {type(ids).__name__}: they must be a tensor. Pass torch.as_tensor(ids)")
        if ids.is_floating_point() or ids.dtype == torch.bool:
            raise ValueError(f"ids have dtype {ids.dtype}: they must be whole numbers. Pass ids.long()")
        if ids.dim() != 2:
            raise ValueError(f"ids have shape {tuple(ids.shape)}: they must be (batch, seq). Add the batch dimension with ids[None]")
        end, limit = start + ids.size(1), self.config.max_seq_len
        if self.config.position in ("learned", "sinusoidal") and end > limit:
            raise ValueError(
                f"{end} tokens: the model has {self.config.position} positions for max_seq_len={limit}. Pass the last {limit} tokens"
            )

    def _score_bias(self, query_len: int, key_len: int) -> Tensor | None:
        return embeddings.alibi_bias(self.slopes, query_len, key_len) if self.config.position == "alibi" else None

    def _rotation(self, positions: Tensor, end: int) -> Callable[[Tensor], Tensor] | None:
        """What turns queries and keys; all positions are below `end`. The angles within the context are looked up."""
        if self.config.position != "rotary":
            return None
        theta, scaling = self.config.rope_theta, self.config.rope_scaling
        if is_reference():
            return lambda x: embeddings.apply_rotary(x, positions, theta, scaling)
        if end > len(self.cosines):
            frequencies = embeddings.rotary_frequencies(self.config.head_width, theta, scaling)
            cos, sin = embeddings.rotation(positions, frequencies, self.cosines.dtype)
        else:
            cos, sin = self.cosines[positions], self.sines[positions]  # (seq, d_head / 2), or (batch, seq, d_head / 2)
            if positions.dim() == 2:
                cos, sin = cos[:, None], sin[:, None]  # (batch, 1, seq, d_head / 2): the same for every head
        return partial(embeddings.rotate, cos=cos, sin=sin)

    def _settle(self) -> None:
        """What a move can break. Constants are made anew, in the type of the weights but at least float32 (bfloat16 has three
        digits), and with values, also on a device where memory was only just taken. A tied output is tied again.
        """
        config, dtype = self.config, embeddings.constants_dtype(self.embeddings.token.weight.dtype)
        self.embeddings.make_constants()
        if config.position == "rotary":
            frequencies = embeddings.rotary_frequencies(config.head_width, config.rope_theta, config.rope_scaling)
            cos, sin = embeddings.rotation(torch.arange(config.max_seq_len, device="cpu"), frequencies, dtype)
            self.register_buffer("cosines", cos.to(self.device), persistent=False)
            self.register_buffer("sines", sin.to(self.device), persistent=False)
        if config.position == "alibi":
            self.register_buffer("slopes", embeddings.alibi_slopes(config.n_heads, dtype).to(self.device), persistent=False)
        if config.tie_weights:
            self.unembed.weight = self.embeddings.token.weight

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Behind `.to(…)`, `.bfloat16()`, `.cuda()`, `.to_empty(…)`."""
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self._settle()
        return self

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """PyTorch's own; with `assign` the tensors themselves are taken."""
        result = super().load_state_dict(state_dict, strict, assign)
        self._settle()
        return result

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.embeddings.token.weight.device

    def weights(self) -> dict[str, Tensor]:
        """Every parameter once, by its public name; a tied output is not repeated."""
        return {name: parameter.detach() for name, parameter in self.named_parameters()}

    def load_weights(self, weights: Mapping[str, Tensor]) -> None:
        """Copy `weights` in, strictly. Raises ValueError with all missing, unexpected and misshapen names at once.

        A tied output may be there once more (`state_dict()` repeats it), if it says the same as the token embedding.
        """
        own = self.weights()
        token, output = weights.get("embeddings.token.weight"), weights.get("unembed.weight")
        if self.config.tie_weights and token is not None and output is not None and torch.equal(token, output):
            weights = {name: tensor for name, tensor in weights.items() if name != "unembed.weight"}
        check_weights(*({name: tuple(tensor.shape) for name, tensor in tensors.items()} for tensors in (own, weights)))
        with torch.no_grad():
            for name, tensor in own.items():
                tensor.copy_(weights[name])


def check_weights(must: Mapping[str, tuple[int, ...]], shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Raise ValueError where the shapes of weights are not what they must be: all missing, unexpected and misshapen names at once."""
    problems = [f"missing {name} {shape}" for name, shape in must.items() if name not in shapes]
    problems += [f"unexpected {name} {shape}" for name, shape in shapes.items() if name not in must]
    problems += [
        f"{name} has shape {shapes[name]}, must be {shape}" for name, shape in must.items() if name in shapes and shapes[name] != shape
    ]
    if problems:
        raise ValueError(f"the weights do not fit the config ({len(problems)} differences): " + "; ".join(problems))


def init_weights(model: TinyTransformerLM, seed: int) -> None:
    """Fill every weight by the table of `initialization.py`. The same seed gives the same numbers on every device."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if not parameter.is_meta:
                parameter.copy_(torch.from_numpy(initial_weight(name, tuple(parameter.shape), model.config, seed)))


if __name__ == "__main__":
    config = ModelConfig(d_model=64, n_layers=2)
    model = TinyTransformerLM(config, seed=0)
    ids = torch.randint(config.vocab_size, (2, 16))
    logits = model(ids)
    loss = F.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
    print("ids", tuple(ids.shape), "hidden", tuple(model.hidden(ids).shape), "logits", tuple(logits.shape))
    print(f"{config.n_parameters:,} parameters, first loss {loss.item():.3f}, ln(vocab_size) {math.log(config.vocab_size):.3f}")
    with attention.record_weights() as weights:
        model(ids)
    print("attention weights of", len(weights), "layers, each", tuple(weights[0].shape))
