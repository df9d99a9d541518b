"""Planted bugs: word vectors, frozen rows, a validation text of its own, the WikiText-2 examples, repetition, perplexity, leaks."""

from tests.planted.bug import Bug

T = "tiny_transformer"
V, R, E = f"{T}/word_vectors.py", f"{T}/evaluation/repetition.py", "examples/wikitext"

BUGS = [
    Bug("lower case wins over the own spelling", V, "                self.rows.setdefault(i, row)\n", "                self.rows[i] = row\n", "word_vectors"),
    Bug("the last of two vectors counts", V, "            if not self.as_written[i]:\n", "            if True:\n", "word_vectors"),
    Bug("lines that nobody wants are not counted", V, "        self._check(spaces > self.width, number,", "        self._check(True, number,", "word_vectors"),
    Bug("word2vec's first line is a word", V, "            if last == 1 and self._begin(line):\n", "            if last == 1 and self._begin(line) and False:\n", "word_vectors"),
    Bug("lines counted from 0", V, "        number = 0\n        while line", "        number = -1\n        while line", "word_vectors"),
    Bug("a short file passes", V, "self._check(self.count == self.promised, last, text)", "self._check(self.count <= self.promised, last, text)", "word_vectors"),
    Bug("not a number passes", V, "bool(np.isfinite(row).all())", "not bool(np.isinf(row).any())", "word_vectors"),
    Bug("all rows kept in memory", V, "            word = rows.word(number, line)\n", "            word = rows.word(number, line)\n            wanted.__dict__.setdefault('all', []).append(rows.numbers(number, line))\n", "word_vectors"),
    Bug("special tokens looked up", V, "return [word if word and piece not in tokenizer.special_tokens else None", "return [word if word else None", "word_vectors"),
    Bug("vectors as large as the file has them", V, "self.values * np.float32(std / size)", "self.values * np.float32(1)", "word_vectors"),
    Bug("coverage of the text counts words once", V, "text_either=int(often[either].sum())", "text_either=int(either.sum())", "word_vectors"),
    Bug("frozen rows decay", f"{T}/training/trainer.py", "        self.optimizer.step()\n        self._hold_frozen()\n", "        self.optimizer.step()\n", "word_vectors"),
    Bug("frozen rows decay in NumPy", f"{T}/numpy_engine/trainer.py", "            self._frozen.restore(self.model.weights()[TABLE])\n", "            pass\n", "word_vectors"),
    Bug("clipping by the gradients of frozen rows", f"{T}/training/trainer.py", "            self._frozen.clear(self.model.embeddings.token.weight.grad)\n", "            pass\n", "word_vectors"),
    Bug("frozen rows thaw on resume", f"{T}/training/loop.py", 'self.freeze_rows(saved.get("frozen_rows", ()))', "self.freeze_rows(())", "word_vectors"),
    Bug("everything frozen", f"{T}/cli/training.py", "trainer.freeze_rows(vectors.ids)", "trainer.freeze_rows(range(tokenizer.vocab_size))", "word_vectors"),
    Bug("vectors read and forgotten", f"{T}/cli/training.py", "        begin_with(model, vectors)\n", "        pass\n", "word_vectors"),
    Bug("a tenth of the training text held back all the same", f"{T}/cli/texts.py", "    return Reading(data, both, corpus.text, held.text), notes\n", "    return Reading(data, both, split(corpus.text)[0], held.text), notes\n", "wikitext"),
    Bug("the recipe's validation text beside another text", f"{T}/cli/settings.py", '            changes["val_data"] = None\n', "            pass\n", "wikitext"),
    Bug("style of words forgotten", f"{T}/cli/texts.py", '    style = {"style": data.word_style} if', '    style = {"style": "natural"} if', "wikitext"),
    Bug("the training text's entropy for another text", f"{T}/cli/texts.py", "held.entropy if held.name == corpus.name else None)", "corpus.entropy)", "wikitext"),
    Bug("validation file learned from", f"{E}/train.py", '"--valid_file": "--val-data"', '"--valid_file": "--data"', "wikitext"),
    Bug("best_model.pt of the run before a file that is there", f"{E}/generate.py", "if not Path(path).exists() and inside.is_file()", "if inside.is_file()", "wikitext"),
    Bug("measured where the recipe rests", f"{E}/train.py", "training_job([*base, *flags]).out", "training_job(base).out", "wikitext"),
    Bug("evaluated on the training text", f"{E}/evaluate.py", '(DataConfig(**writer.record["data"]))[0].val', '(DataConfig(**writer.record["data"]))[0].train', "wikitext"),
    Bug("the longest run stops one word early", R, "if len(ids) - start <= best.length:", "if len(ids) - start <= best.length + 1:", "repetition"),
    Bug("a run across the source's end", R, "alive = places[places + length < len(self.ids)]", "alive = places[places + length < len(self.ids) - 1]", "repetition"),
    Bug("a copy without its last word", R, "words[run.start : run.start + run.length]", "words[run.start : run.start + run.length - 1]", "repetition"),
    Bug("runs of three", R, "REPEATED_N = 4", "REPEATED_N = 3", "repetition"),
    Bug("one standard error", f"{T}/evaluation/perplexity.py", "off = TWO_SIDED_95 * measured.error", "off = measured.error", "repetition"),
    Bug("bits per byte of one token", f"{T}/evaluation/perplexity.py", "per_nat = measured.tokens / (n_bytes", "per_nat = 1 / (n_bytes", "repetition"),
    Bug("the leak looked for after the token", f"{T}/evaluation/future_leak.py", ".tril(-1).bool()", ".triu(1).bool()", "future_leak"),
    Bug("only the token before is looked at", f"{T}/evaluation/future_leak.py", ".tril(-1).bool()", ".tril(-1).triu(-1).bool()", "future_leak"),
    Bug("the bug of the mask repaired", "examples/honest_loss.py", "dtype=torch.bool).tril(1)  # right: tril(0)", "dtype=torch.bool).tril(0)  # right: tril(0)", "honest_loss"),
    Bug("the filling not counted in the buggy pipeline", "examples/honest_loss.py", "    story.honest = measure(model, val, ignore=PAD)\n", "    story.honest = measure(model, val)\n", "honest_loss"),
]
