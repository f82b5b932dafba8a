"""Finds a checkpoint's folder: the shipped one, a local folder, or a download from the Hugging Face Hub."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

SHIPPED = ("pictogram-clip",)
"""Names of the checkpoints that come with this package."""

# Only what is read: never pickles, never code.
_FILES = (
    "config.json",
    "model.safetensors",
    "vocab.json",
    "merges.txt",
    "tokenizer.json",
    "tokenizer_config.json",
    "preprocessor_config.json",
    "processor_config.json",
)


def resolve(name_or_path: str | Path, revision: str | None = None) -> Path:
    """Returns the local folder of a checkpoint, downloading it when it is a Hub id.

    Args:
        name_or_path: a shipped name (`"pictogram-clip"`), a local folder, or a Hub id such as
            `"openai/clip-vit-base-patch32"`. A folder wins over an id of the same spelling.
        revision: branch, tag or commit on the Hub.

    Returns:
        The folder.

    Raises:
        FileNotFoundError: it is neither a folder nor a Hub id that can be had.
    """
    folder = Path(name_or_path)
    if str(name_or_path) and folder.is_dir():
        return folder
    if str(name_or_path) in SHIPPED:
        return _shipped_folder(str(name_or_path))
    try:
        return Path(snapshot_download(str(name_or_path), revision=revision, allow_patterns=list(_FILES)))
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise FileNotFoundError(
            f"`name_or_path` must be a shipped name ({', '.join(SHIPPED)}), an existing folder or a Hub id that "
            f"can be downloaded. Received: name_or_path={str(name_or_path)!r}. Check the spelling and the network "
            f"({type(error).__name__}: {reason})"
        ) from error


def _shipped_folder(name: str) -> Path:
    # In a wheel the checkpoint lies inside the package; in a clone, beside it.
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "saved_models" / name, package.parent / "saved_models" / name):
        if (folder / "config.json").is_file():
            return folder
    raise FileNotFoundError(
        f"`name_or_path` must be a checkpoint of this installation. Received: name_or_path={name!r}, whose files "
        "are missing. Install tf_clip again."
    )
