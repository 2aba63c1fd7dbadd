"""Finds the subject that symmetric token replacement puts in the place of a fact's own (docs/method.md §2.8): another
subject of the same relation, with equally many tokens and another answer.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice

from romexp.errors import DataError, RecordError, result_or_error
from romexp.facts import KnownFact, with_answer
from romexp.lm.model import LanguageModel
from romexp.lm.packing import target_start
from romexp.lm.tokens import Encoding, encode
from romexp.seeds import derive_seed
from romexp.subjects import find_subject
from romexp.tracing.prompt import Partner, TracedPrompt, prepare_prompts

CANDIDATES_AT_ONCE = 16
"""Subjects that are tokenized together. Most facts have a partner among the first few."""


def find_partners(
    lm: LanguageModel,
    facts: Sequence[KnownFact],
    prompts: Sequence[TracedPrompt],
    *,
    pool: Iterable[KnownFact],
    seed: int,
) -> list[TracedPrompt | RecordError]:
    """The prompts, each with its partner.

    Each fact draws its partner by the run's seed and its own number, so that it does not depend on other facts.

    Args:
        facts: the facts of the prompts.
        pool: the facts from which partners are taken: all of the data set, whatever part is traced.

    Returns:
        For each prompt a copy with its partner; or a `RecordError` if there is none.
    """
    relations: dict[str, list[KnownFact]] = {}
    for fact in pool:
        relations.setdefault(fact.relation_id, []).append(fact)

    def find(fact: KnownFact, prompt: TracedPrompt) -> TracedPrompt:
        if not fact.relation_id:
            raise RecordError("no relation_id, by which another subject could be found", field="relation_id")
        order = random.Random(derive_seed(seed, fact.known_id, "partner"))
        remaining = _candidates(fact, relations, order)
        while candidates := list(islice(remaining, CANDIDATES_AT_ONCE)):
            if (partner := _first_that_fits(lm, fact, prompt, candidates)) is not None:
                return replace(prompt, partner=partner)
        count = prompt.subject_range[1] - prompt.subject_range[0]
        tokens = "1 token" if count == 1 else f"{count} tokens"
        raise RecordError(
            f"no partner: no other subject of relation {fact.relation_id} has {tokens} and another answer",
            field="subject",
        )

    return [result_or_error(partial(find, fact, prompt)) for fact, prompt in zip(facts, prompts, strict=True)]


def sentence_partner(lm: LanguageModel, prompt: TracedPrompt, subject: str) -> TracedPrompt:
    """A single sentence with the partner that the user names. The foil is what the model says of this subject.

    Raises:
        DataError: the subject has another number of tokens there, or the model says the same of both.
    """
    swapped = _swapped(prompt, subject.strip(), template="")
    try:
        (encoding,) = encode(lm.tokenizer, [swapped])
        ids = _replacement(prompt, encoding)
    except RecordError as error:
        raise DataError(f"partner {subject!r}: {error.reason}") from error
    (found,) = prepare_prompts(lm, [swapped], [subject])
    if isinstance(found, RecordError):
        raise DataError(f"partner {subject!r}: {found.reason}")
    if found.answer == prompt.answer:
        raise DataError(f"partner {subject!r}: the model answers {prompt.answer_text(lm)!r} for both subjects")
    return replace(prompt, partner=Partner(subject=subject, ids=ids, foil=found.answer))


def _candidates(
    fact: KnownFact, relations: Mapping[str, Sequence[KnownFact]], order: random.Random
) -> Iterator[tuple[str, str]]:
    """Subjects of the same relation with their answers, in random order; none that shares the fact's answer."""
    same = relations.get(fact.relation_id, ())
    own = fact.attribute.strip()
    sharing = {other.subject.strip() for other in same if other.attribute.strip() == own} | {fact.subject.strip()}
    pairs = list(dict.fromkeys((o.subject.strip(), o.attribute.strip()) for o in same if o.attribute.strip() != own))
    order.shuffle(pairs)
    yield from (pair for pair in pairs if pair[0] not in sharing)


def _first_that_fits(
    lm: LanguageModel, fact: KnownFact, prompt: TracedPrompt, candidates: Sequence[tuple[str, str]]
) -> Partner | None:
    texts = [_swapped(prompt, subject, template=fact.template) for subject, _ in candidates]
    whole = [with_answer(text, answer) for text, (_, answer) in zip(texts, candidates, strict=True)]
    encodings = encode(lm.tokenizer, [*texts, *whole])
    for i, (subject, _) in enumerate(candidates):
        answered = encodings[len(texts) + i]
        try:
            ids = _replacement(prompt, encodings[i])
            start = target_start(answered, len(texts[i]))
        except RecordError:
            continue
        # Before some answers a tokenizer splits the prompt in another way; then no logit of this prompt is the foil's.
        if answered.ids[:start] == encodings[i].ids and (foil := answered.ids[start]) != prompt.answer:
            return Partner(subject=subject, ids=ids, foil=foil)
    return None


def _swapped(prompt: TracedPrompt, subject: str, *, template: str) -> str:
    """The prompt's text with another subject in the place of its own."""
    place = find_subject(prompt.prompt, prompt.subject, template)
    return prompt.prompt[:place] + subject + prompt.prompt[place + len(prompt.subject.strip()) :]


def _replacement(prompt: TracedPrompt, encoding: Encoding) -> tuple[int, ...]:
    """The tokens that stand in the place of the subject's.

    Raises:
        RecordError: they are not equally many, or other tokens of the prompt changed too.
    """
    begin, end = prompt.subject_range
    ids = encoding.ids
    after = len(prompt.ids) - end
    if len(ids) != len(prompt.ids):
        wanted, found = end - begin, len(ids) - after - begin
        raise RecordError(f"expected a subject of {wanted} tokens, as {prompt.subject!r} has; found {found}")
    if ids[:begin] != prompt.ids[:begin] or ids[end:] != prompt.ids[end:] or ids == prompt.ids:
        raise RecordError("its tokens do not take the place of the subject's tokens alone")
    return ids[begin:end]
