"""What a run *is*: everything that affects its result, as one JSON-ready value. Folders are named by its hash.

Built from the instantiated parts, not from the configuration's text, so that two ways to say the same are the same.
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

NO_EFFECT = frozenset(
    {"name", "cache_dir", "device", "device_map", "batch_size", "batch_tokens", "max_batch_tokens", "cache_gib"}
)
"""Fields that decide where and how fast something is computed, or what it is called, never what comes out."""

Identity = dict[str, Any]


def fingerprint(value: Any, *, without: Collection[str] = ()) -> Any:
    """A configured object as plain JSON values: dataclasses by fields, files by content.

    What has a `provenance` is that instead: corpora, editors with a trained network.

    Args:
        without: fields to leave out besides `NO_EFFECT`, at any depth.
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
        # A bare word is a name even if a file is called so; a file worth giving has a suffix.
        return {"sha256": file_digest(path)} if path.suffix and path.is_file() else str(value)
    return value if value is None or isinstance(value, (bool, int, float)) else str(value)


def of_covariance(value: Any) -> Any:
    """The fingerprint of where second moments come from, without how they are kept and checked."""
    return fingerprint(value, without=("shipped", "checkpoint_every", "check_model"))


def by_fields(value: Any, *, without: Collection[str] = ()) -> dict[str, Any]:
    """The fingerprint of a dataclass by its fields, whatever it says of its provenance."""
    skipped = NO_EFFECT.union(without)
    kept = {f.name: getattr(value, f.name) for f in fields(value) if f.init and f.name not in skipped}
    return {"type": type(value).__qualname__} | {k: fingerprint(v, without=without) for k, v in kept.items()}


def file_digest(path: Path) -> str:
    """Sha256 of a file's content, 16 hexadecimal digits."""
    return file_sha256(path)[:16]


def digest(value: Any) -> str:
    """12 hexadecimal digits that name a JSON-ready value."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def refuse_other(folder: Path, found: Mapping[str, Any] | None, wanted: Identity) -> None:
    """Make sure that a folder holds results of this very run, or none.

    Args:
        found: the identity in the folder's manifest; None if it has no manifest.

    Raises:
        ConfigError: results of another configuration lie there; the message names what differs.
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
