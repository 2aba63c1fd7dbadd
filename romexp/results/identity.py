"""A run's *identity*: everything that affects its result, as one JSON value. Its hash names the run's folder.

It is made from the instantiated objects and not from the configuration's text, so that different texts for the same
values give the same identity (docs/method.md §11.4).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator, Mapping, Sequence, Set
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from romexp.errors import ConfigError
from romexp.files import file_sha256
from romexp.redact import without_secrets

NO_EFFECT = frozenset(
    {"name", "cache_dir", "device", "device_map", "batch_size", "batch_tokens", "max_batch_tokens", "cache_gib"}
)
"""Fields without an effect on the result. They decide where or how fast something is computed, or what it is called."""

Identity = dict[str, Any]


def fingerprint(value: Any, *, without: Collection[str] = ()) -> Any:
    """A configured object as JSON values: a dataclass by its fields, a file by its content.

    Objects with a `provenance`, such as corpora and editors with a trained network, are represented by it.

    Args:
        value: an instantiated part of the configuration.
        without: fields to leave out at any depth, besides those of `NO_EFFECT`.
    """
    if (provenance := getattr(value, "provenance", None)) is not None:
        return fingerprint(provenance)
    if is_dataclass(value) and not isinstance(value, type):
        return by_fields(value, without=without)
    if isinstance(value, Mapping):
        return {str(k): fingerprint(v, without=without) for k, v in value.items()}
    if isinstance(value, (Sequence, Set)) and not isinstance(value, (str, bytes)):
        items = [fingerprint(v, without=without) for v in value]
        return sorted(items, key=repr) if isinstance(value, Set) else items
    if isinstance(value, (str, Path)):
        path = Path(value).expanduser()
        # A text without a suffix is a name and not a path, even if a file happens to have this name.
        return {"sha256": file_digest(path)} if path.suffix and path.is_file() else without_secrets(str(value))
    return value if value is None or isinstance(value, (bool, int, float)) else str(value)


def of_covariance(value: Any) -> Any:
    """The fingerprint of a source of second moments, without the settings that decide how they are kept and checked."""
    return fingerprint(value, without=("shipped", "checkpoint_every", "check_model"))


def by_fields(value: Any, *, without: Collection[str] = ()) -> dict[str, Any]:
    """The fingerprint of a dataclass by its fields, even if it has a `provenance`."""
    skipped = NO_EFFECT.union(without)
    kept = {f.name: getattr(value, f.name) for f in fields(value) if f.init and f.name not in skipped}
    return {"type": type(value).__qualname__} | {k: fingerprint(v, without=without) for k, v in kept.items()}


def file_digest(path: Path) -> str:
    """The first 16 hexadecimal digits of the SHA-256 of a file's content."""
    return file_sha256(path)[:16]


def digest(value: Any) -> str:
    """The first 12 hexadecimal digits of the SHA-256 of a JSON value."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def refuse_other(folder: Path, found: Mapping[str, Any] | None, wanted: Identity) -> None:
    """Check that a folder holds no results, or results of the same run.

    Args:
        folder: the result folder.
        found: the identity in the folder's manifest; None if it has no manifest.
        wanted: the identity of the run that will write into the folder.

    Raises:
        ConfigError: the folder holds results of another configuration. The message names the settings that differ.
    """
    if found is None:
        if (folder / "cases.jsonl").exists():
            raise ConfigError(f"{folder} holds a cases.jsonl without a manifest: set another output_dir")
        return
    there, here = dict(_flat(found)), dict(_flat(json.loads(json.dumps(wanted))))
    differing = [key for key in dict.fromkeys((*here, *there)) if there.get(key) != here.get(key)]
    if differing:
        listed = "; ".join(f"{key} is {there.get(key)!r} there, {here.get(key)!r} here" for key in differing[:4])
        more = f"; and {len(differing) - 4} more" if len(differing) > 4 else ""
        raise ConfigError(f"{folder} holds results of another configuration: set another output_dir ({listed}{more})")


def _flat(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from _flat(inner, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, value
