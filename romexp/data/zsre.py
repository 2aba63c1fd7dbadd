"""zsRE, the question answering set of the MEND authors (docs/method.md §1.2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field

from romexp.data.dataset import RecordFile
from romexp.data.download import RemoteFile
from romexp.data.published import ZSRE_EVAL
from romexp.data.schema import Prompt, RawRecord, Target, Text
from romexp.errors import RecordError
from romexp.facts import Case, EditRequest

NO_TRUE_TARGET = "<|endoftext|>"
"""What the reference puts where CounterFact has the true answer; no metric reads it."""


class _RawQuestion(RawRecord):
    subject: Text
    src: Prompt
    rephrase: Prompt
    answers: Annotated[list[Target], Field(min_length=1)]
    loc: Text
    loc_ans: Target


@dataclass(frozen=True, kw_only=True)
class ZsRE(RecordFile[Case]):
    """Records in the schema of `zsre_mend_eval.json` (19,086 records): the *true* answer is the edit's target.

    `case_id` is the record's position in the file. One paraphrase, no attribute or generation prompts. The
    neighbourhood is one question with its whole answer in `neighborhood_targets`; the reference splits the pair into
    one prompt a token of the answer, which takes a tokenizer and so is left to the evaluator.

    Departures: `limit` is honoured (the reference runs all records whatever is asked). Set aside: a question whose
    subject is absent, repeated or follows a visible character; there the reference stops with an assertion
    (docs/method.md §1.2).

    Attributes:
        loc_marker: text that every neighbourhood question must contain, as the reference asserts; empty asks for none.
    """

    name: str = "zsre"
    remote: RemoteFile | None = ZSRE_EVAL
    loc_marker: str = "nq question: "

    def record_id(self, index: int, record: Any) -> int:
        return index

    def parse(self, index: int, record: Any) -> Case:
        raw = _RawQuestion.model_validate(record)
        prompt = _template(raw.src, raw.subject)
        if self.loc_marker not in raw.loc:
            raise RecordError(f"expected text with {self.loc_marker!r}, not {raw.loc!r}", field="loc")
        request = EditRequest(subject=raw.subject, prompt=prompt, target_new=raw.answers[0], target_true=NO_TRUE_TARGET)
        return Case(
            case_id=index,
            request=request,
            paraphrase_prompts=(raw.rephrase,),
            neighborhood_prompts=(raw.loc + "?",),
            neighborhood_targets=(raw.loc_ans,),
        )


def _template(question: str, subject: str) -> str:
    """The question with `{}` for its subject.

    Raises:
        RecordError: the subject does not stand there exactly once, after a space or at the start.
    """
    if (found := question.count(subject)) != 1:
        raise RecordError(f"expected the subject {subject!r} once in {question!r}, found {found}", field="src")
    before, after = question.split(subject)
    if before and not before.endswith(" "):
        raise RecordError(f"expected a space before the subject {subject!r} in {question!r}", field="src")
    template = before + "{}" + after
    if template.count("{}") != 1:
        raise RecordError(f"{question!r} has braces of its own", field="src")
    return template
