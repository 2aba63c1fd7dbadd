"""The tokenized texts by which an edit finds its target value, with the positions of the edited token and of the target
(docs/method.md §3.4, §3.6).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice

from romexp.errors import RecordError, result_or_error
from romexp.facts import EditRequest, answer_text, fill, with_answer
from romexp.lm.forward import Row, check_known, check_length
from romexp.lm.model import LanguageModel
from romexp.lm.packing import target_start
from romexp.lm.tokens import Encoding, FactToken, encode, lookup_index

KL_TEMPLATE = "{} is a"


@dataclass(frozen=True, kw_only=True)
class EditText:
    """One text of one request: a rewriting text (prompt and target in one context), or the KL text.

    Attributes:
        request: index of the request in its batch.
        template: index of the context template; None for the KL text.
        row: the tokens to run: for a rewriting text the prompt and all target tokens but the last.
        lookup: position of the token at which a state is changed (`fact_token`).
        targets: target tokens; empty for the KL text.
        first_read: position at which `targets[0]` is predicted; for the KL text, position of the distribution that
            enters the KL divergence.
    """

    request: int
    template: int | None
    row: Row
    lookup: int
    targets: tuple[int, ...]
    first_read: int


def edit_texts(
    lm: LanguageModel, requests: Sequence[EditRequest], templates: Sequence[str], *, fact_token: FactToken
) -> list[list[EditText] | RecordError]:
    """Tokenize the texts of each request (docs/method.md §3.6).

    Returns:
        For each request its rewriting texts, one per template in order, and after them the KL text; or a `RecordError`
        if the prompt has no `{}`, the subject or the target has no token, or a text is longer than the model's context.
    """
    prompts = [[template.replace("{}", request.prompt, 1) for template in templates] for request in requests]
    full = [
        [with_answer(fill(prompt, r.subject), r.target_new) for prompt in row] + [fill(KL_TEMPLATE, r.subject)]
        for r, row in zip(requests, prompts, strict=True)
    ]
    encodings = iter(encode(lm.tokenizer, [text for row in full for text in row]))
    encodings_by_request = [list(islice(encodings, len(row))) for row in full]

    def texts_of(index: int) -> list[EditText]:
        request, (*rewriting, kl) = requests[index], encodings_by_request[index]
        texts = [
            _rewriting(encoding, index, j, prompt, request, fact_token)
            for j, (encoding, prompt) in enumerate(zip(rewriting, prompts[index], strict=True))
        ]
        texts.append(_kl(kl, index, request, fact_token))
        check_length(lm, max(len(text.row) for text in texts))
        check_known(lm, [token for encoding in encodings_by_request[index] for token in encoding.ids])
        return texts

    return [result_or_error(partial(texts_of, index)) for index in range(len(requests))]


def _rewriting(
    encoding: Encoding, index: int, template: int, prompt: str, request: EditRequest, fact_token: FactToken
) -> EditText:
    end = len(fill(prompt, request.subject))
    if "{}" not in request.prompt:
        raise RecordError(f"expected a '{{}}' for the subject in {request.prompt!r}", field="prompt")
    if not answer_text(request.target_new):
        raise RecordError("the new target is empty", field="target_new")
    start = target_start(encoding, end)
    return EditText(
        request=index,
        template=template,
        row=Row.text(encoding.ids[:-1]),
        lookup=lookup_index(encoding, prompt, request.subject, fact_token=fact_token, prompt_end=end),
        targets=encoding.ids[start:],
        first_read=start - 1,
    )


def _kl(encoding: Encoding, index: int, request: EditRequest, fact_token: FactToken) -> EditText:
    lookup = lookup_index(encoding, KL_TEMPLATE, request.subject, fact_token=fact_token, prompt_end=len(encoding.text))
    # The KL divergence is taken at the lookup token, not after "is a" (docs/method.md §3.6), so the rest is cut off.
    return EditText(
        request=index,
        template=None,
        row=Row.text(encoding.ids[: lookup + 1]),
        lookup=lookup,
        targets=(),
        first_read=lookup,
    )
