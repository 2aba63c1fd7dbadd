"""Whether second moments were measured on enough tokens, and what to say of those that were not.

C of a key with D entries has an inverse only if it was measured on D tokens or more, and it is a good estimate only on
many times D.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from romexp.errors import ConfigError
from romexp.stats.second_moment import SecondMoment

ENOUGH = 10
"""Tokens per entry of a key from which no warning is given."""

_log = logging.getLogger(__name__)


def measured_on(moment: SecondMoment) -> dict[str, Any]:
    """What a second moment was measured on, JSON-ready.

    Returns:
        `source`: the texts, or the file of statistics if it does not say; `texts` and `tokens`: how many were used,
        None if unknown; `width`: D.
    """
    return {
        "source": _source(moment.provenance),
        "texts": _number(moment.provenance, "texts"),
        "tokens": moment.count or None,
        "width": moment.width,
    }


def say_measured(moments: Mapping[int, SecondMoment]) -> None:
    """Log at level info how many texts and tokens some layers were just measured on in one pass."""
    if moments:
        _log.info("second moment of %s: measured on %s", _layers(moments), _amount(next(iter(moments.values()))))


def check_tokens(moments: Mapping[int, SecondMoment]) -> None:
    """Refuse second moments of fewer tokens than a key has entries, and warn of those of fewer than `ENOUGH` times as
    many. Those whose number of tokens is unknown pass.

    Args:
        moments: by layer.

    Raises:
        ConfigError: a second moment has too few tokens to have an inverse.
    """
    known = {layer: moment for layer, moment in moments.items() if moment.count > 0}
    if singular := {layer: moment for layer, moment in known.items() if moment.count < moment.width}:
        raise ConfigError(f"{_complaint(singular, 'fewer than the')}, so it has no inverse: {_remedy(singular)}")
    if rough := {layer: moment for layer, moment in known.items() if moment.count < ENOUGH * moment.width}:
        _log.warning(
            "%s, so it is a rough estimate: %s", _complaint(rough, f"fewer than {ENOUGH} times the"), _remedy(rough)
        )


def _complaint(moments: Mapping[int, SecondMoment], fewer: str) -> str:
    worst = min(moments.values(), key=lambda moment: moment.count / moment.width)
    of, on = _layers(moments), _amount(worst)
    return f"covariance: the second moment of {of} was measured on {on}, {fewer} {worst.width:,} entries of a key"


def _layers(moments: Mapping[int, SecondMoment]) -> str:
    return f"layer{'s' if len(moments) > 1 else ''} {', '.join(map(str, moments))}"


def _amount(moment: SecondMoment) -> str:
    """For example `1,234 tokens of 5 texts (a.txt, each line one text)`."""
    texts = _number(moment.provenance, "texts")
    of = "" if texts is None else f" of {texts:,} text{'' if texts == 1 else 's'}"
    return f"{moment.count:,} tokens{of} ({_source(moment.provenance)})"


def _source(provenance: Mapping[str, Any]) -> str:
    corpus = _corpus(provenance)
    match corpus.get("kind"):
        case "files":
            return f"{corpus.get('name')}, each {corpus.get('unit', 'record')} one text"
        case "list":
            return "a list of texts"
        case "sampled":
            return "texts that the model wrote"
        case "datasets":
            return " ".join(str(corpus[part]) for part in ("path", "name", "split") if corpus.get(part))
    return str(corpus.get("name") or provenance.get("file") or "texts of unknown origin")


def _remedy(moments: Mapping[int, SecondMoment]) -> str:
    """What to do about too few tokens."""
    moment = next(iter(moments.values()))
    provenance = moment.provenance
    corpus = _corpus(provenance)
    if corpus.get("kind") == "sampled" or _number(provenance, "total_tokens") == moment.count:
        return "raise covariance.max_tokens, or set editor.mom2_adjustment=false"
    size, texts = _number(provenance, "sample_size"), _number(provenance, "texts")
    ways = ["raise covariance.sample_size" if size is not None and size == texts else "give more text"]
    if corpus and (limit := _number(provenance, "max_tokens")) is not None:
        ways[0] += f" (each text is cut to {limit:,} tokens)"
    if corpus.get("unit") in ("file", "paragraph"):
        ways.append("cut it into lines (covariance.corpus.unit=line)")
    return ", or ".join([*ways, "take covariance=sampled", "set editor.mom2_adjustment=false"])


def _corpus(provenance: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a file of statistics says of its texts. Such a file may come from anywhere."""
    corpus = provenance.get("corpus")
    return corpus if isinstance(corpus, Mapping) else {}


def _number(provenance: Mapping[str, Any], name: str) -> int | None:
    value = provenance.get(name)
    return value if isinstance(value, int) else None
