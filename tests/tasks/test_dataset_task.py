"""`task=dataset`: files, card and reports of a build; what the model adds to it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from romexp.cli.job import Job
from romexp.data.building.drafts import Draft
from romexp.data.facts_file import FactsFile
from romexp.data.known import KnownFacts
from romexp.data.zsre import ZsRE
from romexp.errors import ConfigError, DataError
from romexp.lm.model import LanguageModel, PretrainedModel
from romexp.minifact import assets
from romexp.tasks.dataset import BuildDataset
from romexp.tasks.dataset_model import first_sentence, known_facts, unknown_drafts, words_before, write_sentences
from romexp.tracking import NoTracker


@pytest.fixture
def inputs(tmp_path: Path) -> dict[str, str]:
    """Triples of minifact's own world, as far as its records name them."""
    records = json.loads(assets.counterfact_path().read_text(encoding="utf-8"))
    rewrites = [r["requested_rewrite"] for r in records]
    chosen = [r for r in rewrites if r["relation_id"] == "instrument" and r["target_true"]["str"] in ("piano", "harp")]
    rows = ["subject\trelation\tobject", *(f"{r['subject']}\tinstrument\t{r['target_true']['str']}" for r in chosen)]
    (tmp_path / "t.tsv").write_text("\n".join(rows), encoding="utf-8")
    (tmp_path / "t.yaml").write_text(
        "instrument: {prompts: ['{} plays the', 'The instrument played by {} is the'], "
        "questions: ['What does {} play?']}"
    )
    return {"triples": str(tmp_path / "t.tsv"), "templates": str(tmp_path / "t.yaml")}


def build(folder: Path, *, seed: int = 0, **fields: Any) -> tuple[Path, list[str]]:
    job = Job(
        config={},
        choices={},
        tracker=NoTracker(),
        outputs=folder,
        output_dir=folder / "out",
        cache_dir=folder,
        seed=seed,
    )
    model = PretrainedModel(path=str(assets.model_dir()), name="minifact")
    try:
        outcome = BuildDataset(model=model, least_neighbours=2, **fields)(job)
    finally:
        job.log.close()
    return folder / "out", list(outcome.lines)


def test_files_card_and_second_call(tmp_path: Path, inputs: dict[str, str]) -> None:
    out, lines = build(tmp_path, **inputs, about="Made up.", splits={"train": 0.5, "test": 0.5})
    card = (out / "README.md").read_text(encoding="utf-8")
    assert "Made up." in card
    assert "| Neighborhood prompts |" in card
    sets = [FactsFile(path=out / f"{name}.json").load() for name in ("train", "test")]
    assert not any(loaded.rejected for loaded in sets)
    subjects = [{case.request.subject for case in loaded.items} for loaded in sets]
    assert not subjects[0] & subjects[1]
    assert not ZsRE(path=out / "test_questions.json").load().rejected
    before = (out / "train.json").stat().st_mtime_ns
    assert build(tmp_path, **inputs, splits={"train": 0.5, "test": 0.5})[1] == lines
    assert (out / "train.json").stat().st_mtime_ns == before


def test_what_the_model_adds(tmp_path: Path, inputs: dict[str, str], minifact_lm: LanguageModel) -> None:
    out, _ = build(
        tmp_path, **inputs, known="greedy", sentences="model", sentence_count=20, known_facts=True, one_token=True
    )
    cases = FactsFile(path=out / "records.json").load().items
    assert len(cases) > 5
    bare = sum(text.startswith((case.request.subject, "The")) for case in cases for text in case.paraphrase_prompts)
    assert bare < len(cases) / 2  # most stand behind a sentence
    drafts = [Draft(id=i, split=0, record=r) for i, r in enumerate(json.loads((out / "records.json").read_text()))]
    assert next(unknown_drafts(minifact_lm, drafts, known="greedy")) == []
    swapped = [Draft(id=d.id, split=0, record=_swapped(d.record)) for d in drafts]
    assert len(next(unknown_drafts(minifact_lm, swapped, known="likelier"))) == len(drafts)
    assert write_sentences(minifact_lm, 5, seed=1) == write_sentences(minifact_lm, 5, seed=1)
    assert list(known_facts(minifact_lm, [])) == []


def _swapped(record: dict[str, Any]) -> dict[str, Any]:
    rewrite = record["requested_rewrite"]
    return record | {
        "requested_rewrite": rewrite | {"target_true": rewrite["target_new"], "target_new": rewrite["target_true"]}
    }


def test_known_facts_are_those_whose_first_capitalized_word_is_the_object(minifact_lm: LanguageModel) -> None:
    records = json.loads(assets.counterfact_path().read_text(encoding="utf-8"))[:60]
    cities = [r for r in records if r["requested_rewrite"]["target_true"]["str"][0].isupper()]
    found = list(known_facts(minifact_lm, cities))
    assert 0 < len(found) <= len(cities)
    for fact in found:
        assert (
            f"{fact['prompt']} {fact['attribute']}"
            in fact["template"].replace("{}", fact["subject"]) + fact["prediction"]
        )
        KnownFacts().parse(0, fact)


def test_the_rule_for_known_facts() -> None:
    assert words_before(" Rome.", "Rome") == ""
    assert words_before(" the New York", "New York") == " the"
    assert words_before(" Romeo", "Rome") is None
    assert words_before(" London, then Rome", "Rome") is None
    assert words_before(" a piano", "piano") is None
    assert first_sentence("x. And so it was. More") == "And so it was."
    assert first_sentence("no end") == ""


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        ({"least_neighbours": 11}, ConfigError, "task.least_neighbours: expected 0 to 10"),
        ({"known": "all"}, ConfigError, "task.known: expected None or greedy or likelier, not all"),
        ({"splits": {"a": 0.5, "b": 0.4}}, ConfigError, "task.splits"),
        ({"per_relation": 0}, ConfigError, "per_relation"),
    ],
)
def test_wrong_settings(fields: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        BuildDataset(triples="a", templates="b", model=PretrainedModel(path="x", name="x"), **fields)


def test_nothing_left_says_why(tmp_path: Path, inputs: dict[str, str]) -> None:
    (tmp_path / "t.tsv").write_text("subject\trelation\tobject\na\tinstrument\tharp\nb\tinstrument\tdrum\n")
    with pytest.raises(
        DataError, match=r"no record is left; too few neighbours: 2 \(task.least_neighbours allows fewer\)"
    ):
        build(tmp_path, **inputs)
