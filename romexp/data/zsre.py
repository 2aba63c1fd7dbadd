"""zsRE, the question-answering data set of the MEND authors (docs/method.md §1.2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field

from romexp.data.dataset import RecordFile
from romexp.data.download import RemoteFile
from romexp.data.published import ZSRE_EVAL
from romexp.data.schema import Prompt, RawRecord, Target, Text, shown
from romexp.errors import RecordError
from romexp.facts import NO_TRUE_TARGET, Case, EditRequest
from romexp.subjects import places


class _RawQuestion(RawRecord):
    subject: Text
    src: Prompt
    rephrase: Prompt
    answers: Annotated[list[Target], Field(min_length=1)]
    loc: Text
    loc_ans: Target


@dataclass(frozen=True, kw_only=True)
class ZsRE(RecordFile[Case]):
    """Records in the schema of `zsre_mend_eval.json` (19,086 records). The *true* answer is the edit's target.

    `case_id` is the record's position in the file. A case has one paraphrase and no attribute or generation prompts.
    Its neighbourhood is one question, with the whole answer in `neighborhood_targets`. The authors' code splits this
    pair into one prompt for each token of the answer. That needs a tokenizer, so here the evaluator does it.

    Two things differ from the authors' code: `limit` has an effect, and a record is set aside if its question does not
    contain the subject exactly once, at the start or after a space. Their ROME stops with a failed assertion then.

    Attributes:
        loc_marker: text that every neighbourhood question must contain, as the authors' code asserts. If it is empty,
            nothing is required.
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
            raise RecordError(f"expected text with {self.loc_marker!r}, not {shown(raw.loc)}", field="loc")
        request = EditRequest(subject=raw.subject, prompt=prompt, target_new=raw.answers[0], target_true=NO_TRUE_TARGET)
        return Case(
            case_id=index,
            request=request,
            paraphrase_prompts=(raw.rephrase,),
            neighborhood_prompts=(raw.loc + "?",),
            neighborhood_targets=(raw.loc_ans,),
        )


def _template(question: str, subject: str) -> str:
    """The question with `{}` in place of its subject. The letters of the subject inside another word do not count where
    it also stands by itself.

    Raises:
        RecordError: the question does not contain the subject exactly once, at the start or after a space; or it
            contains `{}` already.
    """
    found = places(question, subject)
    if len(found) != 1:
        raise RecordError(
            f"expected the subject {shown(subject)} once in {shown(question)}, found {len(found)}", field="src"
        )
    before, after = question[: found[0]], question[found[0] + len(subject) :]
    if before and not before.endswith(" "):
        raise RecordError(f"expected a space before the subject {shown(subject)} in {shown(question)}", field="src")
    template = before + "{}" + after
    if template.count("{}") != 1:
        raise RecordError(f"{shown(question)} has braces of its own", field="src")
    return template
