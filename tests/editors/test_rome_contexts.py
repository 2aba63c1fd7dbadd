"""Context templates: a function of model, lengths and seed, kept by all three, and checked where they are given."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from romexp.editors import contexts
from romexp.editors.contexts import context_templates
from romexp.errors import ConfigError
from romexp.lm.model import LanguageModel

LENGTHS = ((5, 3), (10, 2))


def templates(lm: LanguageModel, **changes: object) -> tuple[str, ...]:
    fields = {"given": None, "length_counts": LENGTHS, "seed": 0, "cache_dir": None, **changes}
    return context_templates(lm, **fields)  # type: ignore[arg-type]


class TestSampled:
    def test_the_identity_and_as_many_as_asked_for(self, tiny_gpt2: LanguageModel) -> None:
        identity, *others = templates(tiny_gpt2)
        assert identity == "{}"
        assert len(others) == 5
        assert len(set(others)) == 5
        assert all(text.endswith(". {}") and text.count("{}") == 1 for text in others)
        assert "<|endoftext|>" not in "".join(others)

    def test_lengths_count_the_end_of_text_token(
        self, tiny_gpt2: LanguageModel, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """docs/method.md §3.2: 4 and 9 new tokens."""
        asked: list[tuple[list[str], int]] = []

        def generate(lm, prompts, *, sampler, seeds):  # type: ignore[no-untyped-def]
            asked.append((list(prompts), sampler.max_length))
            assert len(set(seeds)) == len(prompts)
            return ["text"] * len(prompts)

        monkeypatch.setattr(contexts, "generate", generate)
        assert templates(tiny_gpt2) == ("{}", *["text. {}"] * 5)
        assert asked == [([""] * 3, 5), ([""] * 2, 10)]

    def test_by_seed(self, tiny_gpt2: LanguageModel) -> None:
        assert templates(tiny_gpt2) == templates(tiny_gpt2)
        assert not set(templates(tiny_gpt2)[1:]) & set(templates(tiny_gpt2, seed=1)[1:])

    def test_the_number_of_others_does_not_matter(self, tiny_gpt2: LanguageModel) -> None:
        assert templates(tiny_gpt2, length_counts=((5, 1), (10, 2)))[1:] == (
            *templates(tiny_gpt2)[1:2],
            *templates(tiny_gpt2)[4:],
        )

    @pytest.mark.parametrize("text", ["a {} b", "a {{}} b", "{{{}}}", "{}"])
    def test_sampled_braces_are_not_taken_for_the_prompts_place(
        self, tiny_gpt2: LanguageModel, monkeypatch: pytest.MonkeyPatch, text: str
    ) -> None:
        monkeypatch.setattr(contexts, "generate", lambda lm, prompts, **_: [text] * len(prompts))
        for template in templates(tiny_gpt2)[1:]:
            assert template.count("{}") == 1
            assert template.endswith(". {}")


class TestKept:
    def test_sampled_once(self, tiny_gpt2: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        first = templates(tiny_gpt2, cache_dir=tmp_path)
        assert first == templates(tiny_gpt2)
        (file,) = (tmp_path / "context_templates").glob("*.json")
        assert tuple(json.loads(file.read_text())) == first

        def fail(*_: object, **__: object) -> list[str]:
            raise AssertionError("sampled again")

        monkeypatch.setattr(contexts, "generate", fail)
        assert templates(tiny_gpt2, cache_dir=tmp_path) == first
        with pytest.raises(AssertionError, match="sampled again"):
            templates(tiny_gpt2)

    def test_jobs_that_start_together_sample_once(
        self, tiny_gpt2: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        calls: list[int] = []

        def slow(lm: LanguageModel, prompts: list[str], **_: object) -> list[str]:
            calls.append(len(prompts))
            time.sleep(0.3)
            return [f"Text {len(calls)}"] * len(prompts)

        monkeypatch.setattr(contexts, "generate", slow)
        with ThreadPoolExecutor(2) as pool:
            found = list(pool.map(lambda _: templates(tiny_gpt2, cache_dir=tmp_path), range(2)))
        assert found[0] == found[1]
        together = len(calls)
        templates(tiny_gpt2)
        assert len(calls) == 2 * together, "as many as one job alone makes"

    def test_by_everything_that_affects_them(
        self, tiny_gpt2: LanguageModel, tiny_factory: Callable[..., LanguageModel], tmp_path: Path
    ) -> None:
        other = tiny_factory("gpt2")
        with torch.no_grad():
            other.parameter("transformer.h.0.mlp.c_fc.bias")[0] += 1
        expected = [
            templates(tiny_gpt2),
            templates(other),
            templates(tiny_gpt2, seed=1),
            templates(tiny_gpt2, length_counts=((5, 3), (9, 2))),
        ]
        for _ in range(2):
            assert expected == [
                templates(tiny_gpt2, cache_dir=tmp_path),
                templates(other, cache_dir=tmp_path),
                templates(tiny_gpt2, seed=1, cache_dir=tmp_path),
                templates(tiny_gpt2, length_counts=((5, 3), (9, 2)), cache_dir=tmp_path),
            ]
        assert len(list((tmp_path / "context_templates").glob("*.json"))) == 4


class TestGiven:
    def test_as_a_list_or_a_file(self, tiny_gpt2: LanguageModel, tmp_path: Path) -> None:
        given = ("{}", "One. {}", "Zürich is {{. {}")
        file = tmp_path / "contexts.json"
        file.write_text(json.dumps(given), encoding="utf-8")
        assert templates(tiny_gpt2, given=list(given)) == given
        assert templates(tiny_gpt2, given=str(file), cache_dir=tmp_path / "none") == given
        assert not (tmp_path / "none").exists()

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("[", "not JSON"),
            ('{"a": "{}"}', "expected a list of texts"),
            ('"{}"', "expected a list of texts"),
            ("[]", "expected a list of texts"),
            ('["{}", 3]', "expected a list of texts"),
            ('["{}", "no place"]', "exactly one '{}'"),
            ('["{}", "{} and {}"]', "exactly one '{}'"),
            ('["{}", "joined.{}"]', r"entry 1, 'joined\.\{\}': a space must stand before"),
            ('["One. {}", "{}"]', r"the first entry must be '\{\}', the bare prompt; got 'One\. \{\}'"),
        ],
    )
    def test_a_file_of_something_else(self, tiny_gpt2: LanguageModel, tmp_path: Path, text: str, message: str) -> None:
        file = tmp_path / "contexts.json"
        file.write_text(text)
        with pytest.raises(ConfigError, match=rf"editor\.context_templates \(.*contexts\.json\): .*{message}"):
            templates(tiny_gpt2, given=str(file))

    def test_no_such_file(self, tiny_gpt2: LanguageModel, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=r"nowhere\.json\): cannot be read \(No such file"):
            templates(tiny_gpt2, given=str(tmp_path / "nowhere.json"))

    def test_a_bad_list(self, tiny_gpt2: LanguageModel) -> None:
        with pytest.raises(ConfigError, match=r"editor\.context_templates: expected a list"):
            templates(tiny_gpt2, given=[])


@pytest.mark.parametrize("content", [b"", b"{}", b'["{}"]', b"\xff", b"[" * 9000, b'["{}", 5]'])
def test_a_damaged_file_of_the_cache_is_made_again(
    tiny_gpt2: LanguageModel, tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    kept = templates(tiny_gpt2, cache_dir=tmp_path)
    (file,) = tmp_path.rglob("*.json")
    whole = file.read_bytes()
    file.write_bytes(content)
    assert templates(tiny_gpt2, cache_dir=tmp_path) == kept
    assert file.read_bytes() == whole
    assert "damaged: it is made again" in caplog.text


def test_a_file_of_the_user_is_never_made_again(tiny_gpt2: LanguageModel, tmp_path: Path) -> None:
    (tmp_path / "own.json").write_bytes(b"\xff")
    with pytest.raises(ConfigError, match=r"editor.context_templates .*own.json.*not JSON"):
        templates(tiny_gpt2, given=str(tmp_path / "own.json"))
    assert (tmp_path / "own.json").read_bytes() == b"\xff"
