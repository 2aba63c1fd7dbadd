"""Known facts for causal tracing (docs/method.md §1.3)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from romexp.data.dataset import RecordFile
from romexp.data.download import RemoteFile
from romexp.data.published import KNOWN_1000
from romexp.data.schema import Id, Prompt, RawRecord, Target, Text, shown
from romexp.errors import RecordError
from romexp.facts import KnownFact


class _RawKnown(RawRecord):
    known_id: Id
    subject: Text
    attribute: Target
    prompt: Prompt
    template: str = ""
    prediction: str = ""
    relation_id: str = ""


@dataclass(frozen=True, kw_only=True)
class KnownFacts(RecordFile[KnownFact]):
    """Records in the schema of `known_1000.json` (1,209 records, ids from 0). `case_ids` selects by `known_id`.

    A record is set aside if its subject, attribute or prompt is blank, if its prompt does not name the subject, or if
    an earlier record has its `known_id`.
    """

    name: str = "known"
    remote: RemoteFile | None = KNOWN_1000
    id_field: ClassVar[str] = "known_id"

    def parse(self, index: int, record: Any) -> KnownFact:
        raw = _RawKnown.model_validate(record)
        if raw.subject.strip() not in raw.prompt:
            raise RecordError(f"expected the subject {shown(raw.subject)} in {shown(raw.prompt)}", field="prompt")
        return KnownFact(**raw.model_dump())

    def whole(self) -> Sequence[KnownFact]:
        """The facts of the whole file. The selection is ignored, so that what is drawn from them does not depend on it:
        other subjects for token replacement (docs/method.md §2.8).
        """
        return replace(self, limit=None, offset=0, shard=None, case_ids=None).load().items

    def subjects(self) -> Iterator[str]:
        """Subjects of the whole file, with repeats. σ of the noise is measured over them (docs/method.md §2.3)."""
        yield from (fact.subject for fact in self.whole())
