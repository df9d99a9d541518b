"""Planted bugs: what training reads (tokenizers, token files, noise), growing a vocabulary, runs of either engine."""

from tests.planted.bug import Bug

T = "tiny_transformer"

BUGS = [
    Bug("tokenizer learns from the validation text too", f"{T}/cli/texts.py", "tokenization.train(data.tokenizer, reading.train, wanted, **style)", "tokenization.train(data.tokenizer, reading.corpus.text, wanted, **style)", "training_material"),
    Bug("alphabet of the training text alone", f"{T}/cli/texts.py", 'tokenization.train("char", reading.corpus.text)', 'tokenization.train("char", reading.train)', "cli errors training_material"),
    Bug("tokenizer file ignored", f"{T}/cli/texts.py", "    if data.tokenizer_file is not None:\n", "    if False:\n", "training_material"),
    Bug("bits per byte by the tokens of the training text", f"{T}/cli/material.py", 'if self.reading.on_disk else len(self.val_ids)', 'if self.reading.on_disk else len(self.train_ids)', "training_material"),
    Bug("noise on the validation text", f"{T}/training/loop.py", "            self._epoch = epoch, ids\n", "            self._epoch = epoch, ids\n            self.val_ids = ids[: len(self.val_ids)]\n", "training_material"),
    Bug("the same noise in every epoch", f"{T}/cli/noise.py", "changed = augment(text, noise, seed, epoch)", "changed = augment(text, noise, seed, 0)", "training_material"),
    Bug("noise forgotten on resume", f"{T}/cli/training.py", "tokenizer, noise = tokenization.from_dict(last.tokenizer or {}), noise_of(run.record)", "tokenizer, noise = tokenization.from_dict(last.tokenizer or {}), Noise()", "training_material"),
    Bug("epochs counted in windows", f"{T}/training/loop.py", "self.progress.step * self.settings.batch_size * self.seq_len // len(self.train_ids)", "self.progress.step * self.settings.batch_size // len(self.train_ids)", "training_material"),
    Bug("BPE-dropout keeps what it should drop", f"{T}/tokenization/bpe_dropout.py", "if next(uniform) >= rate]", "if next(uniform) < rate]", "training_material"),
    Bug("BPE-dropout takes the last merge", f"{T}/tokenization/bpe_dropout.py", "_, joined, i = min(kept)", "_, joined, i = max(kept)", "training_material"),
    Bug("special tokens broken up by BPE-dropout", f"{T}/tokenization/bpe_dropout.py", "split_special(text, tokenizer.special_tokens)", "split_special(text, ())", "training_material"),
    Bug("token files with another tokenizer's size", f"{T}/cli/material.py", '    for name in ("tokenizer_file", "vocab_size", "size", "val_data"):\n', '    for name in ("tokenizer_file",):\n', "training_material"),
    Bug("no end between documents", f"{T}/cli/data_tokenize.py", 'if settings.document_separator is not None and settings.tokenizer != "wordpiece" else None', "if False else None", "training_material"),
    Bug("a word called kind makes it ours", f"{T}/tokenization/files.py", 'isinstance(values.get("kind"), str)', '"kind" in values', "training_material"),
    Bug("a word called model makes it theirs", f"{T}/tokenization/files.py", 'isinstance(values.get("model"), dict)', '"model" in values', "training_material"),
    Bug("new tokens begin at zero", f"{T}/growing.py", "np.repeat(mean, vocab_size - old, 0)", "np.repeat(mean * 0, vocab_size - old, 0)", "growing"),
    Bug("new tokens first", f"{T}/growing.py", "np.concatenate((table, np.repeat(", "np.concatenate((table[::-1], np.repeat(", "growing"),
    Bug("output layer forgotten", f"{T}/growing.py", 'TABLES = ("embeddings.token.weight", "unembed.weight", "unembed.bias")', 'TABLES = ("embeddings.token.weight", "unembed.bias")', "growing"),
    Bug("a NumPy run says it used PyTorch", f"{T}/run.py", '"torch": None if torch is None else torch.__version__', '"torch": "2.0"', "numpy_training run"),
    Bug("weights of the last checkpoint for a NumPy run", f"{T}/run.py", '"best.pt", "best.safetensors", "last.pt", "last.safetensors"', '"best.pt", "last.safetensors", "last.pt", "best.safetensors"', "numpy_training run"),
]
