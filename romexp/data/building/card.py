"""The data card: what a data set holds, how it was made, and samples, as in the paper's Table 2 and Appendix H."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from romexp.data.building.composition import ROWS
from romexp.data.building.records import Record
from romexp.facts import fill

SAMPLES = 3


def card(
    name: str,
    *,
    composition: Mapping[str, Any],
    samples: Sequence[Record],
    dropped: Mapping[str, int],
    made_from: Mapping[str, Any],
    files: Mapping[str, str],
    about: str = "",
) -> str:
    """The card as Markdown.

    Args:
        composition: see `CompositionCounter.table`.
        samples: some records.
        dropped: numbers of triples and facts that were left out, by reason.
        made_from: inputs and settings, by name.
        files: what each file holds, by its name.
        about: text of the user's: sources, licences.
    """
    parts = [f"# {name}", about.strip(), _intro(composition)]
    parts += ["## Files", *(f"- `{file}`: {what}" for file, what in files.items())]
    parts += ["## Composition", _composition(composition), _by_relation(composition)]
    parts += ["## Samples", *map(_sample, samples)]
    parts += ["## How it was made", *(f"- {key}: {_shown(value)}" for key, value in made_from.items())]
    parts += ["Left out:" if dropped else "Nothing was left out."]
    parts += [f"- {reason}: {count:,}" for reason, count in dropped.items()]
    return _joined([part for part in parts if part])


def _joined(parts: Sequence[str]) -> str:
    text = parts[0]
    for before, part in itertools.pairwise(parts):
        text += ("\n" if before.startswith("- ") and part.startswith("- ") else "\n\n") + part
    return text + "\n"


def _intro(composition: Mapping[str, Any]) -> str:
    total = composition["total"]
    return (
        f"{total['records']:,} counterfactual edits of {len(composition['relations'])} relations, in CounterFact's "
        "schema. Each record asks to change a true object o^c into another object o* of the same relation. It judges "
        "the edit by paraphrases, by prompts about other subjects of which o^c is true (neighbourhood) and of which o* "
        "is true (attributes), and by beginnings of texts."
    )


def _composition(composition: Mapping[str, Any]) -> str:
    """The paper's Table 2: different things in all, on average in a relation, and on average in a record."""
    lines = ["| Item | Total | Per relation | Per record |", "|---|---:|---:|---:|"]
    for kind, label in ROWS.items():
        per_record = composition["per_record"].get(kind)
        shown = "–" if per_record is None else f"{per_record:.1f}"
        lines.append(
            f"| {label} | {composition['total'][kind]:,} | {composition['per_relation'][kind]:,.0f} | {shown} |"
        )
    return "\n".join(lines)


def _by_relation(composition: Mapping[str, Any]) -> str:
    kinds = ("records", "subjects", "objects", "statements")
    lines = [f"| Relation | {' | '.join(ROWS[kind] for kind in kinds)} |", "|---|" + "---:|" * len(kinds)]
    lines += [
        f"| {name.replace('|', '/')} | {' | '.join(f'{row[kind]:,}' for kind in kinds)} |"
        for name, row in composition["relations"].items()
    ]
    return "\n".join(lines)


def _sample(record: Record) -> str:
    rewrite = record["requested_rewrite"]
    filled = fill(rewrite["prompt"], rewrite["subject"])
    heading = f"{filled} **{rewrite['target_true']['str']}** → **{rewrite['target_new']['str']}**"
    return f"{heading}\n\n```json\n{json.dumps(record, indent=1, ensure_ascii=False)}\n```"


def _shown(value: Any) -> str:
    if isinstance(value, Path):
        return f"`{value.name}`"
    return f"`{json.dumps(value, ensure_ascii=False, default=str)}`"
