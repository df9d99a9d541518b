"""Named complete experiments: which text, which model, how it learns, where it rests.

A recipe is settings only: it opens no file and imports no engine. `tiny train --recipe NAME` runs one, and
every flag beside it changes that one setting. Read before: config.py.
"""

from dataclasses import dataclass, replace

from tiny_transformer.config import PRESETS, DataConfig, ModelConfig, TrainConfig, check_choice

PROMPTS: dict[str, tuple[str, ...]] = {
    # openings that occur in each built-in text: the first one is used for the timelapse, all of them for a gallery
    "shakespeare": ("ROMEO:", "JULIET:", "First Citizen:\n", "KING RICHARD III:\n", "What "),
    "wikitext2": (" = ", " The "),
    "python": ("def ", "class ", "import "),
    "pydoc": ("Return ",),
    "pitches": ("FOUNDER:\n", "INVESTOR:\n", "NARRATOR:\n", "ENGINEER:\n"),
}


@dataclass(frozen=True, kw_only=True)
class Longer:
    """Sizes for a longer run."""

    minutes: float
    """From so many minutes on."""
    d_model: int
    n_layers: int
    n_heads: int
    batch_size: int
    counted_share: float = 0.0
    """The better a network becomes, the less counts can teach it."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One experiment from text to checkpoint. Frozen: a changed recipe is a new one."""

    name: str
    """Its name on the command line."""
    summary: str
    """One line: what it is for, and about how long it takes where."""
    data: DataConfig
    """Which text."""
    model: ModelConfig
    """Which architecture; vocab_size is taken from the text."""
    training: TrainConfig
    """How it learns."""
    out: str
    """The run's directory, under the current one."""
    prompt: str | None = None
    """The opening of every sample shown while training; default: the text's own from PROMPTS."""
    fallback_corpus: str | None = None
    """Read this built-in text instead when the first can't be had (no network)."""
    log_too: str | None = None
    """A second file that gets every line of the log, for `tail -f`."""
    also_save: str | None = None
    """A second name inside the run for the best checkpoint."""
    longer: tuple[Longer, ...] = ()
    """For a recipe by the clock: what suits it better when it is given more time, in rising order."""

    def lasting(self, minutes: float) -> "Recipe":
        """The recipe for so many minutes: its own sizes, or those of the last of `longer` that is reached."""
        sizes = next((one for one in reversed(self.longer) if minutes >= one.minutes), None)
        if sizes is None:
            return replace(self, training=replace(self.training, minutes=minutes))
        model = replace(self.model, d_model=sizes.d_model, n_layers=sizes.n_layers, n_heads=sizes.n_heads)
        learning = replace(self.training, minutes=minutes, batch_size=sizes.batch_size, counted_share=sizes.counted_share)
        return replace(self, model=model, training=learning)


_SMALL = PRESETS["cpu"]

RECIPES: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            name="demo",
            summary="under five minutes on two cores: from noise to verse while you watch",
            data=DataConfig(corpus="shakespeare"),
            model=replace(_SMALL, max_seq_len=128, d_model=128, n_layers=4, n_heads=4),
            training=TrainConfig(
                max_steps=1600,
                batch_size=16,
                learning_rate=3e-3,
                schedule="wsd",
                decay_share=0.3,
                warmup_steps=50,
                eval_every=200,
                eval_tokens=32_768,
                save_every=400,
            ),
            out="checkpoints/demo",
            fallback_corpus="pitches",
            also_save="demo_model.pt",
        ),
        Recipe(
            name="quick",
            summary="the guide's first run: about ten minutes on two cores",
            data=DataConfig(corpus="shakespeare"),
            model=replace(_SMALL, max_seq_len=128, d_model=128, n_layers=4, n_heads=4),
            training=TrainConfig(
                max_steps=2000,
                batch_size=32,
                learning_rate=3e-3,
                schedule="wsd",
                decay_share=0.3,
                warmup_steps=50,
                eval_every=250,
                eval_tokens=32_768,
                save_every=500,
            ),
            out="checkpoints/demo",
            fallback_corpus="pitches",
            also_save="demo_model.pt",
        ),
        Recipe(
            name="shakespeare",
            summary="the guide's capstone: 10,000 steps, hours on two cores, minutes on a GPU",
            data=DataConfig(corpus="shakespeare"),
            model=replace(_SMALL, max_seq_len=256, d_model=192, n_layers=6, n_heads=6, dropout=0.1),
            training=TrainConfig(
                max_steps=10_000,
                batch_size=32,
                learning_rate=2e-3,
                schedule="wsd",
                decay_share=0.3,
                warmup_steps=100,
                eval_every=250,
                save_every=500,
            ),
            out="checkpoints/shakespeare",
            log_too="experiments/shakespeare/logs.txt",
        ),
        Recipe(
            name="lab",
            summary="the training lab's model, 6 x 384 with context 256: 5.8 PFLOP, minutes on a large GPU, about a day on two cores",
            data=DataConfig(corpus="shakespeare"),
            model=PRESETS["baby-gpt"],
            training=TrainConfig(max_steps=5000, batch_size=64, learning_rate=1e-3, warmup_steps=100, eval_every=250, save_every=1000),
            out="checkpoints/lab",
        ),
        Recipe(
            name="laptop",
            summary="nanoGPT's own laptop setting, to compare with its published 1.88: a minute or two on two cores",
            data=DataConfig(corpus="shakespeare"),
            model=ModelConfig(max_seq_len=64, d_model=128, n_layers=4, n_heads=4, bias="none"),
            training=TrainConfig(max_steps=2000, batch_size=12, learning_rate=1e-3, warmup_steps=100, eval_every=250, save_every=1000),
            out="checkpoints/laptop",
        ),
        Recipe(
            name="wikitext2",
            summary="words of Wikipedia, 27 M parameters: 9 PFLOP, the better part of a day on two cores, minutes on a large GPU",
            data=DataConfig(corpus="wikitext2", val_data="wikitext2-valid", tokenizer="word", word_style="wikitext"),
            model=PRESETS["wikitext2-300d"],
            training=TrainConfig(
                max_steps=8500,
                batch_size=80,
                learning_rate=1e-3,
                warmup_steps=400,
                eval_every=250,
                patience=8,
                save_every=500,
            ),
            out="checkpoints/wikitext2",
            prompt="The history of",
            also_save="best_model.pt",
        ),
        Recipe(
            name="speedrun",
            summary="Muon, rotary positions, bfloat16, compiled: two and a half minutes on two cores, to about 1.46",
            data=DataConfig(corpus="shakespeare"),
            model=ModelConfig(
                max_seq_len=256,
                d_model=128,
                n_layers=5,
                n_heads=2,
                position="rotary",
                norm="rms",
                qk_norm=True,
                activation="relu2",
                bias="none",
                tie_weights=False,
                logit_softcap=15.0,
                ngram_rows=(4225,),
            ),
            training=TrainConfig(
                minutes=2.5,
                batch_size=8,
                short_context=128,
                short_share=0.8,
                windows="shuffled",
                counted_share=0.5,
                optimizer="muon",
                learning_rate=4e-3,
                muon_learning_rate=0.02,
                beta1=0.8,
                beta2=0.95,
                clip_norm=0.0,
                schedule="wsd",
                decay_share=0.5,
                min_lr_ratio=0.0,
                warmup_steps=20,
                precision="bfloat16",
                compile=True,
                eval_every=100_000,
                save_every=100_000,
                log_every=10,
            ),
            out="checkpoints/speedrun",
            longer=(Longer(minutes=8, d_model=192, n_layers=5, n_heads=3, batch_size=16, counted_share=0.3),),
        ),
    )
}


def recipe(name: str) -> Recipe:
    """The named recipe. Raises ConfigError listing the known names."""
    check_choice("recipe", name, tuple(RECIPES))
    return RECIPES[name]


if __name__ == "__main__":
    for known in RECIPES.values():
        tokens = known.training.max_steps * known.training.batch_size * known.model.max_seq_len
        print(f"{known.name:12} {known.model.n_parameters / 1e6:6.2f} M parameters  {tokens / 1e6:6.1f} M tokens  {known.out}")
        print(f"{'':12} {known.summary}")
