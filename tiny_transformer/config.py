"""Everything that can be set, on one screen: what a model is, how it learns, how it writes.

Settings are frozen: a changed one is a new one (`dataclasses.replace`). They are checked when made, so a
function that receives one never checks again. Read before: nothing.
"""

import math
from dataclasses import asdict, dataclass, fields
from numbers import Integral, Real
from types import UnionType
from typing import Any, Literal, get_args

Activation = Literal["relu", "gelu", "gelu_tanh", "relu2", "swiglu"]
Norm = Literal["layer", "rms"]
NormPosition = Literal["pre", "post"]
Position = Literal["learned", "sinusoidal", "rotary", "alibi", "none"]
Bias = Literal["all", "qkv", "none"]
Schedule = Literal["cosine", "wsd", "constant"]
Precision = Literal["auto", "float32", "bfloat16"]
WindowOrder = Literal["random", "shuffled"]
WordStyle = Literal["natural", "wikitext"]
OptimizerName = Literal["adamw", "muon"]
TokenizerKind = Literal["char", "byte", "word", "bpe", "wordpiece", "unigram"]


class ConfigError(ValueError):
    """A setting that a person can mend: the message says what came, what must be, and what to do."""


def check(condition: bool, got: str, must: str, remedy: str) -> None:
    """Raise ConfigError("got: must. remedy") unless `condition` holds."""
    if not condition:
        raise ConfigError(f"{got}: {must}. {remedy}")


def check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    """Raise ConfigError listing the known names unless `value` is one of them."""
    check(value in choices, f"{name}={value!r}", f"it must be one of {', '.join(choices)}", "Pick one of these")


_KINDS: dict[Any, tuple[type, str]] = {
    bool: (bool, "True or False"),
    int: (Integral, "a whole number"),
    float: (Real, "a number"),
    str: (str, "text"),
}


def check_kinds(settings: Any) -> None:
    """Raise ConfigError unless each field that is declared bool, int, float or str holds one; NumPy's numbers become Python's."""
    for field in fields(settings):
        value, declared = getattr(settings, field.name), get_args(field.type) if isinstance(field.type, UnionType) else (field.type,)
        if declared[0] not in _KINDS or (value is None and len(declared) > 1):
            continue
        kind, words = _KINDS[declared[0]]
        right = isinstance(value, kind) and isinstance(value, bool) == (kind is bool)
        remedy = f"Try {field.name}={field.default}" if field.default is not None else "Or leave it out"
        check(right, f"{field.name}={value!r}", f"it must be {words}", remedy)
        if not isinstance(value, bool | int | float | str):
            object.__setattr__(settings, field.name, declared[0](value))


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The only description of an architecture, for both engines. The defaults are GPT-2's parts, small."""

    vocab_size: int = 65
    """How many different tokens there are; taken from the tokenizer when training."""
    max_seq_len: int = 128
    """Context: the most tokens the model can look at."""
    d_model: int = 128
    """Width of the residual stream."""
    n_layers: int = 4
    """How many blocks are stacked."""
    n_heads: int = 4
    """Attention heads per block."""
    n_kv_heads: int | None = None
    """Heads for keys and values (grouped-query attention); default: n_heads."""
    d_head: int | None = None
    """Width of one head; default: d_model / n_heads."""
    d_ff: int | None = None
    """Inner width of the feed-forward network; default: 4 d_model, or 8/3 d_model rounded up to 32s for swiglu."""
    dropout: float = 0.0
    """Share of activations zeroed while training: after the embeddings and on each branch (Vaswani et al. 2017, 5.4)."""
    activation: Activation = "gelu"
    """Non-linearity of the feed-forward network."""
    norm: Norm = "layer"
    """Layer norm (mean and variance) or RMS norm (size only)."""
    norm_position: NormPosition = "pre"
    """Norm before each branch (GPT-2) or after each sum (the 2017 paper, BERT)."""
    norm_eps: float = 1e-5
    """Added inside the norm's square root."""
    qk_norm: bool = False
    """RMS-normalise queries and keys per head before their product."""
    position: Position = "learned"
    """How the model knows where a token stands."""
    rope_theta: float = 10_000.0
    """Base of the rotary wavelengths."""
    rope_scaling: dict[str, Any] | None = None
    """Stretch the rotary wavelengths: {"type": "linear", "factor": f} or Llama 3's {"type": "llama3", ...}."""
    window: int | None = None
    """Look at the last `window` tokens only, the present one included; default: at all of them."""
    causal: bool = True
    """Hide the future (GPT) or not (BERT)."""
    bias: Bias = "all"
    """Which layers have a bias: all of them and the norms (GPT-2), query-key-value only (Qwen 2), none (Llama)."""
    tie_weights: bool = True
    """Use the token embedding as the output layer too."""
    logit_softcap: float | None = None
    """Squash logits smoothly into (-c, c): c tanh(logits / c)."""
    n_token_types: int = 0
    """BERT's segment embeddings and the norm after the embeddings, and where nothing is causal its output head; 0 means none of them."""
    ngram_rows: tuple[int, ...] = ()
    """Rows of the tables for pairs, triples, … of tokens, added to the token embedding; default: no table. vocab_size² rows hold
    every pair; fewer are shared by hash."""

    def __post_init__(self) -> None:
        check_kinds(self)
        object.__setattr__(self, "ngram_rows", tuple(self.ngram_rows))  # JSON has lists only
        self._check_sizes()
        self._check_names()
        self._check_heads()
        self._check_positions()

    def _check_sizes(self) -> None:
        for name in ("vocab_size", "max_seq_len", "d_model", "n_layers", "n_heads", "n_kv_heads", "d_head", "d_ff", "window"):
            value = getattr(self, name)
            check(value is None or value >= 1, f"{name}={value}", "it must be a whole number of at least 1", f"Try {name}=1 or more")
        check(0 <= self.dropout < 1, f"dropout={self.dropout}", "it must be at least 0 and below 1", "Try dropout=0.1")
        check(self.norm_eps > 0, f"norm_eps={self.norm_eps}", "it must be positive", "Try norm_eps=1e-5")
        cap = self.logit_softcap
        check(cap is None or cap > 0, f"logit_softcap={cap}", "it must be positive", "Try logit_softcap=15, or leave it out")
        check(self.n_token_types >= 0, f"n_token_types={self.n_token_types}", "it must be 0 or more", "BERT has 2")
        sizes = all(type(rows) is int and rows >= 1 for rows in self.ngram_rows)
        check(sizes, f"ngram_rows={self.ngram_rows}", "they must be whole numbers of at least 1", f"Try ngram_rows=({self.vocab_size**2},)")

    def _check_names(self) -> None:
        check_choice("activation", self.activation, get_args(Activation))
        check_choice("norm", self.norm, get_args(Norm))
        check_choice("norm_position", self.norm_position, get_args(NormPosition))
        check_choice("position", self.position, get_args(Position))
        check_choice("bias", self.bias, get_args(Bias))

    def _check_heads(self) -> None:
        d, h = self.d_model, self.n_heads
        if self.d_head is None:
            fits = [n for n in range(1, d + 1) if d % n == 0]
            nearest = min(fits, key=lambda n: (abs(n - h), -n))
            check(d % h == 0, f"d_model={d} is not divisible by n_heads={h}", "every head needs the same width", f"Try n_heads={nearest}")
        kv = self.kv_heads
        check(
            h % kv == 0,
            f"n_heads={h} is not divisible by n_kv_heads={kv}",
            "every key-value head must serve the same number of query heads",
            f"Try n_kv_heads={max(n for n in range(1, min(kv, h) + 1) if h % n == 0)}",
        )

    def _check_positions(self) -> None:
        if self.position == "rotary":
            check(
                self.head_width % 2 == 0,
                f"position=rotary with d_head={self.head_width}",
                "rotary positions turn pairs of numbers, so d_head must be even",
                f"Try d_head={self.head_width + 1}",
            )
            check(self.rope_theta > 0, f"rope_theta={self.rope_theta}", "it must be positive", "Try rope_theta=10000")
        if self.rope_scaling is not None:
            _check_rope_scaling(self.rope_scaling)

    @property
    def kv_heads(self) -> int:
        """Number of key-value heads, the default filled in."""
        return self.n_heads if self.n_kv_heads is None else self.n_kv_heads

    @property
    def head_width(self) -> int:
        """Width of one head, the default filled in."""
        return self.d_model // self.n_heads if self.d_head is None else self.d_head

    @property
    def ff_width(self) -> int:
        """Inner width of the feed-forward network, the default filled in.

        SwiGLU has three matrices instead of two, so 2/3 of the width costs the same (Shazeer 2020, section 2).
        """
        if self.d_ff is not None:
            return self.d_ff
        return -(-8 * self.d_model // 96) * 32 if self.activation == "swiglu" else 4 * self.d_model

    @property
    def output_head(self) -> bool:
        """BERT's way to logits: a dense layer, the activation and a norm before the output matrix, and a bias after it.

        Devlin et al. 2019 (their code; the paper is silent). No setting of its own: BERT's kind is known by its token types and
        by not being causal.
        """
        return self.n_token_types > 0 and not self.causal

    @property
    def n_parameters(self) -> int:
        """How many numbers the model learns; the tied output counts once. A test compares it with the built model."""
        d, linear_bias, qkv_bias = self.d_model, int(self.bias == "all"), int(self.bias != "none")
        q, kv, ff = self.n_heads * self.head_width, self.kv_heads * self.head_width, self.ff_width
        norm = d * (1 + int(self.norm == "layer" and self.bias == "all"))
        attention = d * (q + 2 * kv) + qkv_bias * (q + 2 * kv) + q * d + linear_bias * d
        attention += 2 * self.head_width * int(self.qk_norm)
        matrices = 3 if self.activation == "swiglu" else 2
        feed_forward = matrices * d * ff + linear_bias * ((matrices - 1) * ff + d)
        embeddings = d * (self.vocab_size + self.n_token_types + self.max_seq_len * int(self.position == "learned") + sum(self.ngram_rows))
        ends = norm * (int(self.norm_position == "pre") + int(self.n_token_types > 0))
        unembed = 0 if self.tie_weights else d * self.vocab_size
        unembed += int(self.output_head) * (d * d + linear_bias * (d + self.vocab_size) + norm)
        return embeddings + self.n_layers * (attention + feed_forward + 2 * norm) + ends + unembed

    def to_dict(self) -> dict[str, Any]:
        """As JSON-able values; `ModelConfig.from_dict` is its inverse."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "ModelConfig":
        """From `to_dict`'s values. Raises ConfigError on a field that does not exist."""
        return cls(**known_fields(cls, values))


def _check_rope_scaling(scaling: dict[str, Any]) -> None:
    check(isinstance(scaling, dict), f"rope_scaling={scaling!r}", "it must be a dict", 'Try {"type": "linear", "factor": 2.0}')
    needed = {"linear": {"factor"}, "llama3": {"factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"}}
    kind = scaling.get("type")
    check_choice("rope_scaling type", kind, tuple(needed))
    got, must = set(scaling) - {"type"}, needed[str(kind)]
    check(got == must, f"rope_scaling of type {kind} has {sorted(got)}", f"it must have {sorted(must)}", "Mend the keys")
    for key in sorted(got):
        positive = isinstance(scaling[key], Real) and 0 < scaling[key] < math.inf
        check(positive, f"rope_scaling {key}={scaling[key]!r}", "it must be a positive number", "Mend it")


def known_fields(cls: type, values: dict[str, Any]) -> dict[str, Any]:
    """`values`, after a check that every key is a field of the dataclass `cls`; else ConfigError lists the known ones."""
    known = [field.name for field in fields(cls)]
    unknown = sorted(set(values) - set(known))
    check(
        not unknown,
        f"{cls.__name__} has no setting {', '.join(map(repr, unknown))}",
        f"the known ones are {', '.join(known)}",
        "Mend the spelling",
    )
    return values


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How a model learns. The defaults suit a small model on a laptop."""

    max_steps: int = 2000
    """Optimizer steps in all. With minutes, the clock decides instead."""
    minutes: float | None = None
    """Train for this long, from the start of the command to the last step; the learning rate follows the clock (docs/minutes.md)."""
    batch_size: int = 32
    """Sequences per step, over all micro-batches."""
    accumulate: int = 1
    """Split each batch into this many micro-batches: the same step in less memory."""
    short_context: int | None = None
    """Begin with shorter sequences, of this many tokens, and as many more of them: the same step in less time; default: never."""
    short_share: float = 0.8
    """The share of the training that short_context lasts."""
    windows: WindowOrder = "random"
    """random: each window begins anywhere; shuffled: all windows of the text, in another order each time, before any comes again."""
    counted_share: float = 0.0
    """The share of each target that is not the token that came but what counting the rest of the training text expects there. A
    step's loss is then that of these targets; a measured loss is always that of the token that came."""
    counted_order: int = 7
    """counted_share: contexts of up to this many tokens are counted."""
    learning_rate: float = 1e-3
    """The highest learning rate, reached after the warm-up."""
    min_lr_ratio: float = 0.1
    """The last learning rate as a share of the highest."""
    schedule: Schedule = "cosine"
    """cosine: warm-up, then half a cosine; wsd: warm-up, stable, linear decay; constant: warm-up only."""
    warmup_steps: int = 100
    """Steps over which the learning rate rises from 0."""
    decay_share: float = 0.2
    """The share of all steps that `wsd` decays over."""
    optimizer: OptimizerName = "adamw"
    """adamw for everything; muon: Muon for the matrices inside the blocks, AdamW for the rest."""
    muon_learning_rate: float = 0.02
    """Muon: its highest learning rate; it rises and falls with learning_rate."""
    muon_momentum: float = 0.95
    """Muon: memory of the gradient's mean."""
    weight_decay: float = 0.1
    """Pull towards zero of every matrix; vectors (biases, norms) are left alone."""
    beta1: float = 0.9
    """AdamW: memory of the gradient's mean."""
    beta2: float = 0.99
    """AdamW: memory of the gradient's square."""
    adam_eps: float = 1e-8
    """AdamW: added to the denominator."""
    clip_norm: float = 1.0
    """Scale gradients down to this norm where they exceed it; 0 switches it off."""
    eval_every: int = 250
    """Steps between evaluations."""
    eval_tokens: int = 65_536
    """Validation tokens used for each evaluation: always the same ones, from the start; the last one takes all."""
    patience: int | None = None
    """Stop after this many evaluations without a better validation loss; default: never."""
    save_every: int = 500
    """Steps between saves of last.pt; best.pt is saved whenever an evaluation is the best so far."""
    log_every: int = 10
    """Steps between lines of metrics.jsonl."""
    seed: int = 1337
    """Decides the first weights, the batches and the dropout."""
    precision: Precision = "auto"
    """Arithmetic of the forward pass; auto: bfloat16 on a GPU that has it, else float32."""
    device: str = "auto"
    """cpu, cuda, mps or auto."""
    threads: int = 0
    """CPU threads; 0 leaves it to PyTorch. Part of the state: sums differ in the last digit between counts."""
    checkpoint_layers: bool = False
    """Keep only each block's input and compute its inside again in the backward pass: less memory, a third more time."""
    compile: bool = False
    """Compile the model first: costs a minute or two, then steps are faster."""
    fused_optimizer: bool = True
    """Use PyTorch's fused AdamW (same numbers) instead of the readable one."""

    def __post_init__(self) -> None:
        check_kinds(self)
        for name, least in (
            ("max_steps", 0),
            ("batch_size", 1),
            ("accumulate", 1),
            ("warmup_steps", 0),
            ("eval_every", 1),
            ("eval_tokens", 1),
            ("save_every", 1),
            ("log_every", 1),
            ("seed", 0),
            ("threads", 0),
            ("counted_order", 0),
        ):
            value = getattr(self, name)
            check(value >= least, f"{name}={value}", f"it must be a whole number of at least {least}", f"Try {name}={max(least, 1)}")
        in_time = self.minutes is None or 0 < self.minutes < math.inf
        check(in_time, f"minutes={self.minutes}", "it must be positive", "Try minutes=3, or leave it out")
        check(self.patience is None or self.patience >= 1, f"patience={self.patience}", "it must be at least 1", "Try patience=5")
        for name in ("learning_rate", "muon_learning_rate", "adam_eps"):
            check(0 < getattr(self, name) < math.inf, f"{name}={getattr(self, name)}", "it must be positive", f"Try {name}=0.001")
        for name in ("weight_decay", "clip_norm"):
            check(getattr(self, name) >= 0, f"{name}={getattr(self, name)}", "it must not be negative", f"Try {name}=0")
        short = self.short_context
        check(short is None or short >= 1, f"short_context={short}", "it must be at least 1", "Try 64, or leave it out")
        for name in ("min_lr_ratio", "decay_share", "short_share", "counted_share"):
            check(0 <= getattr(self, name) <= 1, f"{name}={getattr(self, name)}", "it must be between 0 and 1", "Try 0.1")
        for name in ("beta1", "beta2", "muon_momentum"):
            check(0 <= getattr(self, name) < 1, f"{name}={getattr(self, name)}", "it must be at least 0 and below 1", "Try 0.9")
        check(
            self.accumulate <= self.batch_size,
            f"accumulate={self.accumulate} is larger than batch_size={self.batch_size}",
            "every micro-batch needs a sequence",
            f"Try accumulate={self.batch_size}",
        )
        check_choice("schedule", self.schedule, get_args(Schedule))
        check_choice("precision", self.precision, get_args(Precision))
        check_choice("windows", self.windows, get_args(WindowOrder))
        check_choice("optimizer", self.optimizer, get_args(OptimizerName))


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """What a model reads."""

    corpus: str | None = None
    """A built-in corpus by name (`tiny data list`)."""
    data: str | None = None
    """Your own text: a UTF-8 file, - for standard input, or a folder of token files (`tiny data tokenize`)."""
    size: int | None = None
    """Take this many characters only, from the start."""
    tokenizer: TokenizerKind = "char"
    """How text becomes tokens: characters, bytes, words, or pieces learned from the training text."""
    vocab_size: int | None = None
    """How many tokens bpe, wordpiece and unigram learn (default 2048), or word keeps at most (default: all)."""
    word_style: WordStyle = "natural"
    """What a word is, with tokenizer=word: natural cuts the text itself; wikitext takes what lies between spaces, lines end in <eos>."""
    tokenizer_file: str | None = None
    """Use the tokenizer in this file (`tiny tokenizer train`, tokenizer.json, …) instead of learning one."""
    val_share: float = 0.1
    """The last part of the text, held back to measure on; not used with val_data."""
    val_data: str | None = None
    """Measure on this text instead, a file or a built-in corpus: all of corpus or data is learned from then."""
    embeddings: str | None = None
    """Begin with the word vectors in this file (GloVe or word2vec text), where the vocabulary's words have one; needs tokenizer=word."""
    freeze_embeddings: bool = False
    """Keep those vectors as they are; words that the file lacks and special tokens learn theirs."""

    def __post_init__(self) -> None:
        check_kinds(self)
        both = self.corpus is not None and self.data is not None
        check(not both, f"corpus={self.corpus!r} and data={self.data!r}", "only one text can be read", "Leave one out")
        check(self.size is None or self.size >= 1, f"size={self.size}", "it must be at least 1", "Try size=400000")
        check_choice("tokenizer", self.tokenizer, get_args(TokenizerKind))
        fixed = self.tokenizer in ("char", "byte") and self.tokenizer_file is None
        why = "the text decides how many characters there are" if self.tokenizer == "char" else "there are 256 bytes"
        named = f"vocab_size={self.vocab_size} with tokenizer={self.tokenizer}"
        check(not fixed or self.vocab_size is None, named, why, "Leave it out, or try tokenizer=bpe")
        check(
            self.tokenizer_file is None or self.vocab_size is None, f"vocab_size={self.vocab_size} with tokenizer_file",
            "the file has its own vocabulary", "Leave vocab_size out",
        )  # fmt: skip
        check(self.vocab_size is None or self.vocab_size >= 1, f"vocab_size={self.vocab_size}", "it must be at least 1", "Try 2048")
        check_choice("word_style", self.word_style, get_args(WordStyle))
        words = self.tokenizer == "word" and self.tokenizer_file is None
        check(
            words or self.word_style == "natural", f"word_style={self.word_style} without tokenizer=word",
            "it says how a text is cut into words", "Try tokenizer=word, or leave it out",
        )  # fmt: skip
        held = self.val_data is None or self.val_data != "-"
        check(held, "val_data='-'", "the text to measure on must be there again when a run goes on", "Save it to a file")
        frozen = not self.freeze_embeddings or self.embeddings is not None
        check(frozen, "freeze_embeddings without embeddings", "there must be vectors to keep", "Name a file: embeddings=FILE")
        check(0 < self.val_share < 1, f"val_share={self.val_share}", "it must be between 0 and 1", "Try val_share=0.1")


@dataclass(frozen=True, kw_only=True)
class SampleConfig:
    """How a model writes. The defaults are the preset `balanced`."""

    temperature: float = 0.8
    """0 always takes the likeliest token (greedy); 1 samples as learned; above 1 is bolder."""
    top_k: int | None = 40
    """Keep only the k likeliest tokens."""
    top_p: float | None = None
    """Keep the smallest set of likeliest tokens whose probability reaches p (nucleus)."""
    min_p: float | None = None
    """Keep tokens at least this share as likely as the likeliest one."""
    repetition_penalty: float = 1.0
    """Above 1: make tokens that already occurred less likely."""
    max_tokens: int = 200
    """The most tokens to write."""
    seed: int | None = None
    """The same seed gives the same text; default: a fresh one each time."""
    stop: tuple[str, ...] = ()
    """Stop when one of these strings appears; it is not part of the text."""
    beams: int = 1
    """Above 1: beam search with this many beams (no sampling)."""
    length_penalty: float = 1.0
    """Beam search: divide a text's log-probability by its length to this power."""

    def __post_init__(self) -> None:
        check_kinds(self)
        self._check_stop()
        check(
            0 <= self.temperature < math.inf,
            f"temperature={self.temperature}",
            "it must be 0 (greedy) or a positive number",
            "Try temperature=0.8",
        )
        check(self.top_k is None or self.top_k >= 1, f"top_k={self.top_k}", "it must be at least 1", "Try top_k=40, or leave it out")
        for name in ("top_p", "min_p"):
            value = getattr(self, name)
            check(value is None or 0 < value <= 1, f"{name}={value}", "it must be above 0 and at most 1", f"Try {name}=0.9")
        penalty = self.repetition_penalty
        check(0 < penalty < math.inf, f"repetition_penalty={penalty}", "it must be positive", "Try 1.1; 1 means none")
        check(self.max_tokens >= 0, f"max_tokens={self.max_tokens}", "it must be 0 or more", "Try max_tokens=200")
        check(self.beams >= 1, f"beams={self.beams}", "it must be at least 1", "Try beams=4")
        check(self.seed is None or self.seed >= 0, f"seed={self.seed}", "it must be 0 or more", "Try seed=1")

    def _check_stop(self) -> None:
        """One string may be said for a tuple of one."""
        given: Any = self.stop
        stop = (given,) if isinstance(given, str) else given
        strings = isinstance(stop, tuple | list) and all(isinstance(text, str) for text in stop)
        check(strings, f"stop={stop!r}", "it must be strings", 'Try stop=("\\n\\n",)')
        check(all(stop), "an empty stop string", "it would stop before the first token", "Leave it out")
        object.__setattr__(self, "stop", tuple(stop))


SAMPLING_PRESETS: dict[str, SampleConfig] = {
    "focused": SampleConfig(temperature=0.3, top_k=5),
    "balanced": SampleConfig(temperature=0.8, top_k=40),
    "creative": SampleConfig(temperature=1.2, top_k=200),
}


def _gpt2(n_layers: int, n_heads: int, d_model: int) -> ModelConfig:
    return ModelConfig(
        vocab_size=50257, max_seq_len=1024, d_model=d_model, n_layers=n_layers, n_heads=n_heads, activation="gelu_tanh", dropout=0.1
    )


def _llama(
    vocab_size: int, max_seq_len: int, d_model: int, n_layers: int, n_heads: int, n_kv_heads: int, d_ff: int, **more: Any
) -> ModelConfig:
    return ModelConfig(
        vocab_size=vocab_size,
        max_seq_len=max_seq_len,
        d_model=d_model,
        n_layers=n_layers,
        n_heads=n_heads,
        n_kv_heads=n_kv_heads,
        d_ff=d_ff,
        activation="swiglu",
        norm="rms",
        position="rotary",
        bias="none",
        **{"tie_weights": False} | more,
    )


_LLAMA3_ROPE = {"type": "llama3", "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}

PRESETS: dict[str, ModelConfig] = {
    # ours: a modern small block (rotary, RMS norm, squared ReLU, QK-norm) in sizes for small machines
    "tiny": ModelConfig(
        max_seq_len=64, d_model=64, n_layers=2, n_heads=2, activation="relu2", norm="rms", qk_norm=True, position="rotary", bias="none"
    ),
    "cpu": ModelConfig(
        max_seq_len=128, d_model=128, n_layers=4, n_heads=4, activation="relu2", norm="rms", qk_norm=True, position="rotary", bias="none"
    ),
    # nanoGPT's "baby GPT", the lab's model: 10.65 M parameters without positions
    "baby-gpt": ModelConfig(max_seq_len=256, d_model=384, n_layers=6, n_heads=6, dropout=0.2, bias="none"),
    # the decoder half of the 2017 paper's base model
    "vaswani": ModelConfig(
        vocab_size=37000,
        max_seq_len=512,
        d_model=512,
        n_layers=6,
        n_heads=8,
        dropout=0.1,
        activation="relu",
        norm_position="post",
        position="sinusoidal",
    ),
    # 300 wide to match GloVe vectors; only an untied output with d_ff = 2400 has the 27 M that are claimed for it
    "wikitext2-300d": ModelConfig(
        vocab_size=33278,
        max_seq_len=128,
        d_model=300,
        n_layers=4,
        n_heads=6,
        d_ff=2400,
        dropout=0.2,
        position="sinusoidal",
        tie_weights=False,
    ),
    "gpt2": _gpt2(12, 12, 768),
    "gpt2-medium": _gpt2(24, 16, 1024),
    "gpt2-large": _gpt2(36, 20, 1280),
    "gpt2-xl": _gpt2(48, 25, 1600),
    "llama2-7b": _llama(32000, 4096, 4096, 32, 32, 32, 11008),
    "llama3-8b": _llama(128256, 8192, 4096, 32, 32, 8, 14336, rope_theta=500_000.0),
    "llama3.2-1b": _llama(
        128256, 131072, 2048, 16, 32, 8, 8192, rope_theta=500_000.0, rope_scaling={**_LLAMA3_ROPE, "factor": 32.0}, tie_weights=True
    ),
    "bert-base": ModelConfig(
        vocab_size=30522,
        max_seq_len=512,
        d_model=768,
        n_layers=12,
        n_heads=12,
        dropout=0.1,
        norm_position="post",
        norm_eps=1e-12,
        causal=False,
        n_token_types=2,
    ),
}


def preset(name: str) -> ModelConfig:
    """The named architecture. Raises ConfigError listing the known names."""
    check_choice("preset", name, tuple(PRESETS))
    return PRESETS[name]


if __name__ == "__main__":
    print(f"{'preset':16} {'layers':>6} {'heads':>6} {'d_model':>8} {'context':>8} {'parameters':>15}")
    for name, config in PRESETS.items():
        print(f"{name:16} {config.n_layers:6} {config.n_heads:6} {config.d_model:8} {config.max_seq_len:8} {config.n_parameters:15,}")
    try:
        ModelConfig(d_model=384, n_heads=5)
    except ConfigError as error:
        print("caught:", error)
