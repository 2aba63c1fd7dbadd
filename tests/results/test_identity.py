"""What makes two runs the same run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from romexp.errors import ConfigError
from romexp.results.identity import digest, fingerprint, refuse_other
from romexp.tasks.run import slug


@dataclass(frozen=True, kw_only=True)
class Part:
    name: str = "x"
    layer: int | None = 3
    pairs: Any = ((5, 10), (10, 10))
    file: str | Path | None = None
    batch_size: int = 5
    inner: Any = None


def test_names_and_speed_are_no_part_of_it() -> None:
    assert fingerprint(Part()) == fingerprint(Part(name="y", batch_size=7))
    assert fingerprint(Part(inner=Part())) == fingerprint(Part(inner=Part(name="z")))


@pytest.mark.parametrize("other", [{"layer": 4}, {"pairs": ((5, 10),)}, {"file": "x.json"}, {"inner": Part()}])
def test_everything_else_is(other: dict[str, Any]) -> None:
    assert digest(fingerprint(Part())) != digest(fingerprint(Part(**other)))


def test_lists_and_tuples_are_the_same() -> None:
    assert fingerprint(Part(pairs=[[5, 10], [10, 10]])) == fingerprint(Part())


def test_a_file_is_its_content_wherever_it_lies(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("1")
    (tmp_path / "b.json").write_text("1")
    a = fingerprint(Part(file=tmp_path / "a.json"))
    assert a == fingerprint(Part(file=str(tmp_path / "b.json")))
    (tmp_path / "b.json").write_text("2")
    assert a != fingerprint(Part(file=str(tmp_path / "b.json")))


def test_a_corpus_is_its_provenance() -> None:
    corpus = SimpleNamespace(provenance={"sha256": "abc"}, path="/anywhere")
    assert fingerprint(Part(inner=corpus))["inner"] == {"sha256": "abc"}


def test_another_identity_is_refused_with_what_differs() -> None:
    refuse_other(Path("x"), None, {"a": 1})
    refuse_other(Path("x"), {"a": 1, "b": {"c": [1, 2]}}, {"b": {"c": (1, 2)}, "a": 1})
    with pytest.raises(ConfigError, match=r"b\.c is 1 there, 2 here"):
        refuse_other(Path("x"), {"b": {"c": 1}}, {"b": {"c": 2}})
    with pytest.raises(ConfigError, match="b is None there, 1 here"):
        refuse_other(Path("x"), {}, {"b": 1})


def test_rows_without_a_manifest_are_refused(tmp_path: Path) -> None:
    (tmp_path / "cases.jsonl").touch()
    with pytest.raises(ConfigError, match="without a manifest"):
        refuse_other(tmp_path, None, {})


@pytest.mark.parametrize("name", ["EleutherAI/gpt-j-6b", "..", "a b:c", "", "FT+L"])
def test_slugs_are_safe_names(name: str) -> None:
    assert slug(name) not in ("", ".", "..")
    assert "/" not in slug(name)
    assert slug("gpt2-xl") == "gpt2-xl"
