"""`task=try`: tells a model one fact, shows what changed, and goes on as a conversation on a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from romexp.api.before_after import says
from romexp.api.edits import FactEdit, load_edit
from romexp.api.request import make_request
from romexp.cli.job import Job, Outcome
from romexp.cli.progress import bars
from romexp.data.facts_file import FactsFile
from romexp.editors.base import Editor, Resources
from romexp.editors.traced_layer import with_traced_layer
from romexp.errors import ConfigError, DataError
from romexp.facts import EditRequest
from romexp.lm.model import LanguageModel, PretrainedModel
from romexp.results.identity import Identity, fingerprint, of_covariance
from romexp.stats.covariance import Covariance
from romexp.tasks.run import Run, describe_model, model_identity, open_run
from romexp.tasks.try_conversation import TryConversation
from romexp.tasks.try_fact import FIRST_EDIT, Example, make_edit
from romexp.tasks.try_screen import screen
from romexp.tasks.try_texts import texts_to_show
from romexp.tasks.try_trace import PromptTracer
from romexp.tracing.noise import NoiseTexts
from romexp.tracing.tracer import Tracer


@dataclass(frozen=True, kw_only=True)
class TryEdit:
    """Edit one fact, and compare the model before and after the edit.

    Attributes:
        model: the model.
        editor: the editing method.
        covariance: source of second moments, for editors that need them.
        tracer, corpus: settings of the traces that a conversation asks for (see `TraceExperiment`).
        prompt: a text that ends before its answer. It has `{}` for the subject, or holds the subject itself.
        subject: what the fact is about.
        target: the new answer.
        example: the fact that is told where the user gives none, and texts about it and about others.
        facts: records with texts about many subjects and their neighbours; σ of the traces' noise is measured over
            their subjects.
        ask: texts about the subject that both models continue; `{}` stands for the subject. None takes those of the
            example or of the subject's record, and if there is neither, the example's for any subject.
        keep: texts about other subjects, which should not change. None takes those of the same source as `ask`'s.
        tokens: number of new tokens of each continuation.
    """

    model: PretrainedModel
    editor: Editor
    covariance: Covariance
    tracer: Tracer
    corpus: NoiseTexts
    example: Example
    facts: FactsFile
    prompt: str | None = None
    subject: str | None = None
    target: str | None = None
    ask: Sequence[str] | None = None
    keep: Sequence[str] | None = None
    tokens: int = 20

    def __post_init__(self) -> None:
        if self.tokens < 1:
            raise ConfigError(f"task.tokens: expected at least 1, not {self.tokens}")
        given = {name: getattr(self, name) for name in ("subject", "prompt", "target")}
        missing = [name for name, value in given.items() if value is None]
        if 0 < len(missing) < len(given):
            raise ConfigError(f"{missing[0]} must be given too: subject=… prompt=… target=… together say one fact")
        for name, value in given.items():
            if value is not None and not value.strip():
                raise ConfigError(f"{name} is empty")
        for name in ("ask", "keep"):
            if any(not text.strip() for text in getattr(self, name) or ()):
                raise ConfigError(f"task.{name}: a text is empty")

    def __call__(self, job: Job) -> Outcome:
        """Make the edit, or take it from the run's folder; save it, and show what it changed.

        Raises:
            RomexpError: the input is invalid, the fact cannot be edited, or the model says the target already.
        """
        request = self._request()
        lm = job.load(self.model)
        if says(lm, request.text, request.target_new):
            raise DataError(
                f"target: {lm.name} says {request.target_new!r} already after {request.text!r}; give another target"
            )
        texts = texts_to_show(
            request, example=self.example, cases=lambda: self.facts.load().items, about=self.ask, others=self.keep
        )
        editor = with_traced_layer(self.editor, job.cache_dir, lm.digest)
        names = {"task": "try", "model": lm.name, "editor": job.choices["editor"]}
        identity = self._identity(job, lm, editor, request)
        facts = {"model": describe_model(lm), "seed": job.seed, "editor_label": editor.name}
        with open_run(job, names=names, identity=identity, facts=facts) as run:
            with bars() as bar:
                source = self.covariance.source(lm, progress=bar("second moments"))
                resources = Resources(second_moment=source, cache_dir=job.cache_dir, seed=job.seed)
                edit = self._edit(run, lm, editor, request, resources)
            conversation = TryConversation(
                lm=lm,
                edits=[edit],
                editor=editor,
                resources=resources,
                source=str(self.model.path),
                tracer=PromptTracer(tracer=self.tracer, facts=self.facts, corpus=self.corpus),
                keep=texts.others,
                tokens=self.tokens,
                folder=run.folder.path,
            )
            shown = screen(edit, delta=edit.delta, ask=texts.about, keep=texts.others, tokens=self.tokens)
            said = [f"{texts.source} of {self.facts.name}"] if texts.source else []
            lines = [*said, f"edit: {run.folder.path / FIRST_EDIT}"]
            return Outcome(tables=shown, lines=lines, folder=run.folder.path, conversation=conversation)

    def _request(self) -> EditRequest:
        """The user's fact, or the example's.

        Raises:
            ConfigError: the subject is not in the prompt, or the prompt has more than one `{}`.
        """
        if self.subject is None or self.prompt is None or self.target is None:
            example = self.example
            return EditRequest(subject=example.subject, prompt=example.prompt, target_new=example.target)
        return make_request(self.prompt, self.subject, self.target)

    def _identity(self, job: Job, lm: LanguageModel, editor: Editor, request: EditRequest) -> Identity:
        return {
            "task": "try",
            "model": model_identity(lm, self.model),
            "editor": fingerprint(editor),
            "covariance": of_covariance(self.covariance),
            "request": [request.subject, request.prompt, request.target_new],
            "seed": job.seed,
        }

    def _edit(
        self, run: Run, lm: LanguageModel, editor: Editor, request: EditRequest, resources: Resources
    ) -> FactEdit:
        file = run.folder.path / FIRST_EDIT
        if run.was_done and file.is_file():
            return replace(load_edit(file, lm), source=str(self.model.path))
        with run.session(name=f"{lm.name} try", group=lm.name, job_type="try"):
            made = make_edit(lm, editor, request, resources, source=str(self.model.path))
            made.save(file)
        return made
