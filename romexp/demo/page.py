"""The demo's page, made with Gradio. What visitors type and what models write is shown as text, never as HTML.

Each visitor has an edit of their own, which Gradio keeps by session. The page loads nothing from other machines.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import gradio as gr

from romexp.demo.actions import Actions
from romexp.demo.workbench import ANSWERS, COMPARED, KEPT, NEXT_TOKENS, TEXTS, TRACES, ExampleFact, Workbench

METHODS: Final = ("rome", "ft", "ft_l", "memit")
"""Options of the config group `editor` that need no trained network."""
KEPT_S: Final = 3600
"""How long a visitor's edit and files are kept after their last use, in seconds."""
TEXT_WIDTHS: Final = ("5%", "27%", "34%", "34%")
"""Of the columns `TEXTS`, whose cells hold sentences."""
TITLE: Final = (
    "# Tell a language model a fact\nIts weights are edited, for you alone. See what changed, and what did not."
)


def theme() -> gr.Theme:
    """Gradio's theme with fonts of the visitor's machine; its own fonts come from another one."""
    return gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])


def build(workbench: Workbench, *, first: str) -> gr.Blocks:
    """The page.

    Args:
        first: the model that is chosen at first.
    """
    actions = Actions(workbench=workbench)
    with gr.Blocks(title="romexp", analytics_enabled=False, delete_cache=(KEPT_S, KEPT_S)) as page:
        told = gr.State(None, time_to_live=KEPT_S)
        gr.Markdown(TITLE)
        with gr.Row():
            model = gr.Dropdown(list(workbench.loaders), value=first, label="Model")
            method = gr.Dropdown(list(METHODS), value="rome", label="Method")
        form = _form(workbench.example(first))
        tell = gr.Button("Tell it", variant="primary")
        changed, kept = _changed_tab()
        _ask_tab(actions, told)
        _trace_tab(actions, [model, *form[:2]])
        _compare_tab(actions, [model, *form])
        file = _adapter_tab(actions, told)
        _on(tell, actions.tell, [model, *form, method], [told, *changed, kept, file])
        model.change(actions.form, [model], [*form, told], show_progress="hidden")
    return page


def _form(example: ExampleFact) -> tuple[gr.Textbox, gr.Textbox, gr.Textbox]:
    with gr.Row():
        prompt = gr.Textbox(example.prompt, label="Text, with {} for the subject", scale=2)
        subject = gr.Textbox(example.subject, label="Subject")
        target = gr.Textbox(example.target, label="New answer")
    return prompt, subject, target


def _changed_tab() -> tuple[list[gr.Dataframe], gr.Dataframe]:
    """Tables of what changed, and that of what should stay."""
    with gr.Tab("What changed"):
        with gr.Row():
            tables = [_table("Answers", ANSWERS), _table("Likeliest next tokens", NEXT_TOKENS)]
        tables.append(_table("Texts about the subject", TEXTS, widths=TEXT_WIDTHS))
    with gr.Tab("What should stay"):
        kept = _table("Texts about others", KEPT)
    return tables, kept


def _ask_tab(actions: Actions, told: gr.State) -> None:
    with gr.Tab("Ask both models"):
        question = gr.Textbox(label="A text that both continue")
        _on(gr.Button("Continue it"), actions.ask, [told, question], [_table("Both models", TEXTS, widths=TEXT_WIDTHS)])


def _trace_tab(actions: Actions, inputs: Sequence[Any]) -> None:
    with gr.Tab("Trace"):
        how = gr.Radio(list(TRACES), value=next(iter(TRACES)), label="How")
        _on(gr.Button("Trace the text"), actions.trace, [*inputs, how], [gr.Plot(label="Where the answer comes from")])


def _compare_tab(actions: Actions, inputs: Sequence[Any]) -> None:
    with gr.Tab("Compare methods"):
        methods = gr.CheckboxGroup(list(METHODS), value=["rome", "ft"], label="Methods")
        _on(
            gr.Button("Compare"),
            actions.compare,
            [*inputs, methods],
            [_table("The same fact by each method", COMPARED)],
        )


def _adapter_tab(actions: Actions, told: gr.State) -> gr.File:
    with gr.Tab("Take it along"):
        gr.Markdown("The edit as a PEFT adapter, which `peft` and `transformers` load.")
        make, file = gr.Button("Make the adapter"), gr.File(label="Adapter", interactive=False)
        _on(make, actions.adapter, [told], [file])
    return file


def _table(label: str, columns: Sequence[str], *, widths: Sequence[str] | None = None) -> gr.Dataframe:
    return gr.Dataframe(
        headers=list(columns), label=label, interactive=False, wrap=True, datatype="str", type="pandas",
        column_widths=None if widths is None else list(widths),
    )  # fmt: skip


def _on(button: gr.Button, action: Callable[..., Any], inputs: Sequence[Any], outputs: Sequence[Any]) -> None:
    """Let a button do something. All that use a model wait for each other, since a model serves one at a time."""
    button.click(action, inputs, outputs, concurrency_limit=1, concurrency_id="model", api_visibility="private")
