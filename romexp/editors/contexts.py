"""Context templates: short sampled texts that stand before a prompt, so that an edit does not depend on what precedes
the prompt (docs/method.md §3.2).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from romexp.editors.base import Resources
from romexp.errors import ConfigError, raise_first_error
from romexp.files import read_json, write_once
from romexp.lm.model import LanguageModel
from romexp.lm.sampling import Sampler, generate
from romexp.seeds import derive_seed

OPENINGS = ("The", "Therefore", "Because", "I", "You")
"""The words with which MEMIT's sampled contexts begin, in turn."""


def context_templates(
    lm: LanguageModel,
    *,
    given: str | Sequence[str] | None,
    length_counts: Sequence[Sequence[int]],
    seed: int,
    cache_dir: Path | None,
) -> tuple[str, ...]:
    """The context templates: texts with one `{}` each, of which the first is `{}` alone (docs/method.md §3.2).

    Args:
        given: the templates, or the path of a JSON file with a list of them; None samples them from the model.
        length_counts: pairs (total length, count): `count` templates are sampled with this number of tokens, which
            includes the end-of-text token at their start.
        seed: the run's seed.
        cache_dir: folder where sampled templates are kept by model, lengths and seed; None samples them each time.

    Raises:
        ConfigError: `given` is not a list of texts with exactly one `{}` each; the first is not `{}`; or text stands
            before a `{}` without a space.
    """
    if given is not None:
        return _checked(*_read(given))
    return _kept(lm, length_counts, openings=("",), seed=seed, cache_dir=cache_dir)


class WithContexts(Protocol):
    """An editor whose settings name its contexts, or how they are sampled."""

    @property
    def context_templates(self) -> Any: ...

    @property
    def context_template_length_params(self) -> Sequence[Sequence[int]]: ...


def templates_of(editor: WithContexts, lm: LanguageModel, resources: Resources) -> tuple[str, ...]:
    """The context templates of an editor (`context_templates`)."""
    return context_templates(
        lm,
        given=editor.context_templates,
        length_counts=editor.context_template_length_params,
        seed=resources.seed,
        cache_dir=resources.cache_dir,
    )


def context_groups(
    lm: LanguageModel,
    *,
    given: str | Sequence[str] | Sequence[Sequence[str]] | None,
    length_counts: Sequence[Sequence[int]],
    seed: int,
    cache_dir: Path | None,
) -> tuple[tuple[str, ...], ...]:
    """The context templates of MEMIT and its relatives, in groups (docs/method.md §12.1).

    A key is the mean of the groups' means. By default there are two groups: `{}` alone, and texts that the model writes
    after each of `OPENINGS` in turn.

    Args:
        given: a list of groups, each a list of templates; or a list of templates, whose first is a group and whose
            others are another one; or the path of a JSON file with either. None samples them.
        length_counts: pairs (total length, count): `count` templates are sampled with this number of tokens, the
            opening word included.
        seed: the run's seed.
        cache_dir: as for `context_templates`.

    Raises:
        ConfigError: as for `context_templates`; or a group is empty.
    """
    if given is None:
        first, *others = _kept(lm, length_counts, openings=OPENINGS, seed=seed, cache_dir=cache_dir)
        return ((first,), tuple(others)) if others else ((first,),)
    templates, where = _read(given)
    if not isinstance(templates, list) or not any(isinstance(group, list) for group in templates):
        first, *others = _checked(templates, where)
        return ((first,), tuple(others)) if others else ((first,),)
    if not all(isinstance(group, list) and group for group in templates):
        raise ConfigError(f"{where}: expected a list of texts, or a list of groups of which each is a list of texts")
    _checked([text for group in templates for text in group], where)
    return tuple(tuple(group) for group in templates)


def _kept(
    lm: LanguageModel,
    length_counts: Sequence[Sequence[int]],
    *,
    openings: Sequence[str],
    seed: int,
    cache_dir: Path | None,
) -> tuple[str, ...]:
    """Sampled templates, which are read from the cache folder if they are there."""
    if cache_dir is None:
        return _sampled(lm, length_counts, openings, seed)
    depends_on = (
        lm.cache_key,
        [list(pair) for pair in length_counts],
        seed,
        *([] if openings == ("",) else [openings]),
    )
    key = hashlib.sha256(repr(depends_on).encode()).hexdigest()[:24]
    path = cache_dir / "context_templates" / f"{key}.json"
    count = 1 + sum(number for _, number in length_counts)
    write_once(
        path,
        lambda: json.dumps(_sampled(lm, length_counts, openings, seed), ensure_ascii=False, indent=0),
        usable=lambda file: _holds(file, count),
    )
    return _checked(*_read(str(path)))


def _holds(path: Path, count: int) -> bool:
    """Whether a file of the cache holds that many templates."""
    try:
        return path.is_file() and len(_checked(*_read(str(path)))) == count
    except ConfigError:
        return False


def _sampled(
    lm: LanguageModel, length_counts: Sequence[Sequence[int]], openings: Sequence[str], seed: int
) -> tuple[str, ...]:
    templates = ["{}"]
    for length, count in length_counts:
        seeds = [derive_seed(seed, "context_template", length, i) for i in range(count)]
        prompts = [openings[i % len(openings)] for i in range(count)]
        texts = raise_first_error(generate(lm, prompts, sampler=Sampler(max_length=length), seeds=seeds))
        templates += [_without_braces(text) + ". {}" for text in texts]
    return tuple(templates)


def _without_braces(text: str) -> str:
    """Remove all `{}` from a sampled text, since `{}` marks the place of the prompt.

    The loop is needed because removing one pair of braces can create another.
    """
    while "{}" in text:
        text = text.replace("{}", "")
    return text


def _read(given: object) -> tuple[object, str]:
    """The value that is given, or that of the JSON file that it names, and how messages name it."""
    where = "editor.context_templates"
    if not isinstance(given, str):
        return _as_lists(given), where
    where += f" ({given})"
    try:
        return read_json(Path(given).expanduser()), where
    except OSError as error:
        raise ConfigError(f"{where}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise ConfigError(f"{where}: not JSON ({error})") from error


def _as_lists(value: object) -> object:
    """Sequences of any type as lists, as JSON has them."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_as_lists(item) for item in value]
    return value


def _checked(templates: object, where: str) -> tuple[str, ...]:
    texts = templates if isinstance(templates, list) else []
    if not texts or not all(isinstance(t, str) and t.count("{}") == 1 for t in texts):
        raise ConfigError(f"{where}: expected a list of texts, each with exactly one '{{}}' for the prompt")
    if texts[0] != "{}":
        raise ConfigError(f"{where}: the first entry must be '{{}}', the bare prompt; got {texts[0]!r}")
    for i, text in enumerate(texts):
        if not text.startswith("{}") and " {}" not in text:
            raise ConfigError(f"{where}: entry {i}, {text!r}: a space must stand before '{{}}'")
    return tuple(texts)
