"""Editors at a chosen layer, for one objective (docs/method.md §14.3)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from romexp.editors.base import Editor, Resources
from romexp.editors.contexts import context_groups, context_templates
from romexp.editors.finetune import FineTune
from romexp.editors.many.base import SpreadEditor
from romexp.editors.rome.editor import Rome
from romexp.errors import ConfigError
from romexp.lm.model import LanguageModel
from romexp.localization.objectives import OBJECTIVES
from romexp.tracing.cells import window_layers

Settings = Mapping[str, Mapping[str, Mapping[str, Any]]]
"""Values of an editor's fields, by method and objective."""


@dataclass(frozen=True, kw_only=True)
class Methods:
    """The editing methods of a study.

    Attributes:
        editors: the editors by method name, with their settings.
        width: number of adjacent layers that an editor of several layers writes, centred on the layer of the edit.
        settings: values that are other ones for an objective.

    Raises:
        ConfigError: an editor does not edit at a layer of one's choice, or `settings` name no method, objective or
            field.
    """

    editors: Mapping[str, Editor]
    width: int
    settings: Settings = field(default_factory=dict)

    def __post_init__(self) -> None:
        for method, editor in self.editors.items():
            if not isinstance(editor, (Rome, FineTune, SpreadEditor)):
                raise ConfigError(
                    f"task.methods: {method} ({editor.name}) does not edit at a layer of one's choice; ROME, FT, FT+L, "
                    "AttnEdit, MEMIT and its relatives do"
                )
        for method, objective, name in _named(self.settings):
            if method not in self.editors:
                raise ConfigError(f"task.settings: there is no method {method!r} in task.methods")
            if objective not in OBJECTIVES:
                raise ConfigError(f"task.settings.{method}: {objective!r} is none of {', '.join(OBJECTIVES)}")
            if name not in {each.name for each in fields(self.editors[method])}:  # type: ignore[arg-type]
                raise ConfigError(f"task.settings.{method}.{objective}: the editor has no setting {name!r}")

    def at(self, method: str, objective: str, layer: int, *, n_layers: int) -> Editor:
        """The editor of a method for an objective, at a layer."""
        editor: Any = self.editors[method]
        changed = dict(self.settings.get(method, {}).get(objective, {}))
        if isinstance(editor, SpreadEditor):
            window = window_layers(layer, width=self.width, n_layers=n_layers, convention="code")
            return replace(editor, **{**changed, "layers": tuple(window)})
        return replace(editor, **{**changed, "layer": layer})

    def with_contexts(self, lm: LanguageModel, resources: Resources) -> Methods:
        """The methods with their context templates sampled, so that all edits have the same ones."""
        given: dict[str, Editor] = {}
        for method, editor in self.editors.items():
            given[method] = editor
            if isinstance(editor, (Rome, SpreadEditor)):
                sample = context_templates if isinstance(editor, Rome) else context_groups
                templates = sample(  # type: ignore[operator]
                    lm,
                    given=editor.context_templates,
                    length_counts=editor.context_template_length_params,
                    seed=resources.seed,
                    cache_dir=resources.cache_dir,
                )
                given[method] = replace(editor, context_templates=templates)
        return replace(self, editors=given)

    def layers_of_moments(self, layers: Sequence[int], *, n_layers: int) -> list[int]:
        """The layers whose second moments the methods need, ascending."""
        needed: set[int] = set()
        for method, editor in self.editors.items():
            for layer in layers:
                chosen = self.at(method, OBJECTIVES[0], layer, n_layers=n_layers)
                if isinstance(chosen, SpreadEditor):
                    needed.update(chosen.layers or ())
                elif isinstance(editor, Rome) and editor.mom2_adjustment:
                    needed.add(layer)
        return sorted(needed)


def _named(settings: Settings) -> Iterable[tuple[str, str, str]]:
    for method, by_objective in settings.items():
        for objective, values in by_objective.items():
            for name in values:
                yield method, objective, name
