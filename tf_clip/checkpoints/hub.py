"""Finds a checkpoint: the shipped one, a local folder or file, or a download from the Hugging Face Hub; and uploads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

# huggingface_hub is imported where it is used: most checkpoints are on the disk.
from tf_clip.checkpoints import files
from tf_clip.checkpoints.errors import CheckpointError

SHIPPED = ("pictogram-clip",)
"""Names of the checkpoints that come with this package."""


def resolve(name_or_path: str | Path, revision: str | None = None) -> Path:
    """Returns the local place of a checkpoint, downloading it when it is a Hub id.

    Args:
        name_or_path: a shipped name (`"pictogram-clip"`), a local folder or file, or a Hub id such as
            `"openai/clip-vit-base-patch32"`. A folder wins over an id of the same spelling.
        revision: branch, tag or commit on the Hub.

    Returns:
        The folder, or the file.

    Raises:
        FileNotFoundError: it is neither a folder nor a file nor a Hub id that can be had.
    """
    path = Path(name_or_path)
    if str(name_or_path) and path.exists():
        return path
    if str(name_or_path) in SHIPPED:
        return _shipped_folder(str(name_or_path))
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return _download(str(name_or_path), revision)
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise FileNotFoundError(
            f"`name_or_path` must be a shipped name ({', '.join(SHIPPED)}), an existing folder or file, or a Hub id "
            f"that can be downloaded. Received: name_or_path={str(name_or_path)!r}. Check the spelling and the network "
            f"({type(error).__name__}: {reason})"
        ) from error


def resolve_folder(name_or_path: str | Path, revision: str | None = None) -> Path:
    """Returns the folder of a checkpoint, also where `resolve` would return a file in it."""
    path = resolve(name_or_path, revision)
    return path if path.is_dir() else path.parent


def _download(name: str, revision: str | None) -> Path:
    from huggingface_hub import HfApi, hf_hub_download, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        present = HfApi().list_repo_files(name, revision=revision)
        config: dict[str, Any] = {}
        if {files.CONFIG, files.OPENCLIP_CONFIG} <= set(present):
            config = files.read_json(Path(hf_hub_download(name, files.CONFIG, revision=revision)))
        wanted = files.needed(present, config)
    except (HfHubHTTPError, HFValidationError, CheckpointError):
        raise
    except Exception:  # no network, each way of which has an error of its own: what was downloaded before may do
        return Path(snapshot_download(name, revision=revision, local_files_only=True))
    return Path(snapshot_download(name, revision=revision, allow_patterns=wanted))


def upload(folder: str | Path, name: str, *, private: bool = False, message: str | None = None) -> str:
    """Uploads a folder's files to a model repository on the Hub, which is made when missing.

    Args:
        folder: the folder.
        name: the repository, such as `"someone/my-clip"`.
        private: whether a new repository is seen by its owner alone.
        message: the commit's message; None takes "Upload with tf_clip".

    Returns:
        The address of the commit.

    Raises:
        PermissionError: the Hub refuses: there is no token, or it may not write there.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    api = HfApi()
    try:
        repository = api.create_repo(name, private=private, exist_ok=True).repo_id
        commit = api.upload_folder(
            repo_id=repository, folder_path=folder, commit_message=message or "Upload with tf_clip"
        )
    except HfHubHTTPError as error:
        if error.response is not None and error.response.status_code in (401, 403):
            raise PermissionError(
                f"`name` must be a repository you may write to. Received: name={name!r} "
                f"({error.response.status_code}). Log in with `hf auth login`, or set HF_TOKEN."
            ) from error
        raise
    return str(commit.commit_url)


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
