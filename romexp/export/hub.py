"""Sends an exported folder to the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path

import huggingface_hub
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from romexp.errors import ConfigError, DataError


def check_can_push(repo: str) -> None:
    """Check that there is a token, and that `repo` is a name for a repository, before any work is done.

    Raises:
        ConfigError: one of them is not so.
    """
    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"task.push_to_hub: expected <user>/<name>, not {repo!r} ({reason})") from error
    if not huggingface_hub.get_token():
        raise ConfigError("task.push_to_hub: there is no Hugging Face token: run `hf auth login`, or set HF_TOKEN")


def push(folder: Path, repo: str) -> str:
    """Upload all files of a folder, and return the address. A new repository is private.

    Raises:
        DataError: the hub cannot be reached, or refuses.
    """
    api = huggingface_hub.HfApi()
    try:
        made = api.create_repo(repo, exist_ok=True, private=True)
        api.upload_folder(folder_path=str(folder), repo_id=made.repo_id, commit_message="Edits exported by romexp")
    except Exception as error:  # Network libraries, the hub's own errors and its offline mode have no common class.
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise DataError(f"task.push_to_hub: {folder} is exported, but was not sent to {repo}: {reason}") from error
    return str(made)
