"""Context templates: short random texts put before a prompt, so that an edit does not depend on what precedes it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from romexp.errors import ConfigError, raise_first_error
from romexp.files import write_once
from romexp.lm.model import LanguageModel
from romexp.lm.sampling import Sampler, generate
from romexp.seeds import derive_seed


def context_templates(
    lm: LanguageModel,
    *,
    given: str | Sequence[str] | None,
    length_counts: Sequence[Sequence[int]],
    seed: int,
    cache_dir: Path | None,
) -> tuple[str, ...]:
    """Templates with one `{}` each, the identity first (docs/method.md §3.2).

    Args:
        given: the templates themselves or a JSON file with a list of them; None samples them from the model.
        length_counts: pairs (total length in tokens with the end-of-text token that starts the sample, how many).
        cache_dir: sampled templates are kept here, by model, lengths and seed; None samples anew.

    Raises:
        ConfigError: given templates are not a list of texts with one `{}` each, after a space if after anything, and
            the identity first.
    """
    if given is not None:
        return _checked(given)
    key = hashlib.sha256(repr((lm.digest, [list(p) for p in length_counts], seed)).encode()).hexdigest()[:24]
    if cache_dir is None:
        return _sampled(lm, length_counts, seed)
    path = cache_dir / "context_templates" / f"{key}.json"
    write_once(path, lambda: json.dumps(_sampled(lm, length_counts, seed), ensure_ascii=False, indent=0))
    return _checked(str(path))


def _sampled(lm: LanguageModel, length_counts: Sequence[Sequence[int]], seed: int) -> tuple[str, ...]:
    templates = ["{}"]
    for length, count in length_counts:
        seeds = [derive_seed(seed, "context_template", length, i) for i in range(count)]
        texts = raise_first_error(generate(lm, [""] * count, sampler=Sampler(max_length=length), seeds=seeds))
        templates += [_without_braces(text) + ". {}" for text in texts]
    return tuple(templates)


def _without_braces(text: str) -> str:
    """A sampled pair of braces would be taken for the place of the prompt; taking one out may join another."""
    while "{}" in text:
        text = text.replace("{}", "")
    return text


def _checked(given: str | Sequence[str]) -> tuple[str, ...]:
    where = "editor.context_templates"
    templates: object = given
    if isinstance(given, str):
        where += f" ({given})"
        try:
            templates = json.loads(Path(given).read_text())
        except OSError as error:
            raise ConfigError(f"{where}: cannot be read ({error.strerror})") from error
        except ValueError as error:
            raise ConfigError(f"{where}: not JSON ({error})") from error
    texts = list(templates) if isinstance(templates, Sequence) and not isinstance(templates, str) else []
    if not texts or not all(isinstance(t, str) and t.count("{}") == 1 for t in texts):
        raise ConfigError(f"{where}: expected a list of texts, each with exactly one '{{}}' for the prompt")
    if texts[0] != "{}":
        raise ConfigError(f"{where}: the first entry must be '{{}}', the bare prompt; got {texts[0]!r}")
    for i, text in enumerate(texts):
        if not text.startswith("{}") and " {}" not in text:
            raise ConfigError(f"{where}: entry {i}, {text!r}: a space must stand before '{{}}'")
    return tuple(texts)
