"""The part of a trace's identity that its tracer gives (docs/method.md §11.4)."""

from __future__ import annotations

from typing import Any

from romexp.results.identity import fingerprint
from romexp.tracing.tracer import PAPER, Tracer

SCREEN_ONLY = ("share", "at_least", "grad_drop")
NOISE_ONLY = ("noise", "samples")
STATES_ONLY = ("kinds", "severed", "severed_second_draw", "window", "window_convention", "token_range", "points")


def tracer_identity(tracer: Tracer) -> dict[str, Any]:
    """The tracer's fields that affect the result. The window is the one that is used, however it was set.

    What the paper does is left out, so that traces in its setting keep the hashes that they had before there were
    others. Settings that the method or the corruption does not read are left out too.
    """
    identity: dict[str, Any] = fingerprint(tracer, without=("usual_window",))
    identity |= {"window": tracer.width, "points": tracer.usual_points}
    left_out = [name for name, usual in PAPER.items() if identity[name] == usual]
    left_out += ["points"] if tracer.method == "exact" else []
    left_out += SCREEN_ONLY if tracer.method != "screen" else ()
    left_out += ("at_least",) if tracer.at_least is None else ("share",)
    left_out += NOISE_ONLY if tracer.corruption != "noise" else ()
    left_out += ("nodes",) if tracer.nodes == "states" else STATES_ONLY
    left_out += ("top",) if tracer.nodes != "neurons" else ()
    left_out += NOISE_ONLY if tracer.nodes == "lens" else ()
    kept = {name: value for name, value in identity.items() if name not in left_out}
    if not tracer.traces_severed and tracer.setting and tracer.nodes == "states":
        kept["severed"] = False
    return kept
