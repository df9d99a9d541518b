"""How good the WikiText-2 model is: perplexity with its interval, bits per byte, unknown words, and how much it repeats itself.

    python examples/wikitext/evaluate.py --model_path checkpoints/best_model.pt
    python examples/wikitext/evaluate.py --model_path checkpoints/best_model.pt --test_file data/test.txt

Without --test_file the run's own validation text is read. Beside what the model writes stand the same counts for passages of that
text, of the same length: people repeat themselves too.
"""

import argparse
import runpy
import sys
from dataclasses import replace
from pathlib import Path

try:
    from tiny_transformer import corpora
    from tiny_transformer.cli.main import explain, fail
    from tiny_transformer.cli.texts import encode_part, read
    from tiny_transformer.cli.writing import Writer, open_writer
    from tiny_transformer.config import SAMPLING_PRESETS, DataConfig, check
    from tiny_transformer.evaluation.perplexity import bits_per_byte, perplexity
    from tiny_transformer.evaluation.repetition import Source, average, repetition, usual
    from tiny_transformer.evaluation.validation_loss import loss_in_windows
    from tiny_transformer.tokenization.word import WordTokenizer
except ModuleNotFoundError:
    sys.exit("examples/wikitext/evaluate.py: the package is not installed. Run: pip install -e .")


def measured_text(writer: Writer, path: str | None) -> str:
    """The text to measure on: the file, or what the run itself was measured on."""
    if path is not None:
        return corpora.load(path).text
    check("data" in writer.record, f"{writer.path} lies in no run", "its validation text is not known", "Name a text: --test_file FILE")
    return read(DataConfig(**writer.record["data"]))[0].val


def quality(writer: Writer, text: str) -> list[str]:
    """What the model makes of a text."""
    ids = encode_part(writer.tokenizer, text, "measured")
    found = loss_in_windows(writer.model, ids)
    lines = [
        f"loss           {found} nats per token, {found.tokens:,} tokens",
        f"perplexity     {perplexity(found)}",
        f"bits per byte  {bits_per_byte(found, len(text.encode()))}",
    ]
    if isinstance(writer.tokenizer, WordTokenizer):
        lacking = writer.tokenizer.unknowns(text, most=0)
        masked = lacking.masked / max(lacking.words, 1)
        lines.append(f"unknown        {lacking.share:.1%} of words are not in the vocabulary; {masked:.1%} are <unk> in the text itself")
    return lines


def voice(writer: Writer, text: str, prompt: str, samples: int, seed: int) -> list[str]:
    """What can be counted in what the model writes, and in passages of a person's text as long."""
    settings = replace(SAMPLING_PRESETS["balanced"], seed=seed)
    source = None if writer.training_text is None else Source(writer.training_text)
    texts = writer.generator.generate_batch([prompt] * samples, settings)
    ours = average([repetition(one.removeprefix(prompt), source) for one in texts])
    people = usual(text, max(1, round(ours.words)), source)
    head = f"{samples} texts after {prompt!r}, temperature {settings.temperature:g}, top-k {settings.top_k}, seeds from {seed}"
    return [head, f"  written      {ours}", f"  people       {people or 'the measured text is too short to compare with'}"]


def evaluate(argv: list[str]) -> int:
    """Measure and print; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model_path", required=True, help="a run, or a checkpoint file")
    parser.add_argument("--test_file", help="measure on this text instead of the run's validation text")
    parser.add_argument("--prompt", help="how the samples begin; default: as in training")
    parser.add_argument("--samples", type=int, default=8, help="how many texts of at most 200 tokens are written; 0: none")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(argv)
    find = runpy.run_path(str(Path(__file__).with_name("generate.py")))["found"]
    try:
        writer = open_writer(find(options.model_path))
        text = measured_text(writer, options.test_file)
        print(writer.describe())
        print("\n".join(quality(writer, text)))
        if options.samples > 0:
            print("\n".join(voice(writer, text, writer.prompt(options.prompt), options.samples, options.seed)))
    except Exception as error:
        line = explain(error)
        if line is None:
            raise
        return fail("evaluate", line)
    return 0


if __name__ == "__main__":
    sys.exit(evaluate(sys.argv[1:]))
