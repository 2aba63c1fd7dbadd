"""Generated texts of the same cases by several editors, for reading side by side (paper Fig. 6, App. G)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from romexp.analysis.studies import Study
from romexp.analysis.summary import UNEDITED
from romexp.facts import fill
from romexp.results.rows import prompts_in


@dataclass(frozen=True, kw_only=True)
class Generations:
    """What models wrote about one subject.

    Attributes:
        case_id: the case.
        subject: whom the prompts are about.
        fact: the edited sentence up to the answer, subject filled in.
        target_new: o*, what the edit says.
        target_true: o^c, what was true before.
        texts: by label, the unedited model first: one text a prompt, the prompt included. At one index all began with
            the same prompt.
        prompts: these prompts; none where the rows do not say them.
    """

    case_id: int
    subject: str
    fact: str
    target_new: str
    target_true: str
    texts: Mapping[str, Sequence[str]]
    prompts: Sequence[str] = ()

    @property
    def begins(self) -> list[int]:
        """One index for each different prompt."""
        return different_prompts(self.texts[UNEDITED], self.prompts)


def different_prompts(texts: Sequence[str], prompts: Sequence[str]) -> list[int]:
    """Index of the first text of each prompt: prompts are drawn repeatedly.

    Args:
        prompts: one a text; where they are not known the texts' first words tell, since texts begin with their prompt.
    """
    known = prompts if len(prompts) == len(texts) else [" ".join(text.split()[:4]) for text in texts]
    first: dict[str, int] = {}
    for index, beginning in enumerate(known):
        first.setdefault(beginning, index)
    return list(first.values())


def generations(study: Study) -> list[Generations]:
    """Every case for which the unedited model and all editors with texts have them, by case id."""
    by_label = {
        entry.label: {row["case_id"]: row for row in entry.rows if (row.get("post") or {}).get("text")}
        for entry in study.entries
        if entry.edits
    }
    by_label = {label: rows for label, rows in by_label.items() if rows}
    found = []
    for row in study.unedited_rows:
        number = row["case_id"]
        if not row["pre"].get("text") or not by_label or any(number not in rows for rows in by_label.values()):
            continue
        request = row["requested_rewrite"]
        texts = {UNEDITED: row["pre"]["text"]} | {name: rows[number]["post"]["text"] for name, rows in by_label.items()}
        found.append(
            Generations(
                case_id=number,
                subject=request["subject"],
                fact=fill(request["prompt"], request["subject"]),
                target_new=request["target_new"],
                target_true=request["target_true"],
                texts=texts,
                prompts=prompts_in(row).get("generation_prompts", ()),
            )
        )
    return found
