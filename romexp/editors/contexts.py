"""Context templates: short sampled texts that stand before a prompt, so that an edit does not depend on what precedes
the prompt (docs/method.md §3.2).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from romexp.errors import ConfigError, raise_first_error
from romexp.files import read_json, write_once
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
        return _read_and_check(given)
    key = hashlib.sha256(repr((lm.digest, [list(p) for p in length_counts], seed)).encode()).hexdigest()[:24]
    if cache_dir is None:
        return _sampled(lm, length_counts, seed)
    path = cache_dir / "context_templates" / f"{key}.json"
    count = 1 + sum(number for _, number in length_counts)
    write_once(
        path,
        lambda: json.dumps(_sampled(lm, length_counts, seed), ensure_ascii=False, indent=0),
        usable=lambda file: _holds(file, count),
    )
    return _read_and_check(str(path))


def _holds(path: Path, count: int) -> bool:
    """Whether a file of the cache holds that many templates."""
    try:
        return path.is_file() and len(_read_and_check(str(path))) == count
    except ConfigError:
        return False


def _sampled(lm: LanguageModel, length_counts: Sequence[Sequence[int]], seed: int) -> tuple[str, ...]:
    templates = ["{}"]
    for length, count in length_counts:
        seeds = [derive_seed(seed, "context_template", length, i) for i in range(count)]
        texts = raise_first_error(generate(lm, [""] * count, sampler=Sampler(max_length=length), seeds=seeds))
        templates += [_without_braces(text) + ". {}" for text in texts]
    return tuple(templates)


def _without_braces(text: str) -> str:
    """Remove all `{}` from a sampled text, since `{}` marks the place of the prompt.

    The loop is needed because removing one pair of braces can create another.
    """
    while "{}" in text:
        text = text.replace("{}", "")
    return text


def _read_and_check(given: str | Sequence[str]) -> tuple[str, ...]:
    where = "editor.context_templates"
    templates: object = given
    if isinstance(given, str):
        where += f" ({given})"
        try:
            templates = read_json(Path(given))
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
