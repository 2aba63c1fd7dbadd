"""When a sequence of edits ends early, because the model has collapsed (docs/method.md §13.4)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from romexp.bounds import check_bounds


@dataclass(frozen=True, kw_only=True)
class StopRule:
    """Limits of the signs of collapse. None sets none; the default has no limit at all.

    Attributes:
        perplexity: the sequence ends when the perplexity is more than this many times that of the original model, or is
            no number.
        entropy: it ends when the word entropy of generated texts is below this share of the original model's.
        hidden_shift: it ends when the mean relative shift of hidden states is above this.
        weight_change: it ends when ‖ΔW‖ / ‖W‖ of a layer is above this.

    Raises:
        ConfigError: a limit is not above 0.
    """

    perplexity: float | None = None
    entropy: float | None = None
    hidden_shift: float | None = None
    weight_change: float | None = None

    def __post_init__(self) -> None:
        limits = ("perplexity", "entropy", "hidden_shift", "weight_change")
        check_bounds(self, "task.watch.stop", above_0=limits)

    def reason(self, before: Mapping[str, float], now: Mapping[str, float]) -> str:
        """Why the sequence must end, in words; empty if it goes on.

        Args:
            before: signs of the original model (`romexp.evaluation.collapse.Watcher.signs`).
            now: signs of the edited model. A sign that is missing is not a number there.
        """
        if self.perplexity is not None:
            if "perplexity" not in now:
                return "the perplexity is no number"
            if now["perplexity"] > self.perplexity * before["perplexity"]:
                ratio = now["perplexity"] / before["perplexity"]
                return (
                    f"perplexity {now['perplexity']:.4g} is {ratio:.3g} times the original {before['perplexity']:.4g}, "
                    f"the limit is {self.perplexity:g} times"
                )
        if self.entropy is not None and now.get("entropy", 0.0) < self.entropy * before["entropy"]:
            return (
                f"word entropy {now.get('entropy', 0.0):.3f} is below {self.entropy:g} times the original "
                f"{before['entropy']:.3f}"
            )
        if self.hidden_shift is not None and not now.get("hidden_shift", float("inf")) <= self.hidden_shift:
            return (
                f"hidden states are shifted by {now.get('hidden_shift', float('nan')):.3g}, above {self.hidden_shift:g}"
            )
        if self.weight_change is not None:
            for name, ratio in now.items():
                layer = name.removeprefix("weight_change/")
                if layer != name and ratio > self.weight_change:
                    return f"the weights of layer {layer} are changed by {ratio:.3g}, above {self.weight_change:g}"
        return ""
