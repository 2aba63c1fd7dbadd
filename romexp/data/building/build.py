"""From triples and templates to records, without a model: reads the facts, then makes a draft of each record."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Literal

from romexp.data.building.drafts import Drafts
from romexp.data.building.draws import ObjectDraw, SubjectDraw
from romexp.data.building.records import RecordMaker, Sizes
from romexp.data.building.relations import Relation
from romexp.data.building.triples import Object, TripleStore

Usable = Callable[[Sequence[Object]], Collection[str]]
"""Tells of some objects which may be answers of an edit, by their keys."""


def make_drafts(
    store: TripleStore,
    relations: Mapping[str, Relation],
    folder: Path,
    *,
    sizes: Sizes,
    weights: Literal["frequency", "uniform"],
    sentences: Sequence[str],
    seed: int,
    usable: Usable | None = None,
    report: Callable[[int], None] = lambda done: None,
) -> tuple[Drafts, Counter[str]]:
    """Make a draft of a record for each fact; return them with how many facts were dropped, by reason.

    Args:
        folder: an existing folder for the files of the drafts.
        weights: how often each object is drawn as the new one.
        sentences: what paraphrases are put behind; may be empty.
        usable: which objects may be answers; None allows all.
        report: is called with the number of facts that were worked on.
    """
    drafts, counts, done = Drafts(folder), Counter[str](), 0
    subjects = SubjectDraw(store=store)
    for name, relation in sorted(relations.items()):
        objects = store.objects(name)
        allowed = None if usable is None else usable(objects)
        drawable = [each for each in objects if allowed is None or each.key in allowed]
        make = RecordMaker(
            name=name,
            relation=relation,
            objects={each.key: each for each in objects},
            usable=allowed,
            draw_object=ObjectDraw(objects=drawable, weights=weights),
            draw_subjects=subjects,
            sizes=sizes,
            sentences=sentences,
            seed=seed,
        )
        for fact in store.facts(name):
            true = store.true_objects(name, fact.subject_key) if relation.several else {fact.object_key}
            if (made := make(fact, true, counts)) is not None:
                drafts.add(made[0], fact.split, made[1])
            done += 1
            report(done)
    drafts.finish()
    return drafts, counts
