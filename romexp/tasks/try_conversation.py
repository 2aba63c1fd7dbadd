"""The conversation that follows `task=try`: texts are continued by both models, and commands begin with a colon."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import RenderableType
from rich.text import Text

from romexp.analysis.traces import KINDS
from romexp.api.before_after import continuations
from romexp.api.edits import FactEdit
from romexp.api.request import make_request
from romexp.editors.base import Editor, Resources
from romexp.errors import ConfigError
from romexp.export.export import export_edits
from romexp.export.gather import FoundEdit
from romexp.lm.apply_delta import applied
from romexp.lm.model import LanguageModel
from romexp.lm.precision import matmul_precision
from romexp.lm.weight_delta import WeightDelta, total
from romexp.reporting.figures.traces import prompt_heatmap, save
from romexp.reporting.terminal_heatmap import terminal_heatmap
from romexp.tasks.try_fact import make_edit, new_edit_path
from romexp.tasks.try_screen import continuation_tables, screen
from romexp.tasks.try_trace import PromptTracer

HELP = """\
any text                 both models go on with it
:trace                   where the unedited model recalls its answer to the last
                         text, as a picture too; :trace Louvre names the subject
:edit text|subject|new   another fact on top, as :edit The {} is in|Louvre|Oslo
:undo                    take the last edit away
:export folder           save all edits as a PEFT adapter
:export folder hf        save the whole edited model
:quit                    end"""


@dataclass(kw_only=True)
class TryConversation:
    """The state of a conversation.

    Attributes:
        lm: the unedited model.
        edits: the edits so far, each made on the model with those before it.
        editor, resources: what makes further edits.
        source: where the model was loaded from.
        tracer: traces prompts.
        keep: texts about other subjects, which should not change.
        tokens: number of new tokens of each continuation.
        folder: where edits and pictures are saved.
        last: the last text.
        subjects: subjects of all edits, also of those that were taken away.
    """

    lm: LanguageModel
    edits: list[FactEdit]
    editor: Editor
    resources: Resources
    source: str
    tracer: PromptTracer
    keep: Sequence[str]
    tokens: int
    folder: Path
    last: str = ""
    subjects: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.last = self.last or self.edits[-1].request.text
        self.subjects = self.subjects or [edit.request.subject for edit in self.edits]

    @property
    def greeting(self) -> str:
        return "Type a text, and both models go on with it. :help lists what else there is."

    def answer(self, line: str) -> Iterator[RenderableType]:
        """Continue a text, or do what a command says.

        Raises:
            RomexpError: the text or the command cannot be used.
        """
        with matmul_precision(self.lm.matmul_precision):
            yield from self._answer(line)

    def _answer(self, line: str) -> Iterator[RenderableType]:
        if not line.startswith(":"):
            self.last = line
            yield from self._continue([line])
            return
        command, _, rest = line[1:].partition(" ")
        commands = {"help": self._help, "trace": self._trace, "edit": self._edit, "undo": self._undo}
        commands["export"] = self._export
        if command not in commands:
            raise ConfigError(f":{command}: there is no such command (there are :{', :'.join(commands)}, :quit)")
        yield from commands[command](rest.strip())

    @property
    def delta(self) -> WeightDelta:
        """All edits together."""
        return total([edit.delta for edit in self.edits])

    def _continue(self, texts: Sequence[str]) -> Iterator[RenderableType]:
        yield from continuation_tables(continuations(self.lm, self.delta, texts, tokens=self.tokens))

    def _help(self, rest: str) -> Iterator[RenderableType]:
        yield Text(HELP)

    def _trace(self, subject: str) -> Iterator[RenderableType]:
        """Trace the last text; the subject is the given one, or that of an edit which occurs in it."""
        known = [subject for subject in self.subjects if subject in self.last]
        if not subject and not known:
            raise ConfigError(f":trace: say which part of {self.last!r} is the subject: :trace <subject>")
        yield Text(f"{self.last}   (the unedited model)", style="italic")
        row: dict[str, Any] = {}
        for row in self.tracer(self.lm, self.last, subject or known[-1]):
            kind = next(kind for kind in reversed(KINDS) if kind in row)
            yield terminal_heatmap(row, kind, window=self.tracer.tracer.width)
        figure = prompt_heatmap(row, window=self.tracer.tracer.width, model=self.lm.name)
        if figure is not None:
            yield Text(f"picture: {save(figure, self._picture())[-1]}", overflow="fold")

    def _picture(self) -> Path:
        """Where the next picture goes, without a suffix."""
        folder = self.folder / "figures"
        return folder / f"trace_{1 + len(list(folder.glob('trace_*.png')))}"

    def _edit(self, rest: str) -> Iterator[RenderableType]:
        """Make another edit, on the model with the edits so far."""
        parts = [part.strip() for part in rest.split("|")]
        if len(parts) != 3:
            raise ConfigError(":edit: expected text|subject|new answer, as :edit The {} is in|Louvre|Oslo")
        request = make_request(*parts)
        with applied(self.lm, self.delta):
            made = make_edit(self.lm, self.editor, request, self.resources, source=self.source)
        self.edits.append(made)
        self.subjects.append(request.subject)
        self.last = request.text
        file = new_edit_path(self.folder)
        made.save(file)
        yield from screen(made, delta=self.delta, ask=(), keep=self.keep, tokens=self.tokens)
        yield Text(f"edit {len(self.edits)}, made on the model with those before it: {file}", overflow="fold")

    def _undo(self, rest: str) -> Iterator[RenderableType]:
        if not self.edits:
            raise ConfigError(":undo: there is no edit left")
        gone = self.edits.pop()
        left = f"{len(self.edits)} edit{'' if len(self.edits) == 1 else 's'} left"
        yield Text(f"taken away: {gone.request.text} {gone.request.target_new} ({left})")
        yield from self._continue([self.last])

    def _export(self, rest: str) -> Iterator[RenderableType]:
        """Write the edits for other programs; the export is loaded again and compared."""
        folder, _, chosen = rest.partition(" ")
        if not self.edits:
            raise ConfigError(":export: no edit is left")
        if not folder:
            raise ConfigError(":export: expected a folder, as :export rome-adapter")
        edits = [FoundEdit(saved=edit.saved()) for edit in self.edits]
        format: Any = chosen.strip() or "peft"  # another word is refused by the export
        yield Text("writing, loading again and comparing …")
        exported = export_edits(self.lm, edits, Path(folder).expanduser(), format=format, source=self.source)
        yield Text(f"exported: {exported.path}", overflow="fold")
