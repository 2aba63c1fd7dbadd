"""Refuses settings of a trace that are impossible or contradict each other, each in one line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal, get_args

from romexp.errors import ConfigError
from romexp.tracing.corruption import CORRUPTIONS
from romexp.tracing.metrics import METRICS

if TYPE_CHECKING:
    from romexp.tracing.tracer import Tracer

Direction = Literal["denoise", "noise"]
Method = Literal["exact", "attribution", "screen"]
Nodes = Literal["states", "heads", "neurons", "lens"]
CHOICES = {
    "window_convention": ("code", "paper"),
    "token_range": ("all", "subject_last"),
    "corruption": CORRUPTIONS,
    "metric": METRICS,
    "direction": get_args(Direction),
    "method": get_args(Method),
    "nodes": get_args(Nodes),
}


def check_settings(tracer: Tracer, *, kinds: tuple[str, ...]) -> None:
    """Check each setting, then the settings that do not go together.

    Raises:
        ConfigError: a setting has a value that is not possible, or makes no sense beside another.
    """
    budget = 1 if tracer.max_batch_tokens is None else tracer.max_batch_tokens
    if min(tracer.samples, tracer.width, tracer.top, budget) < 1 or tracer.extra_token < 0:
        raise ConfigError(
            "tracer: samples, window, top and max_batch_tokens must be at least 1, extra_token at least 0"
        )
    if tracer.usual_points < 1 or (tracer.points is not None and tracer.method == "exact"):
        raise ConfigError("tracer.points must be at least 1, and goes with tracer.method=attribution or screen")
    if not 0 < tracer.share <= 1:
        raise ConfigError(f"tracer.share: expected a share above 0 and at most 1, got {tracer.share!r}")
    _check_at_least(tracer)
    if unknown := [kind for kind in tracer.kinds if kind not in kinds]:
        raise ConfigError(f"tracer.kinds: {unknown[0]!r} is none of {', '.join(kinds)}")
    for name, allowed in CHOICES.items():
        if (value := getattr(tracer, name)) not in allowed:
            raise ConfigError(f"tracer.{name}: {value!r} is none of {', '.join(allowed)}")
    _check_together(tracer)
    _check_nodes(tracer)


def _check_at_least(tracer: Tracer) -> None:
    if tracer.at_least is None:
        return
    sizes = tracer.at_least if isinstance(tracer.at_least, Mapping) else dict.fromkeys(tracer.kinds, tracer.at_least)
    if unknown := [kind for kind in sizes if kind not in tracer.kinds]:
        raise ConfigError(f"tracer.at_least: {unknown[0]!r} is none of tracer.kinds ({', '.join(tracer.kinds)})")
    if tracer.method != "screen" or min(sizes.values(), default=0) <= 0:
        raise ConfigError("tracer.at_least must be above 0, and goes with tracer.method=screen")


def _check_together(tracer: Tracer) -> None:
    if tracer.metric == "logit_difference" and tracer.corruption != "str":
        raise ConfigError(
            "tracer.metric=logit_difference compares with a foil, the answer for another subject: "
            "it needs tracer.corruption=str"
        )
    if tracer.method != "exact" and tracer.width != 1:
        raise ConfigError(
            f"tracer.method={tracer.method} estimates single modules: it goes with tracer.window=1, not "
            f"{tracer.width} (an estimate of a window would count what flows through its modules several times)"
        )
    if tracer.grad_drop and tracer.method != "screen":
        raise ConfigError("tracer.grad_drop=true ranks cells for tracer.method=screen; no other method reads it")
    if tracer.corruption == "str":
        drawn = {
            "replace": tracer.replace,
            "replace_in_low_score": tracer.replace_in_low_score,
            "extra_token": tracer.extra_token,
            "severed_second_draw": tracer.severed_second_draw,
            "seed_per_case": tracer.seed_per_case,
        }
        if given := [name for name, value in drawn.items() if value]:
            raise ConfigError(f"tracer.{given[0]} is about noise, and tracer.corruption=str draws none")


def _check_nodes(tracer: Tracer) -> None:
    if tracer.nodes == "states":
        return
    name = f"tracer.nodes={tracer.nodes}"
    if tracer.width != 1:
        raise ConfigError(f"{name} replaces single parts: it goes with tracer.window=1, not {tracer.width}")
    if tracer.nodes == "lens" and tracer.setting:
        given = next(iter(tracer.setting))
        raise ConfigError(f"{name} reads the clean run and replaces nothing: tracer.{given} has no meaning for it")
    if tracer.method == "screen":
        raise ConfigError(
            f"{name} goes with tracer.method=exact (of neurons, those with the largest estimates are computed) or "
            "attribution, not screen"
        )
    if tracer.points is not None or tracer.normalized or tracer.token_range != "all" or tracer.replace:
        raise ConfigError(f"{name}: tracer.points, normalized, token_range and replace are for tracer.nodes=states")
