"""Published models that are fetched by name: which there are, their files with size and SHA-256, and where they lie.

Only files whose digest is known for certain are here. Other models: get their directory yourself, and load it.
Each file goes through `corpora/transfer.py`: https, several mirrors, continued where it broke off, checked before it has its name.
config.json is not fetched but written: it follows from the architecture. Read before: `families.py`, `corpora/transfer.py`.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tiny_transformer.config import ConfigError, check, check_choice, preset
from tiny_transformer.corpora.download import cache_dir
from tiny_transformer.corpora.transfer import Client, DownloadError, Remote, is_genuine, transfer
from tiny_transformer.pretrained.families import FAMILIES
from tiny_transformer.pretrained.family import to_hugging_face
from tiny_transformer.utils.atomic import atomic_save

Progress = Callable[[int, int], None]
"""Called with the bytes that are here, and the bytes in all; of all files together."""


@dataclass(frozen=True)
class PublishedModel:
    """A model that others published and that never changes."""

    title: str
    family: str
    preset: str
    """Its architecture in `config.PRESETS`."""
    files: dict[str, Remote]
    """By the name that each gets, the small ones first."""

    @property
    def size(self) -> int:
        """Of all files, in bytes."""
        return sum(remote.size for remote in self.files.values())


_GPT2 = "openai-community/gpt2/resolve/607a30d783dfa663caf39e06633721c8d4cfcd7e"
_OPENAI = "https://openaipublic.blob.core.windows.net/gpt-2/encodings/main"


def _gpt2(name: str, size: int, sha256: str, *more: str) -> Remote:
    return Remote(size, sha256, (f"https://huggingface.co/{_GPT2}/{name}", f"https://hf-mirror.com/{_GPT2}/{name}", *more))


# The digests: of vocab.json and merges.txt from the files themselves; of model.safetensors, with its size, what independent projects that
# pin this commit have recorded. A wrong one would refuse a file, never admit another.
PUBLISHED: dict[str, PublishedModel] = {
    "gpt2": PublishedModel(
        "GPT-2, 124 M parameters",
        "gpt2",
        "gpt2",
        {
            "vocab.json": _gpt2(
                "vocab.json", 1_042_301, "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783", f"{_OPENAI}/encoder.json"
            ),
            "merges.txt": _gpt2(
                "merges.txt", 456_318, "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5", f"{_OPENAI}/vocab.bpe"
            ),
            "model.safetensors": _gpt2(
                "model.safetensors", 548_105_171, "248dfc3911869ec493c76e65bf2fcf7f615828b0254c12b473182f0f81d3a707"
            ),
        },
    )
}


def home(name: str) -> Path:
    """Where a published model lies unless another folder was named: in the cache."""
    return cache_dir() / "models" / name


def find(name: str) -> Path | None:
    """The folder of a published model that was downloaded before; None for any other name."""
    folder = home(name)
    return folder if name in PUBLISHED and all((folder / file).is_file() for file in ("config.json", *PUBLISHED[name].files)) else None


def download(name: str, folder: Path | None = None, *, progress: Progress | None = None, client: Client | None = None) -> Path:
    """See to it that `folder` (default: the cache) holds the model's directory, every file verified; gives the folder.

    Raises ConfigError for an unknown name and where another file is in the way, DownloadError when a file can't be had: one line that
    says why. What has arrived of it is kept, and the next call goes on from there.
    """
    check_choice("model", name, tuple(PUBLISHED))
    model, folder = PUBLISHED[name], home(name) if folder is None else folder
    missing = _missing(model, folder)
    here = model.size - sum(model.files[file].size for file in missing)
    for file in missing:
        try:
            transfer(model.files[file], folder / file, progress=_behind(here, model.size, progress), client=client)
        except DownloadError as error:
            raise DownloadError(_cannot_be_had(name, file, folder, error), offline=error.offline) from error
        here += model.files[file].size
    if not (folder / "config.json").exists():
        config = json.dumps(to_hugging_face(FAMILIES[model.family], preset(model.preset)), indent=2).encode() + b"\n"
        atomic_save(folder / "config.json", lambda out: out.writelines([config]))
    return folder


def _missing(model: PublishedModel, folder: Path) -> list[str]:
    """The files that are not there yet. Raises ConfigError naming one that is there and is another: nothing is overwritten."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        there = [file for file in model.files if (folder / file).exists()]
        other = [file for file in there if not is_genuine(folder / file, model.files[file])]
        own = folder / "config.json"
        other += ["config.json"] if own.exists() and json.loads(own.read_bytes()).get("model_type") != model.family else []
    except (OSError, ValueError, AttributeError) as error:
        raise ConfigError(f"{folder} can't be used ({error}): it must be a folder for {model.title}. Name another one") from error
    check(not other, f"{folder} has another {', '.join(other)}", f"it must be {model.title}'s, and nothing is overwritten", "Move it away")
    return [file for file in model.files if file not in there]


def _behind(before: int, in_all: int, progress: Progress | None) -> Progress | None:
    """The progress of one file, as that of all of them."""
    return None if progress is None else lambda done, _: progress(before + done, in_all)


def _cannot_be_had(name: str, file: str, folder: Path, error: DownloadError) -> str:
    reason = f"there is no network ({error})" if error.offline else f"no download worked ({error})"
    return f"{name} cannot be had: {file}: {reason}. What has arrived is kept; or put the files into {folder} yourself"


if __name__ == "__main__":
    import tempfile

    for name, model in PUBLISHED.items():
        print(f"{name}: {model.title}, {model.size / 1e6:.0f} MB in {', '.join(model.files)}; here: {find(name)}")
    with tempfile.TemporaryDirectory() as here:
        (Path(here) / "vocab.json").write_text("{}")
        try:
            download("gpt2", Path(here))
        except ConfigError as error:
            print("caught:", str(error).replace(here, "…"))
