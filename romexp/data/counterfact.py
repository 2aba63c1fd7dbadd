"""CounterFact (docs/method.md §1.1): counterfactual edits with the prompts that judge them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from romexp.data.dataset import RecordFile
from romexp.data.download import RemoteFile
from romexp.data.published import COUNTERFACT
from romexp.data.schema import Id, Prompt, RawRecord, Target, Template, Text, shown
from romexp.errors import RecordError
from romexp.facts import Case, EditRequest


class _RawTarget(RawRecord):
    text: Target = Field(alias="str")
    id: str = ""


def _as_target(value: Any) -> Any:
    """A target in CounterFact's form. In some copies of MEMIT's data it is its text alone."""
    return {"str": value} if isinstance(value, str) else value


class _RawRewrite(RawRecord):
    prompt: Template
    subject: Text
    target_new: Annotated[_RawTarget, BeforeValidator(_as_target)]
    target_true: Annotated[_RawTarget, BeforeValidator(_as_target)]
    relation_id: str = ""


class _RawCase(RawRecord):
    case_id: Id
    requested_rewrite: _RawRewrite
    paraphrase_prompts: list[Prompt]
    neighborhood_prompts: list[Prompt]
    attribute_prompts: list[Prompt]
    generation_prompts: list[Prompt]


@dataclass(frozen=True, kw_only=True)
class CounterFact(RecordFile[Case]):
    """Records in the schema of ROME's `counterfact.json` (45 MB, 21,919 records) and MEMIT's `multi_counterfact.json`.

    A target may be its text alone, without an id. `romexp.data.facts_file` reads what has another form.

    A record is set aside if its prompt does not have exactly one `{}`, if its subject or a target is blank, if its
    targets are equal, if a list of prompts is missing or holds something else, or if an earlier record has its
    `case_id`. Lists may be empty or of any length, and prompts need not name the subject.
    """

    name: str = "counterfact"
    remote: RemoteFile | None = COUNTERFACT

    def parse(self, index: int, record: Any) -> Case:
        raw = _RawCase.model_validate(record)
        rewrite = raw.requested_rewrite
        if rewrite.target_new.text == rewrite.target_true.text:
            raise RecordError(
                f"expected another answer than target_true, not {shown(rewrite.target_new.text)}",
                field="requested_rewrite.target_new.str",
            )
        request = EditRequest(
            subject=rewrite.subject,
            prompt=rewrite.prompt,
            target_new=rewrite.target_new.text,
            target_true=rewrite.target_true.text,
            relation_id=rewrite.relation_id,
            target_new_id=rewrite.target_new.id,
        )
        return Case(
            case_id=raw.case_id,
            request=request,
            paraphrase_prompts=tuple(raw.paraphrase_prompts),
            neighborhood_prompts=tuple(raw.neighborhood_prompts),
            attribute_prompts=tuple(raw.attribute_prompts),
            generation_prompts=tuple(raw.generation_prompts),
        )
