"""Token replacement takes another subject of the same relation with as many tokens, drawn by the run's seed."""

from __future__ import annotations

import pytest

from romexp.data.known import KnownFacts
from romexp.errors import DataError, RecordError
from romexp.facts import KnownFact
from romexp.lm.model import LanguageModel
from romexp.lm.tokens import encode
from romexp.minifact import assets
from romexp.tracing.partners import find_partners, sentence_partner
from romexp.tracing.prompt import TracedPrompt, prepare_prompts


@pytest.fixture(scope="module")
def pool() -> list[KnownFact]:
    return list(KnownFacts(path=str(assets.known_path())).load().items)


def prompts_of(lm: LanguageModel, facts: list[KnownFact]) -> list[TracedPrompt]:
    return prepare_prompts(lm, [f.prompt for f in facts], [f.subject for f in facts])  # type: ignore[return-value]


def test_a_partner_fits_and_has_another_answer(minifact_lm: LanguageModel, pool: list[KnownFact]) -> None:
    facts = pool[:12]
    prompts = prompts_of(minifact_lm, facts)
    for fact, prompt in zip(facts, find_partners(minifact_lm, facts, prompts, pool=pool, seed=0), strict=True):
        assert isinstance(prompt, TracedPrompt)
        partner = prompt.partner
        assert partner is not None
        (same,) = {f.relation_id for f in pool if f.subject == partner.subject and f.relation_id == fact.relation_id}
        assert same == fact.relation_id
        (other,) = encode(minifact_lm.tokenizer, [fact.prompt.replace(fact.subject, partner.subject)])
        begin, end = prompt.subject_range
        assert other.ids == (*prompt.ids[:begin], *partner.ids, *prompt.ids[end:])
        answers = {f.attribute for f in pool if f.subject == partner.subject and f.relation_id == fact.relation_id}
        assert fact.attribute not in answers
        foil = str(minifact_lm.tokenizer.decode([partner.foil])).strip()
        assert any(answer.startswith(foil) for answer in answers)
        assert partner.foil != prompt.answer


def test_the_seed_decides_and_other_facts_do_not(minifact_lm: LanguageModel, pool: list[KnownFact]) -> None:
    facts = pool[:10]
    prompts = prompts_of(minifact_lm, facts)
    first = find_partners(minifact_lm, facts, prompts, pool=pool, seed=0)
    assert first[4:5] == find_partners(minifact_lm, facts[4:5], prompts[4:5], pool=pool, seed=0)
    assert first != find_partners(minifact_lm, facts, prompts, pool=pool, seed=1)


def test_facts_without_a_partner_are_named(minifact_lm: LanguageModel, pool: list[KnownFact]) -> None:
    facts = pool[:1]
    prompts = prompts_of(minifact_lm, facts)
    (alone,) = find_partners(minifact_lm, facts, prompts, pool=facts, seed=0)
    assert isinstance(alone, RecordError)
    assert alone.reason.startswith(f"no partner: no other subject of relation {facts[0].relation_id} has ")
    unrelated = [KnownFact(**{**vars(facts[0]), "relation_id": ""})]
    (nowhere,) = find_partners(minifact_lm, unrelated, prompts, pool=[*pool, *unrelated], seed=0)
    assert isinstance(nowhere, RecordError)
    assert nowhere.field == "relation_id"
    same = [f for f in pool if f.relation_id == facts[0].relation_id and f.attribute == facts[0].attribute]
    (equal,) = find_partners(minifact_lm, facts, prompts, pool=same, seed=0)
    assert isinstance(equal, RecordError), "a subject with the same answer corrupts nothing"


def test_the_partner_of_a_sentence(minifact_lm: LanguageModel, pool: list[KnownFact]) -> None:
    (prompt,) = prompts_of(minifact_lm, pool[:1])
    (drawn,) = find_partners(minifact_lm, pool[:1], [prompt], pool=pool, seed=0)
    assert isinstance(drawn, TracedPrompt)
    assert drawn.partner
    found = sentence_partner(minifact_lm, prompt, drawn.partner.subject)
    assert found.partner
    assert found.partner.ids == drawn.partner.ids
    with pytest.raises(DataError, match=r"expected a subject of \d tokens, as .* has; found \d"):
        sentence_partner(minifact_lm, prompt, "A Name Of Very Many Tokens Indeed")
    with pytest.raises(DataError, match="its tokens do not take the place"):
        sentence_partner(minifact_lm, prompt, pool[0].subject)
