"""What a model adds to a data set: unrelated sentences, which facts it knows, and which objects are one token."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal

from romexp.data.building.drafts import Draft
from romexp.data.building.records import Record
from romexp.data.building.triples import Object
from romexp.errors import RecordError
from romexp.facts import fill
from romexp.lm.greedy import continue_greedily
from romexp.lm.model import LanguageModel
from romexp.lm.packing import Query
from romexp.lm.sampling import Sampler, generate
from romexp.lm.scoring import score
from romexp.lm.tokens import bare_ids, encode
from romexp.seeds import derive_seed

BATCH = 256
"""Records that are scored at the same time."""
LONGEST_KNOWN = 12
"""Tokens that the model may write before it names the object, and while it does."""
_STEP = 3
_SENTENCE_TOKENS = 40
_WORD = re.compile(r"[^\W\d_][\w'’-]*")

Knowledge = Literal["greedy", "likelier"]


def write_sentences(lm: LanguageModel, count: int, *, seed: int) -> list[str]:
    """Sentences that the model writes from nothing, as the paper puts before paraphrases.

    Each is the first whole sentence of a text of its own. Texts without one are left out, and repeats.
    """
    sampler = Sampler(max_length=_SENTENCE_TOKENS, top_k=50)
    seeds = [derive_seed(seed, number, "sentence") for number in range(count)]
    texts = generate(lm, [""] * count, sampler=sampler, seeds=seeds, stop_at_end=True)
    found = (first_sentence(text) for text in texts if not isinstance(text, RecordError))
    return list(dict.fromkeys(sentence for sentence in found if sentence))


def first_sentence(text: str) -> str:
    """The first sentence of three words or more that ends with a full stop; empty if there is none.

    >>> first_sentence("1. It has rained since noon. And")
    'It has rained since noon.'
    """
    for part in re.split(r"(?<=[.!?])\s+", " ".join(text.split())):
        if part.endswith(".") and len(part.split()) >= 3:
            return part
    return ""


def one_token_objects(lm: LanguageModel, objects: Sequence[Object]) -> frozenset[str]:
    """The keys of the objects that are a single token after a space."""
    return frozenset(each.key for each in objects if len(bare_ids(lm.tokenizer, f" {each.name}")) == 1)


def unknown_drafts(lm: LanguageModel, drafts: Iterable[Draft], *, known: Knowledge) -> Iterator[list[int]]:
    """The ids of drafts whose fact the model does not know, batch by batch.

    With teacher forcing, the most likely token at each place of the true object is its own token if and only if greedy
    decoding gives the object.
    """
    following = iter(drafts)
    while batch := list(itertools.islice(following, BATCH)):
        found = score(lm, [_query(draft.record) for draft in batch])
        yield [
            draft.id
            for draft, scores in zip(batch, found, strict=True)
            if isinstance(scores, RecordError) or not _knows(scores, known)
        ]


def _query(record: Record) -> Query:
    rewrite = record["requested_rewrite"]
    targets = (rewrite["target_true"]["str"], rewrite["target_new"]["str"])
    return Query(prompt=fill(rewrite["prompt"], rewrite["subject"]), targets=targets)


def _knows(scores: Sequence[Any], known: Knowledge) -> bool:
    true, new = scores
    return bool(true.predictions == true.token_ids) if known == "greedy" else bool(true.nll < new.nll)


def known_facts(lm: LanguageModel, records: Iterable[Record]) -> Iterator[Record]:
    """The facts that the model states, in the schema of `known_1000.json`.

    The paper's rule: the first capitalized word of the greedy continuation of the prompt begins the true object.
    """
    following, number = iter(records), itertools.count()
    while batch := list(itertools.islice(following, BATCH)):
        answers = [record["requested_rewrite"]["target_true"]["str"] for record in batch]
        prompts = [fill(r["requested_rewrite"]["prompt"], r["requested_rewrite"]["subject"]) for r in batch]
        for record, prompt, answer, said in zip(batch, prompts, answers, _said(lm, prompts, answers), strict=True):
            rewrite = record["requested_rewrite"]
            if (before := words_before(said, answer)) is not None:
                yield {
                    "known_id": next(number),
                    "subject": rewrite["subject"],
                    "attribute": answer,
                    "template": rewrite["prompt"],
                    "prediction": said,
                    "prompt": f"{prompt}{before}",
                    "relation_id": rewrite["relation_id"],
                }


def _said(lm: LanguageModel, prompts: Sequence[str], answers: Sequence[str]) -> list[str]:
    """The greedy continuation of each prompt, as far as it decides whether it names the answer."""
    starts = [encoding.ids for encoding in encode(lm.tokenizer, prompts)]
    grown, said, open_places = list(starts), [""] * len(starts), list(range(len(starts)))
    for _ in range(0, LONGEST_KNOWN, _STEP):
        longer = continue_greedily(lm, [(grown[i], _STEP) for i in open_places])
        for i, ids in zip(open_places, longer, strict=True):
            grown[i] = ids
            said[i] = str(lm.tokenizer.decode(list(ids[len(starts[i]) :]), clean_up_tokenization_spaces=False))
        open_places = [i for i in open_places if not _is_decided(said[i], answers[i])]
        if not open_places:
            break
    return said


def _is_decided(said: str, answer: str) -> bool:
    """Whether a capitalized word has begun that is not the answer, or is more than the answer."""
    first = next((match.start() for match in _WORD.finditer(said) if match[0][0].isupper()), None)
    return first is not None and not answer.startswith(said[first:])


def words_before(said: str, answer: str) -> str | None:
    """What stands before the answer in a continuation, if its first capitalized word begins the answer; else None.

    >>> words_before(" the city of Rome, which", "Rome"), words_before(" Paris, not Rome", "Rome")
    (' the city of', None)
    """
    first = next((match.start() for match in _WORD.finditer(said) if match[0][0].isupper()), None)
    if first is None or not said.startswith(answer, first) or said[:first][-1:] != " ":
        return None
    after = said[first + len(answer) :]
    return said[: first - 1] if not after or not (after[0].isalnum() or after[0] == "_") else None
