"""Data sets of the Hugging Face hub as files of records: `hf://owner/name[@revision][/configuration][:split]`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from romexp.errors import ConfigError, DataError
from romexp.files import replacing
from romexp.hub import HubUnreachable, hub_access
from romexp.redact import without_secrets

PREFIX = "hf://"
_FORM = re.compile(
    r"(?P<name>[\w.-]+(?:/[\w.-]+)?)(?:@(?P<revision>[\w.-]+))?(?:/(?P<configuration>[\w.+-]+))?(?::(?P<split>[\w.+-]+))?"
)


@dataclass(frozen=True, kw_only=True)
class HubAddress:
    """Where a data set is on the hub.

    Attributes:
        name: `owner/name`.
        revision: branch, tag or commit; None takes the newest.
        configuration: None takes the only one, or the default.
        split: None takes the only one, or `train`.
    """

    name: str
    revision: str | None = None
    configuration: str | None = None
    split: str | None = None


def is_hub_address(path: object) -> bool:
    """Whether the text names a data set of the hub and no file."""
    return str(path).startswith(PREFIX)


def parse_address(text: str) -> HubAddress:
    """The parts of `hf://owner/name[@revision][/configuration][:split]`.

    Raises:
        ConfigError: the text has another form.

    >>> parse_address("hf://azhx/counterfact:test")
    HubAddress(name='azhx/counterfact', revision=None, configuration=None, split='test')
    """
    match = _FORM.fullmatch(text.removeprefix(PREFIX).removeprefix("datasets/").strip("/"))
    if match is None:
        raise ConfigError(f"dataset.path: expected hf://owner/name[@revision][/configuration][:split], not {text}")
    return HubAddress(**match.groupdict())


def fetch_records(text: str, folder: Path) -> Path:
    """The file of JSON lines with the records of a split, which is made at the first use and kept below `folder`.

    Raises:
        ConfigError: see `parse_address`.
        DataError: the hub has no such data set, configuration or split, or cannot be reached.
    """
    address = parse_address(text)
    configuration = address.configuration or "default"
    name = f"{address.split or 'all'}{f'@{address.revision}' if address.revision else ''}.jsonl"
    file = folder / "hub_datasets" / address.name / configuration / name
    if file.is_file():
        return file
    file.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{file}.lock"):
        if not file.is_file():
            rows = _rows(address, text, file)
            with replacing(file) as part:
                rows.to_json(str(part), lines=True, force_ascii=False)
    return file


def _rows(address: HubAddress, text: str, file: Path) -> Any:
    """The rows of a split as a `datasets.Dataset`."""
    import datasets  # This import is slow, and most runs do not need it.

    try:
        with hub_access():
            found = datasets.load_dataset(
                address.name, address.configuration, split=address.split, revision=address.revision
            )
    except Exception as error:  # `datasets` raises a dozen types of its own and of the libraries that it uses.
        lines = str(error).strip().splitlines() or [type(error).__name__]
        reason = f"it is not in the cache, and {lines[0]}" if isinstance(error, HubUnreachable) else lines[0]
        raise DataError(
            without_secrets(f"{text}: cannot be loaded ({reason}); without a network put its records at {file}")
        ) from error
    if not isinstance(found, dict):
        return found
    if len(found) == 1:
        return next(iter(found.values()))
    if "train" in found:
        return found["train"]
    raise DataError(f"{text}: name one of its splits ({', '.join(found)}) as hf://…:split")
