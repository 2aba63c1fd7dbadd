"""Positions come from character offsets on the whole text: with and without a BOS, whatever the characters."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest
import torch
from conftest import make_tokenizer
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from romexp.errors import RecordError
from romexp.facts import fill
from romexp.lm.tokens import Encoding, FactToken, encode, lookup_index, pad, subject_range
from romexp.subjects import find_subject

FACT_TOKENS: tuple[FactToken, ...] = get_args(FactToken)


@pytest.fixture(scope="module", params=[False, True], ids=["plain", "bos"])
def tokenizer(request: pytest.FixtureRequest) -> PreTrainedTokenizerBase:
    return make_tokenizer(bos=request.param)


def spans(tokenizer: PreTrainedTokenizerBase, text: str, subject: str) -> tuple[list[str], list[str], list[str]]:
    """The texts of the tokens before, in and after the subject; special tokens left out."""
    (encoding,) = encode(tokenizer, [text])
    begin, end = subject_range(encoding, find_subject(text, subject), subject)
    special = set(tokenizer.all_special_ids)
    parts = encoding.ids[:begin], encoding.ids[begin:end], encoding.ids[end:]
    names = [[tokenizer.convert_ids_to_tokens(i).replace("Ġ", " ") for i in part if i not in special] for part in parts]
    return names[0], names[1], names[2]


@pytest.mark.parametrize(
    ("text", "subject", "before", "inside", "after"),
    [
        ("Steve Jobs was", "Steve Jobs", "", "Steve Jobs", " was"),
        ("The founder was Steve Jobs", "Steve Jobs", "The founder was", " Steve Jobs", ""),
        ("Steve Jobs", "Steve Jobs", "", "Steve Jobs", ""),
        ("Anna, Bob and Anna", "Anna", "", "Anna", ", Bob and Anna"),
        ("In Paris, Paris is", "Paris", "In", " Paris", ", Paris is"),
        ("Paris's river", "Paris", "", "Paris", "'s river"),
        ('He said "Paris" is', "Paris", 'He said "', "Paris", '" is'),
        ("The (Paris) is", "Paris", "The (", "Paris", ") is"),
        ("The  Paris is", "Paris", "The ", " Paris", " is"),
        ("Paris\nis", "Paris", "", "Paris", "\nis"),
    ],
)
def test_span(
    tokenizer: PreTrainedTokenizerBase, text: str, subject: str, before: str, inside: str, after: str
) -> None:
    got = tuple("".join(part).replace("Ċ", "\n") for part in spans(tokenizer, text, subject))
    assert got == (before, inside, after)


@pytest.mark.parametrize("subject", ["Zürich", "Édouard Zoë", "京都", "🎻", "Ω🎻é", "Zoe\u0308"])
@pytest.mark.parametrize("frame", ["{} is", "It is {}", "a🎻 {} 🎻b", "«{}»"])
def test_characters_spread_over_tokens_belong_whole(
    tokenizer: PreTrainedTokenizerBase, subject: str, frame: str
) -> None:
    text = fill(frame, subject)
    start = frame.index("{}")
    (encoding,) = encode(tokenizer, [text])
    begin, end = subject_range(encoding, start, subject)
    assert tokenizer.decode(encoding.ids[begin:end]).strip() == subject
    rest = encoding.ids[:begin], encoding.ids[end:]
    outside = "".join(tokenizer.decode(part, skip_special_tokens=True) for part in rest)
    assert outside.replace(" ", "") == frame.replace("{}", "").replace(" ", "")


def test_the_bos_shifts_every_position_by_one() -> None:
    text = "The mother tongue of Danielle Darrieux is"
    plain, bos = (encode(make_tokenizer(bos=b), [text])[0] for b in (False, True))
    assert len(bos) == len(plain) + 1
    start = text.index("Danielle")
    one, other = (subject_range(e, start, "Danielle Darrieux") for e in (plain, bos))
    assert other == (one[0] + 1, one[1] + 1)
    template = text.replace("Danielle Darrieux", "{}")
    for fact_token in FACT_TOKENS:
        a, b = (
            lookup_index(e, template, "Danielle Darrieux", fact_token=fact_token, prompt_end=len(text))
            for e in (plain, bos)
        )
        assert b == a + 1


def test_a_token_that_runs_on_belongs_to_the_subject() -> None:
    """As with GPT-2's "!," in "Comic High!, created in": there is no token of the subject's end alone."""
    encoding = Encoding(text="High!, in", ids=(1, 2, 3), offsets=((0, 4), (4, 6), (6, 9)))
    assert subject_range(encoding, 0, "High!") == (0, 2)


def test_space_around_a_subject_is_not_the_subjects(tokenizer: PreTrainedTokenizerBase) -> None:
    (encoding,) = encode(tokenizer, ["in   Paris   is"])
    assert subject_range(encoding, 2, "   Paris   ") == subject_range(encoding, 5, "Paris")


@pytest.mark.parametrize("subject", ["", " ", "\n"])
def test_an_empty_subject_is_an_error(tokenizer: PreTrainedTokenizerBase, subject: str) -> None:
    (encoding,) = encode(tokenizer, ["a text"])
    with pytest.raises(RecordError, match="has no tokens") as caught:
        subject_range(encoding, 1, subject)
    assert caught.value.field == "subject"
    with pytest.raises(RecordError, match="does not occur"):
        find_subject("a text", subject)


def test_an_absent_subject_is_an_error(tokenizer: PreTrainedTokenizerBase) -> None:
    with pytest.raises(RecordError, match="subject 'Rome' does not occur in 'Paris is'"):
        find_subject("Paris is", "Rome")
    (encoding,) = encode(tokenizer, ["Paris is"])
    with pytest.raises(RecordError, match="has no tokens"):
        subject_range(encoding, 100, "Rome")


def test_find_subject_takes_the_first() -> None:
    assert find_subject("In Paris, Paris", "Paris") == 3


class TestLookupIndex:
    TEMPLATE, SUBJECT = "the founder {} was born in", "Steve Jobs"

    @pytest.mark.parametrize(
        ("fact_token", "inside"),
        [
            ("subject_first", "S"),
            ("subject_last", "Steve Jobs"),
            ("subject_first_after_last", "Steve Jobs was"),
            ("last", "Steve Jobs was born in"),
        ],
    )
    def test_names_what_it_says(self, tokenizer: PreTrainedTokenizerBase, fact_token: FactToken, inside: str) -> None:
        """The text up to and including that token, from the subject on."""
        text = fill(self.TEMPLATE, self.SUBJECT)
        (encoding,) = encode(tokenizer, [text])
        at = lookup_index(encoding, self.TEMPLATE, self.SUBJECT, fact_token=fact_token, prompt_end=len(text))
        assert text[text.index("Steve") : encoding.offsets[at][1]] == inside

    def test_a_forced_target_is_not_the_prompt(self, tokenizer: PreTrainedTokenizerBase) -> None:
        """The reference reads a target token or padding here (docs/method.md §3.4)."""
        text = fill(self.TEMPLATE, self.SUBJECT)
        alone, forced = encode(tokenizer, [text, text + " San Francisco"])
        for fact_token in FACT_TOKENS:
            one, other = (
                lookup_index(e, self.TEMPLATE, self.SUBJECT, fact_token=fact_token, prompt_end=len(text))
                for e in (alone, forced)
            )
            assert one == other
        assert len(forced) > len(alone)

    def test_after_a_subject_that_ends_the_prompt(self, tokenizer: PreTrainedTokenizerBase) -> None:
        """There is no token after it: the subject's last serves."""
        text = "Who is Steve Jobs"
        (encoding,) = encode(tokenizer, [text + " anyway"])
        after, last_of_subject, last = (
            lookup_index(encoding, "Who is {}", "Steve Jobs", fact_token=f, prompt_end=len(text))
            for f in ("subject_first_after_last", "subject_last", "last")
        )
        assert after == last_of_subject == last

    def test_other_braces_stay(self, tokenizer: PreTrainedTokenizerBase) -> None:
        template = "In {x} the {} was"
        text = fill(template, "Paris")
        (encoding,) = encode(tokenizer, [text])
        at = lookup_index(encoding, template, "Paris", fact_token="subject_last", prompt_end=len(text))
        assert text[: encoding.offsets[at][1]] == "In {x} the Paris"


class TestEncodeAndPad:
    def test_batching_changes_no_encoding(self, tokenizer: PreTrainedTokenizerBase) -> None:
        texts = ["Paris", "The Eiffel Tower is located in", "🎻"]
        assert encode(tokenizer, texts) == [encode(tokenizer, [t])[0] for t in texts]
        assert encode(tokenizer, []) == []

    def test_first_token_after(self, tokenizer: PreTrainedTokenizerBase) -> None:
        (encoding,) = encode(tokenizer, ["The Eiffel Tower is"])
        at = encoding.first_token_after(len("The Eiffel") - 1)
        assert encoding.offsets[at][1] >= len("The Eiffel")
        assert encoding.offsets[at - 1][1] < len("The Eiffel")
        assert encoding.first_token_after(1000) == len(encoding)

    def test_pad(self) -> None:
        batch = pad([[7, 8, 9], [5], []], pad_id=1, device=torch.device("cpu"))
        assert batch.input_ids.tolist() == [[7, 8, 9], [5, 1, 1], [1, 1, 1]]
        assert batch.attention_mask.tolist() == [[1, 1, 1], [1, 0, 0], [0, 0, 0]]
        assert batch.position_ids.tolist() == [[0, 1, 2], [0, 0, 0], [0, 0, 0]]
        assert batch.lengths.tolist() == [3, 1, 0]

    def test_padding_does_not_change_logits(self, tiny_lm) -> None:  # type: ignore[no-untyped-def]
        rows = [[5, 6, 300, 7, 8], [9, 10]]
        batch = pad(rows, pad_id=tiny_lm.tokenizer.pad_token_id, device=tiny_lm.device)
        with torch.no_grad():
            together = tiny_lm.model(**batch.inputs()).logits
            for i, row in enumerate(rows):
                alone = tiny_lm.model(input_ids=torch.tensor([row])).logits[0]
                torch.testing.assert_close(together[i, : len(row)], alone, atol=1e-4, rtol=1e-4)


class TestRealRecords:
    """GPT-2's own tokenizer on every record at hand."""

    @pytest.fixture
    def gpt2(self, shared: Path) -> PreTrainedTokenizerBase:
        return AutoTokenizer.from_pretrained(shared / "data" / "gpt2_tokenizer")

    @staticmethod
    def templates(folder: Path, name: str) -> Iterator[tuple[str, str]]:
        """(template with one `{}`, subject) of each record."""
        for record in json.loads((folder / name).read_text()):
            if name.startswith("counterfact"):
                yield record["requested_rewrite"]["prompt"], record["requested_rewrite"]["subject"]
            elif name.startswith("zsre"):
                yield record["src"].replace(record["subject"], "{}"), record["subject"]
            else:
                start = find_subject(record["prompt"], record["subject"])
                yield (
                    record["prompt"][:start] + "{}" + record["prompt"][start + len(record["subject"]) :],
                    record["subject"],
                )

    @staticmethod
    def reference(tokenizer: PreTrainedTokenizerBase, template: str, subject: str) -> dict[str, int]:
        """docs/method.md §3.4: prefix, subject and suffix tokenized separately."""
        prefix, suffix = template.split("{}")
        if prefix:
            assert prefix.endswith(" ")
            prefix, subject = prefix[:-1], " " + subject.strip(" ")
        p, s, x = (len(tokenizer(part)["input_ids"]) for part in (prefix, subject, suffix))
        return {
            "subject_first": p,
            "subject_last": p + s - 1,
            "subject_first_after_last": p + s if x else p + s - 1,
            "last": p + s + x - 1,
        }

    @pytest.mark.parametrize(
        ("file", "records", "run_on"),
        [("known_1000.json", 1209, 1), ("counterfact_rebuilt_2000.json", 2000, 3), ("zsre_train_1000.json", 1000, 8)],
    )
    def test_spans_and_indices(
        self, shared: Path, gpt2: PreTrainedTokenizerBase, file: str, records: int, run_on: int
    ) -> None:
        """Spans decode to the subjects, and indices are the reference's, but where a token runs on past the subject.

        GPT-2 has tokens such as "!," and ")?". Cut at the subject's end there are two, so that the reference counts one
        too many for what comes after ("Goin' Ape!?" gives it an index past the end of the text). Subject tokens agree
        everywhere.
        """
        cases = list(self.templates(shared / "data", file))
        encodings = encode(gpt2, [fill(template, subject) for template, subject in cases])
        running_on, differing = set(), set()
        for (template, subject), encoding in zip(cases, encodings, strict=True):
            begin, end = subject_range(encoding, template.index("{}"), subject)
            decoded = gpt2.decode(encoding.ids[begin:end]).removeprefix(" ")
            if decoded != subject:
                assert decoded[:-1] == subject
                running_on.add(encoding.text)
            expected = self.reference(gpt2, template, subject)
            for name in FACT_TOKENS:
                at = lookup_index(encoding, template, subject, fact_token=name, prompt_end=len(encoding.text))
                if at != expected[name]:
                    assert name in ("subject_first_after_last", "last")
                    assert at == expected[name] - 1
                    differing.add(encoding.text)
        assert (len(cases), len(running_on)) == (records, run_on)
        assert differing <= running_on
