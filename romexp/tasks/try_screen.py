"""What `task=try` shows: answers, texts about the subject and texts about others, before and after an edit."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import zip_longest

from rich.console import RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from romexp.api.before_after import Answers, Continuation, KeptText, answers, continuations, kept_texts
from romexp.api.edits import FactEdit
from romexp.lm.apply_delta import weight_in_out
from romexp.lm.weight_delta import WeightDelta

CHANGED = "≠"
"""Mark of a text that the edit changed."""


def screen(
    edit: FactEdit, *, delta: WeightDelta, ask: Sequence[str], keep: Sequence[str], tokens: int
) -> list[RenderableType]:
    """The parts of the screen, from top to bottom.

    Args:
        delta: the edit's own delta, or its sum with those of earlier edits.
        ask: texts about the subject.
        keep: texts about other subjects.
        tokens: number of new tokens of each continuation.

    Raises:
        RecordError: a text is too long for the model.
    """
    lm, request = edit.lm, edit.request
    texts = [request.text, *(text for text in ask if text != request.text)]
    return [
        header(edit),
        answers_table(answers(lm, delta, request.text, target=request.target_new)),
        Text(f"\nAbout {request.subject}", style="bold"),
        *continuation_tables(continuations(lm, delta, texts, tokens=tokens)),
        *kept_table(kept_texts(lm, delta, keep)),
    ]


def header(edit: FactEdit) -> RenderableType:
    """What was edited, by which method, and how large the edit is."""
    request = edit.request
    said = Text.assemble(f"{request.text} ", (request.target_new, "bold"))
    sizes = ", ".join(
        f"{name.rpartition('.')[0]} by {100 * share:.2g} %" for name, share in relative_sizes(edit).items()
    )
    made = f"{edit.method} on {edit.lm.name}: |Δ| {edit.delta.norm():.3g}, changes {sizes} of its norm"
    return Text("\n").join([Text(), said, Text(made, style="dim")])


def relative_sizes(edit: FactEdit) -> dict[str, float]:
    """‖ΔW‖ / ‖W‖ by parameter."""
    one_by_one = {name: WeightDelta(terms={name: term}).norm() for name, term in edit.delta.terms.items()}
    return {name: size / float(weight_in_out(edit.lm, name).norm()) for name, size in one_by_one.items()}


def answers_table(found: Answers) -> RenderableType:
    """The probabilities of the old and the new answer, and of the likeliest next tokens."""
    table = Table(box=None, pad_edge=False, title="", show_header=True)
    for name in ("", "answer"):
        table.add_column(name)
    for name in ("before", "after"):
        table.add_column(name, justify="right")
    if found.old:
        table.add_row("old", Text(found.old), *map(percent, found.p_old))
    table.add_row("new", Text(found.new, style="bold"), *map(percent, found.p_new))
    top = Table(box=None, pad_edge=False)
    for side in ("before", "after"):
        top.add_column(f"next token {side}")
        top.add_column("", justify="right")
    for one, other in zip_longest(found.top_before, found.top_after):
        top.add_row(*(cell for token, p in (one, other) for cell in (Text(visible(token)), percent(p))))
    both = Table.grid(padding=(0, 6))
    both.add_row(table, top)
    return Padding(both, (1, 0, 0, 0))


def continuation_tables(found: Sequence[Continuation]) -> Iterable[RenderableType]:
    """Each text, and below it both continuations side by side. What changed is marked."""
    for i, each in enumerate(found):
        table = Table(box=None, pad_edge=False, expand=True, show_header=i == 0)
        table.add_column("", width=1)
        table.add_column("before", ratio=1)
        table.add_column("after", ratio=1)
        same = common_words(each.before, each.after)
        before, after = (_from(text, same, style=style) for text, style in ((each.before, ""), (each.after, "bold")))
        table.add_row(CHANGED if each.changed else "", before, after)
        yield Text(f"{'' if i == 0 else chr(10)}{each.prompt}", style="italic")
        yield table


def kept_table(found: Sequence[KeptText]) -> Iterable[RenderableType]:
    """Texts about other subjects with their likeliest next token, and how far they moved."""
    if not found:
        return
    table = Table(box=None, pad_edge=False)
    for name in ("", "text", "before", "", "after", ""):
        table.add_column(name, justify="right" if not name else "left")
    for text in found:
        changed = text.token_before != text.token_after
        after = Text(visible(text.token_after), style="bold" if changed else "")
        p_after = percent(text.p_after) if not changed else ""
        mark = CHANGED if changed else ""
        table.add_row(mark, Text(text.prompt), Text(visible(text.token_before)), percent(text.p_before), after, p_after)
    same = sum(text.token_before == text.token_after for text in found)
    moves = [text.moved for text in found]
    yield Text("\nAbout others, which should stay", style="bold")
    yield table
    yield Text(
        f"{same} of {len(found)} keep their next token; its probability moves by "
        f"{100 * sum(moves) / len(moves):.1f} points on average, at most {100 * max(moves):.1f}",
        style="dim",
    )


def common_words(one: str, other: str) -> int:
    """Number of characters at the beginning of both texts that are equal, as far as whole words go."""
    if one == other:
        return len(one)
    equal = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    return one.rfind(" ", 0, equal + 1) + 1 if " " in one[: equal + 1] else 0


def _from(text: str, start: int, *, style: str) -> Text:
    """A continuation on one line; what comes after the equal beginning stands out."""
    return Text.assemble((visible(text[:start]).lstrip(), "dim"), (visible(text[start:]), style))


def visible(text: str) -> str:
    """The text with line breaks as ⏎."""
    return text.replace("\n", "⏎")


def percent(p: float) -> str:
    """A probability in per cent, with enough digits for small ones.

    >>> [percent(p) for p in (0.9, 0.004, 0.0000012)]
    ['90.0 %', '0.40 %', '0.00012 %']
    """
    value = 100 * p
    if math.isnan(value):
        return "–"
    if value >= 1 or value == 0:
        return f"{value:.1f} %"
    return f"{value:.{1 - math.floor(math.log10(value))}f} %"
