"""Planted bugs: models and tokenizers on their way out, our own files, SentencePiece's files on their way in."""

from tests.planted.bug import Bug

_HERE, _WORDS, _UTILS = "tiny_transformer/pretrained/", "tiny_transformer/tokenization/", "tiny_transformer/utils/"
_ENGINE = "tiny_transformer/numpy_engine/checkpoint.py"

BUGS = [
    Bug("a difference in settings is not looked at", _HERE + "family.py", "return {name: (value, theirs[name]) for name, value in mine.items() if value != theirs[name]}", 'return {name: (value, theirs[name]) for name, value in mine.items() if value != theirs[name] and name != "logit_softcap"}', "export"),
    Bug("a window that does something is dropped", _HERE + "family.py", "config.window >= config.max_seq_len", "config.window >= config.max_seq_len // 2", "export"),
    Bug("our own words count although they say something else", _HERE + "family.py", "return own if _resolved(without_idle(own)) == _resolved(config) else config", "return own", "export"),
    Bug("our own words decide the biases", _HERE + "family.py", "own = config if said is None else replace(said, bias=config.bias)", "own = config if said is None else said", "export"),
    Bug("trained biases are dropped", _HERE + "accounting.py", "if any(widen(files.array(name), files.entries[name].dtype).any() for name in (*idle, *copies)):", "if False:", "export"),
    Bug("biases of one", _HERE + "outgoing_model.py", "return np.zeros(shape, np.float32)", "return np.ones(shape, np.float32)", "export"),
    Bug("the nearest family is the farthest", _HERE + "expressing.py", "return min(found, key=lambda pair: len(pair[1]))", "return max(found, key=lambda pair: len(pair[1]))", "export"),
    Bug("Llama with any number of heads", _HERE + "llama.py", "return _nearest(config if heads == config.n_heads else", "return _nearest(config if heads else", "export"),
    Bug("only the attention's biases are told", _HERE + "llama.py", 'dict.fromkeys(BIASES, config.bias == "all")', 'dict.fromkeys(BIASES[:1], config.bias == "all")', "export"),
    Bug("their default ids end a text", _HERE + "exporting.py", "**expression.values, **ids,", "**expression.values, **{role: i for role, i in ids.items() if i is not None},", "export"),
    Bug("rows without a token are written", _HERE + "exporting.py", 'ids | ({"suppress_tokens": spare}', 'ids | ({"bad_tokens": spare}', "export"),
    Bug("config.json first", _HERE + "exporting.py", "beside |= config_files(expression, model, special, dtype)", "beside = config_files(expression, model, special, dtype) | beside", "export"),
    Bug("weights are not looked at", _HERE + "exporting.py", "odd = [name for name in {**shapes, **found} if found.get(name) != shapes.get(name)]", "odd: list[str] = []", "export"),
    Bug("what was there is lost", _HERE + "exporting.py", "            aside.rename(folder)", "            pass", "export"),
    Bug("half a directory stays", _HERE + "exporting.py", "        _undo(made, folder if new else None, aside, folder)\n        raise", "        raise", "export"),
    Bug("a full directory is overwritten unasked", _HERE + "exporting.py", 'check(overwrite, f"{folder} is not empty"', 'check(True, f"{folder} is not empty"', "export"),
    Bug("the copies of an untied BERT are missing", _HERE + "exporting.py", "copies = {} if expression.config.tie_weights else", "copies: dict[str, Rule] = {} if True else", "export"),
    Bug("Qwen 2 cuts other tokenizers' texts", _HERE + "tokenizer_writing.py", 'return () if own else ("qwen2",)', "return ()", "export_tokenizers"),
    Bug("no class of tokenizer is named", _HERE + "tokenizer_writing.py", '"tokenizer_class": "PreTrainedTokenizerFast",', "", "export_tokenizers"),
    Bug("a chat template's own end is forgotten", _HERE + "tokenizer_writing.py", "            ids[role] = tokens[text]", "            pass", "export_tokenizers"),
    Bug("the chat template stays behind", _HERE + "tokenizer_writing.py", "if chat_template is not None:", "if chat_template is None:", "export export_cli"),
    Bug("special tokens among the characters", _WORDS + "hugging_face_models.py", "return CharTokenizer(symbols, special)", "return CharTokenizer(symbols)", "export_tokenizers"),
    Bug("a run forgets BPE's template", _WORDS + "bpe.py", 'tokenizer.template = values.get("template")', "tokenizer.template = None", "export_tokenizers"),
    Bug("bfloat16 is cut off", _UTILS + "short_floats.py", "rounded = (bits + (0x7FFF + ((bits >> 16) & 1))) >> 16", "rounded = bits >> 16", "export export_cli"),
    Bug("ties go up", _UTILS + "short_floats.py", "0x7FFF + ((bits >> 16) & 1)", "0x8000", "export_cli"),
    Bug("a NaN becomes a number", _UTILS + "short_floats.py", "np.where(np.isnan(single), nan, rounded)", "rounded", "export_cli"),
    Bug("float16 overflows in silence", _UTILS + "short_floats.py", "check(not lost.any(),", "check(True,", "export"),
    Bug("one tensor too many in a file", _UTILS + "safetensors_writing.py", "if group and size + tensor.nbytes(dtype) > most:", "if group and size > most:", "export"),
    Bug("the size of all files is the last one's", _UTILS + "safetensors_writing.py", '"total_size": sum(tensor.nbytes(dtype) for tensor in tensors)', '"total_size": sum(tensor.nbytes(dtype) for tensor in groups[-1])', "export"),
    Bug("compressed or damaged parts are believed", _ENGINE, "    _check_parts(path)\n", "", "export_cli"),
    Bug("float16 weights stay float16", _ENGINE, "array.astype(np.float32) if array.dtype == np.float16 else array", "array", "export_cli"),
    Bug("a file in the way is replaced", _HERE + "formats.py", "free = overwrite or not file.exists()", "free = True", "export_cli"),
    Bug("packages are not looked for", _HERE + "formats.py", "if importlib.util.find_spec(module) is None]", "if False]", "export_cli"),
    Bug("merges by rising score", _WORDS + "sentencepiece_model.py", "key=lambda piece: -piece.score)", "key=lambda piece: piece.score)", "sentencepiece"),
    Bug("one way to make a piece", _WORDS + "sentencepiece_model.py", "for cut in range(len(piece.text) - 1, 0, -1)", "for cut in (len(piece.text) - 1,)", "sentencepiece"),
    Bug("no space before the text", _WORDS + "sentencepiece_model.py", "if model.dummy_prefix else []", "if False else []", "sentencepiece"),
    Bug("spaces at the end stay", _WORDS + "sentencepiece_model.py", '(FIRST_SPACES, ""), (LAST_SPACES, ""))', '(FIRST_SPACES, ""))', "sentencepiece"),
    Bug("a table of normalization is passed over", _WORDS + "sentencepiece_model.py", '(model.table, f"the normalization rules', '(False, f"the normalization rules', "sentencepiece"),
    Bug("pieces across words are not seen", _WORDS + "sentencepiece_model.py", '"split": not reaching,', '"split": True,', "sentencepiece"),
    Bug("a message that breaks off is read", _WORDS + "sentencepiece_model.py", "if at > len(data) or number == 0:", "if number == 0:", "sentencepiece"),
]
