"""Builds one data set: from triples and templates to the files of its folder."""

from __future__ import annotations

import itertools
import json
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from romexp.data.building.build import make_drafts
from romexp.data.building.by_products import TextStore, zsre_records
from romexp.data.building.card import SAMPLES, card
from romexp.data.building.composition import CompositionCounter
from romexp.data.building.drafts import Drafts
from romexp.data.building.records import Record, Sizes
from romexp.data.building.relations import Relation, read_relations
from romexp.data.building.triples import TripleStore
from romexp.errors import DataError
from romexp.files import replacing, write_text
from romexp.lm.model import LanguageModel
from romexp.tasks.dataset_model import known_facts, one_token_objects, unknown_drafts, write_sentences

if TYPE_CHECKING:
    from romexp.tasks.dataset import BuildDataset

CARD, COMPOSITION, KNOWN, SNIPPETS = "README.md", "composition.json", "known.json", "attribute_snippets.json"


@dataclass(kw_only=True)
class Build:
    """One build. `__call__` returns the summary: the composition, what was left out, and the files.

    Attributes:
        task: its settings.
        inputs: the files to read: `triples`, `templates`, and perhaps `texts` and `sentences`.
        seed: seed of every draw.
        lm: the model, if a setting needs it.
        out: the folder for the files.
    """

    task: BuildDataset
    inputs: Mapping[str, Path]
    seed: int
    lm: LanguageModel | None
    out: Path
    left_out: Counter[str] = field(default_factory=Counter)
    files: dict[str, str] = field(default_factory=dict)

    def __call__(self, report: Any) -> dict[str, Any]:
        relations = read_relations(self.inputs["templates"])
        with ExitStack() as stack:
            work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=".work.", dir=self.out)))
            store = TripleStore(work / "facts.sqlite")
            stack.callback(store.close)
            shares = list((self.task.splits or {"records": 1.0}).values())
            counts = store.read(
                self.inputs["triples"], relations, split_ends=list(itertools.accumulate(shares)), seed=self.seed
            )
            total = counts.pop("triples")
            self.left_out.update(counts)
            drafts, dropped = self._drafts(store, relations, work, lambda done: report(done, total))
            stack.callback(drafts.close)
            redrawn = dropped.pop("clashing objects drawn again", 0)
            self.left_out.update(dropped)
            self._select(drafts)
            if not drafts.count():
                raise DataError(f"{self.inputs['triples']}: no record is left; {self._reasons()}")
            composition, samples = self._write_records(drafts, relations)
            if "texts" in self.inputs:
                self._write_snippets(store, drafts, work)
        left_out = {reason: count for reason, count in self.left_out.items() if count}
        made_from: dict[str, Any] = {**self.inputs, "triples read": total, "new objects drawn again": redrawn}
        made_from |= {"seed": self.seed, "settings": self.task.settings()} | (
            {"model": self.lm.name} if self.lm else {}
        )
        self.files[COMPOSITION] = "the numbers below"
        write_text(self.out / COMPOSITION, json.dumps(composition, indent=1, ensure_ascii=False) + "\n")
        text = card(
            self.task.name,
            composition=composition,
            samples=samples,
            dropped=left_out,
            made_from=made_from,
            files=self.files,
            about=self._about(),
        )
        write_text(self.out / CARD, text)
        return {"composition": composition, "left_out": left_out, "files": self.files}

    def _drafts(
        self, store: TripleStore, relations: Mapping[str, Relation], work: Path, report: Any
    ) -> tuple[Drafts, Counter[str]]:
        task = self.task
        sizes = Sizes(
            neighbours=task.neighbours,
            least_neighbours=task.neighbours if task.least_neighbours is None else task.least_neighbours,
            attributes=task.attributes,
            paraphrases=task.paraphrases,
            generations=task.generations,
        )
        usable = partial(one_token_objects, self.lm) if task.one_token and self.lm else None
        return make_drafts(
            store,
            relations,
            work,
            sizes=sizes,
            weights=task.weights,
            sentences=self._sentences(),
            seed=self.seed,
            usable=usable,
            report=report,
        )

    def _sentences(self) -> list[str]:
        if self.task.sentences == "model" and self.lm:
            return write_sentences(self.lm, self.task.sentence_count, seed=self.seed)
        if "sentences" not in self.inputs:
            return []
        lines = self.inputs["sentences"].read_text(encoding="utf-8").splitlines()
        return list(dict.fromkeys(line.strip() for line in lines if line.strip()))

    def _about(self) -> str:
        """The user's text for the card, which may stand in a file."""
        text = self.task.about
        file = Path(text).expanduser()
        return file.read_text(encoding="utf-8") if text.endswith((".md", ".txt")) and file.is_file() else text

    def _select(self, drafts: Drafts) -> None:
        """Drop what the model does not know, then what is too much of one relation."""
        if self.task.known is not None and self.lm:
            unknown = [i for ids in unknown_drafts(self.lm, drafts, known=self.task.known) for i in ids]
            drafts.drop(unknown)
            self.left_out["not known to the model"] += len(unknown)
        if self.task.balance:
            self.left_out["beyond the smallest relation"] += drafts.keep_at_most(drafts.smallest_relation())
        if self.task.per_relation is not None:
            self.left_out["beyond task.per_relation"] += drafts.keep_at_most(self.task.per_relation)

    def _reasons(self) -> str:
        told = ", ".join(f"{reason}: {count}" for reason, count in self.left_out.items() if count)
        hint = " (task.least_neighbours allows fewer)" if self.left_out["too few neighbours"] else ""
        return told + hint

    def _write_records(self, drafts: Drafts, relations: Mapping[str, Relation]) -> tuple[dict[str, Any], list[Record]]:
        composition, samples = CompositionCounter(), list[Record]()
        numbers = itertools.count()

        def numbered(split: int) -> Iterator[Record]:
            for draft in drafts.of_split(split):
                number = next(numbers)
                record = {"case_id": number, "pararel_idx": number} | draft.record
                composition.add(record)
                if len(samples) < SAMPLES:
                    samples.append(record)
                yield record

        for split, name in enumerate(self.task.splits or {"records": 1.0}):
            share = f" of the split {name}" if self.task.splits else ""
            self._write(f"{name}.json", f"the records{share}, for `dataset=facts`", numbered(split))
            plain = (draft.record for draft in drafts.of_split(split))
            prefix = f"{name}_" if self.task.splits else ""
            if any(relation.questions for relation in relations.values()):
                questions = zsre_records(plain, relations, seed=self.seed)
                self._write(
                    f"{prefix}questions.json", f"questions{share} in zsRE's form, for `dataset=zsre`", questions
                )
            if self.task.known_facts and self.lm:
                facts = known_facts(self.lm, (draft.record for draft in drafts.of_split(split)))
                self._write(f"{prefix}{KNOWN}", f"facts{share} that {self.lm.name} states, for `dataset=known`", facts)
        return composition.table(), samples

    def _write_snippets(self, store: TripleStore, drafts: Drafts, work: Path) -> None:
        texts = TextStore(work / "texts.sqlite")
        try:
            texts.read(self.inputs["texts"])
            used = {
                (rewrite["relation_id"], rewrite["target_new"]["id"])
                for rewrite in (draft.record["requested_rewrite"] for draft in drafts)
            }
            snippets = texts.snippets(store, used, most=self.task.texts_per_object)
            what = "reference texts for RS, for `references.snippets.path` with `references.tfidf.fit=true`"
            self._write(SNIPPETS, what, snippets)
        finally:
            texts.close()

    def _write(self, name: str, what: str, records: Iterable[Record]) -> None:
        """Write a JSON list with a record on each line."""
        count = 0
        with (
            replacing(self.out / name) as part,
            part.open("w", encoding="utf-8", errors="backslashreplace") as file,
        ):
            for record in records:
                file.write(("[\n" if not count else ",\n") + json.dumps(record, ensure_ascii=False))
                count += 1
            file.write("\n]\n" if count else "[]\n")
        self.files[name] = f"{what} ({count:,})"
