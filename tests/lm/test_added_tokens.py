"""What a tokenizer adds to a text is no text: special tokens after it, and a word mark before it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, get_args

import pytest
import torch
from conftest import make_tokenizer
from odd_tokenizers import END, ENDINGS, MARKINGS, ending, marking, with_tokenizer

from romexp.editors.kn.texts import fact_texts
from romexp.editors.targets import edit_text
from romexp.editors.values.texts import edit_texts
from romexp.facts import EditRequest, fill
from romexp.learning.self_sampled import self_sampled_edit
from romexp.lm.added_tokens import adds_word_marks, special_ids
from romexp.lm.model import LanguageModel
from romexp.lm.packing import Query
from romexp.lm.sampling import Sampler, generate
from romexp.lm.scoring import score, text_nlls
from romexp.lm.tokens import FactToken, bare_ids, encode, lookup_index, subject_range, token_ids
from romexp.stats.fit import fit
from romexp.tracing.noise import embedding_std
from romexp.tracing.prompt import prepare_prompts

TEXT = "The mother tongue of Danielle Darrieux is French"
PROMPT, SUBJECT = "The mother tongue of Danielle Darrieux is", "Danielle Darrieux"
REQUEST = EditRequest(subject=SUBJECT, prompt="The mother tongue of {} is", target_new="Swiss", target_true="French")
TEXTS = ["Steve Jobs was the founder of Apple.", "", "Paris"]


@pytest.mark.parametrize("kind", ENDINGS)
class TestSpecialTokensAfterATextAreNoText:
    def test_they_are_left_out(self, kind: str) -> None:
        plain, odd = make_tokenizer(), ending(kind)
        assert odd(TEXT)["input_ids"][-1] == odd.eos_token_id  # the control: the tokenizer does put one there
        begin = [odd.convert_tokens_to_ids("<s>")] if kind != "end" else []
        for text in [TEXT, "", f"a{END}", END]:
            (own,), (expected,) = encode(odd, [text]), encode(plain, [text])
            assert list(own.ids) == begin + list(expected.ids)
            assert own.offsets[len(begin) :] == expected.offsets
            assert own.special == len(begin)
            assert token_ids(odd, [text], max_tokens=3) == [list(own.ids[:3])]
        before, after = special_ids(odd)
        assert list(before) == begin
        assert set(after) == {odd.eos_token_id}
        assert bare_ids(odd, TEXT) == bare_ids(plain, TEXT)

    def test_everything_is_as_with_a_tokenizer_that_puts_none_there(self, tiny_gpt2: LanguageModel, kind: str) -> None:
        """Each part that reads texts, beside a tokenizer that differs in nothing else."""
        odd = with_tokenizer(tiny_gpt2, ending(kind))
        plain = with_tokenizer(tiny_gpt2, make_tokenizer() if kind == "end" else make_tokenizer(bos=True))
        for name, read in READERS.items():
            assert read(odd) == read(plain), name

    def test_caches_know_the_difference(self, tiny_gpt2: LanguageModel, kind: str) -> None:
        """What was measured while these tokens counted as text is not used again."""
        odd = with_tokenizer(tiny_gpt2, ending(kind))
        object.__setattr__(odd, "special_ids", (odd.special_ids[0], ()))
        assert odd.digest != with_tokenizer(tiny_gpt2, ending(kind)).digest


def _sampled(lm: LanguageModel) -> list[str]:
    texts = generate(lm, ["Paris is", "Anna"], sampler=Sampler(max_length=12), seeds=[1, 2])
    assert END not in "".join(map(str, texts))
    return texts  # type: ignore[return-value]


def _moment(lm: LanguageModel) -> list[float]:
    fitters, _ = fit(lm, iter(TEXTS), layers=[1], max_tokens=6, batch_tokens=64, dtype=torch.float64)
    moment = fitters[1].result({})
    return [moment.count, *moment.matrix.flatten()[:50].tolist()]


def _trace(lm: LanguageModel) -> tuple[Any, ...]:
    (prompt,) = prepare_prompts(lm, [PROMPT], [SUBJECT])
    return prompt.ids, prompt.subject_range, prompt.answer, prompt.high_score  # type: ignore[union-attr]


READERS: dict[str, Callable[[LanguageModel], Any]] = {
    "scores": lambda lm: score(lm, [Query(prompt=PROMPT, targets=("French", "Swiss German"))]),
    "nlls of texts": lambda lm: text_nlls(lm, TEXTS),
    "sampled texts": _sampled,
    "traced prompts": _trace,
    "σ of the noise": lambda lm: embedding_std(lm, [SUBJECT, "Anna"]),
    "second moment": _moment,
    "ROME's texts": lambda lm: edit_texts(lm, [REQUEST], ["{}", "Hello. {}"], fact_token="last"),
    "texts of other editors": lambda lm: edit_text(lm, PROMPT, "French"),
    "KN's texts": lambda lm: fact_texts(lm, [REQUEST], ["{}"], leading_space=True, extend_prompt=False),
    "training texts": lambda lm: self_sampled_edit(lm, TEXT, 3),
}


@pytest.mark.parametrize("kind", MARKINGS)
class TestAWordMarkBeforeATextIsNoText:
    @pytest.mark.parametrize("subject", ["京都", "Ω🎻é", "Paris", "Steve Jobs"])
    @pytest.mark.parametrize("template", ["{} is in", "It is {} and it is"])
    def test_the_first_token_of_a_subject_shows_something(self, kind: str, subject: str, template: str) -> None:
        tokenizer = marking(kind)
        text = fill(template, subject)
        (encoding,) = encode(tokenizer, [text])
        at = lookup_index(encoding, template, subject, fact_token="subject_first", prompt_end=len(text))
        token = tokenizer.convert_ids_to_tokens(encoding.ids[at])
        assert token not in ("▁", "Ġ")
        begin, end = subject_range(encoding, template.index("{}"), subject)
        assert begin == at
        rest = [tokenizer.convert_ids_to_tokens(i) for i in (*encoding.ids[:begin], *encoding.ids[end:])]
        outside = "".join(token for token in rest if token not in ("<s>", "</s>"))
        assert outside.replace("▁", "").replace("Ġ", "") == template.replace("{}", "", 1).replace(" ", "")

    def test_the_mark_is_a_token_of_its_own(self, kind: str) -> None:
        """The control: without care it would be the first token that overlaps the subject's characters."""
        tokenizer = marking(kind)
        raw = tokenizer("京都 is", return_offsets_mapping=True)
        first = int(kind == "llama")
        assert tokenizer.convert_ids_to_tokens(raw["input_ids"][first]) in ("▁", "Ġ")
        assert raw["offset_mapping"][first] == (0, 1)
        assert adds_word_marks(tokenizer)
        assert not adds_word_marks(make_tokenizer())

    def test_other_positions_stay(self, kind: str) -> None:
        tokenizer = marking(kind)
        template, text = "{} is in", "京都 is in"
        (encoding,) = encode(tokenizer, [text])
        names: tuple[FactToken, ...] = get_args(FactToken)
        at = {n: lookup_index(encoding, template, "京都", fact_token=n, prompt_end=len(text)) for n in names}
        assert encoding.offsets[at["subject_last"]] == (1, 2)
        assert encoding.offsets[at["last"]][1] == len(text)

    def test_a_mark_in_the_text_itself_stays(self, kind: str) -> None:
        """A space that is a token of its own, or the character itself, has its place in the text."""
        (encoding,) = encode(marking(kind), ["Paris 京"])
        spaces = [offsets for offsets in encoding.offsets if encoding.text[slice(*offsets)] == " "]
        assert spaces in ([(5, 6)], [])
        assert {i for a, b in encoding.offsets for i in range(a, b)} == set(range(len(encoding.text)))
