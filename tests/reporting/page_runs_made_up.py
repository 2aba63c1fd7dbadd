"""Made-up runs for figures and pages: editors with generated texts, a sweep, zsRE, one half done."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from report_runs import write_run

from romexp.analysis.studies import Entry, Study, to_studies
from romexp.reporting.tables.model import Block, Cell, Column, Line, ReportTable, Role
from romexp.results.find import find_runs

GENERATING = {"evaluator": {"type": "CounterFactEvaluator", "generation": "on"}}

EVIL = "<script>document.title='owned'</script></script><img src=x onerror=document.title='owned'>&amp;\"'"
"""A subject that would do harm if it were taken for HTML."""


def _line(label: str, cell: Cell, *, editor: str, role: Role = "measured") -> Line:
    cells = (Cell(text=label), cell, Cell(text="–"))
    return Line(cells=cells, role=role, model="gpt2-xl", dataset="counterfact", editors=(editor,))


TABLE = ReportTable(
    name="table4",
    title="Table 4: CounterFact",
    columns=(
        Column(name="Editor", numeric=False),
        Column(name="ES", heading="Efficacy"),
        Column(name="EM", heading="Efficacy"),
    ),
    blocks=(
        Block(
            title="GPT-2 XL",
            lines=(
                _line("ROME", Cell(text="99.0 (0.3)", value=99.0, mark="best"), editor="ROME"),
                _line("published", Cell(text="100.0", value=100.0), editor="ROME", role="published"),
                _line("KE, published", Cell(text="90.0", value=90.0), editor="KE", role="published"),
            ),
            notes=("7,490 of 7,500 cases",),
            commands=("romexp model=gpt2-xl",),
        ),
    ),
    caption="Made up.",
)
"""A table with published values beside measured ones."""


def change_rows(folder: Path, changes: Mapping[int, Mapping[str, Any]]) -> None:
    """Replace parts of cases; a part that is a mapping is merged."""
    rows = [json.loads(line) for line in (folder / "cases.jsonl").read_text(encoding="utf-8").splitlines()]
    for row in rows:
        for key, value in changes.get(row["case_id"], {}).items():
            row[key] = {**(row.get(key) or {}), **value} if isinstance(value, Mapping) else value
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (folder / "cases.jsonl").write_text(text, encoding="utf-8")


def write_texts(folder: Path, ids: Sequence[int], *, editor: str, answer: str = "a") -> None:
    """Texts of two prompts, the first drawn twice, and their scores."""

    def side(who: str, says: str) -> dict[str, Any]:
        texts = [
            f"The home of someone is {says}, said {who}.",
            f"The home of someone is {says}.",
            f"He likes {says}, papas and bananas.",
        ]
        return {"text": texts, "ngram_entropy": 6.2, "reference_score": 0.4, "essence_score": None}

    change_rows(folder, {i: {"pre": side("nobody", "b"), "post": side(editor, answer)} for i in ids})


ASKED = {
    "rewrite_prompts": ["someone lives in"],
    "paraphrase_prompts": ["Gone. someone's home is", "Away. someone dwells in"],
    "neighborhood_prompts": [f"neighbour {i} lives in" for i in range(10)],
    "attribute_prompts": [f"cousin {i} lives in" for i in range(10)],
    "generation_prompts": ["The home of someone is", "The home of someone is", "He likes"],
}
"""What rows say was asked; early ones do not say it."""


def write_editors(root: Path, *, editors: Mapping[str, float] | None = None, n: int = 4) -> None:
    """Runs with texts, an editor each; by editor the strength of the edit."""
    for editor, strength in (editors or {"ft": 1.5, "rome": 4.0}).items():
        folder = write_run(root / f"{editor}0", range(n), editor=editor, strength=strength, identity=GENERATING)
        write_texts(folder, range(n), editor=editor)


def write_sweep(root: Path, *, layers: Sequence[int] = (0, 1, 2), n: int = 4) -> None:
    """ROME over layers and two tokens, without texts."""
    for layer in layers:
        for token in ("last", "subject_last"):
            settings = {"layer": layer, "fact_token": token}
            write_run(root / f"{token}{layer}", range(n), settings=settings, strength=1.0 + layer, seed=layer)


def no_difference(study: Study, entry: Entry) -> str:
    """As if every run had the paper's settings."""
    return ""


def studies(root: Path) -> tuple[Study, ...]:
    """What a report would read."""
    return to_studies(find_runs([root]).runs).studies


def write_everything(root: Path) -> None:
    """Two editors with texts (one half done), a sweep, zsRE with a hostile subject, and a trace with a figure."""
    write_editors(root / "texts")
    change_rows(root / "texts" / "rome0", {i: {"prompts": ASKED} for i in (0, 1, 2)})
    change_rows(root / "texts" / "rome0", {0: {"post": {"rewrite_prompts": [[0.25, 3.5]]}}, 3: {"post": None}})
    (root / "texts" / "rome0" / "status").write_text("running\n", encoding="utf-8")
    write_sweep(root / "sweep")
    aside = [{"case_id": 9, "field": "subject", "reason": "does not occur in <b>prompt</b>"}]
    write_run(root / "q", range(3), dataset="zsre", zsre=True, manifest={"set_aside": aside})
    asked = {kind: [f"what of {EVIL} ?"] for kind in ("rewrite_prompts", "paraphrase_prompts", "neighborhood_prompts")}
    asked["neighborhood_targets"] = [EVIL]
    change_rows(root / "q", {1: {"requested_rewrite": {"subject": EVIL, "target_new": EVIL}, "prompts": asked}})
    write_trace(root / "trace")


def write_trace(folder: Path) -> None:
    """A run of `task=trace` with one figure, which has no caption."""
    (folder / "figures").mkdir(parents=True)
    Image.new("RGB", (320, 160), "white").save(folder / "figures" / "average_lines.png")
    names = {"task": "trace", "model": "minifact", "dataset": "known"}
    manifest = {"identity": {"task": "trace", "seed": None}, "hash": "t", "names": names, "overrides": ["task=trace"]}
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    (folder / "cases.jsonl").write_text('{"case_id": 0}\n', encoding="utf-8")
