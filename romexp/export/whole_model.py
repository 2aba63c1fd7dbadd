"""Writes an edited model as a whole: a folder that transformers loads by itself."""

from __future__ import annotations

from pathlib import Path

from romexp.errors import ConfigError
from romexp.lm.apply_delta import applied
from romexp.lm.model import LanguageModel
from romexp.lm.weight_bars import without_weight_bars
from romexp.lm.weight_delta import WeightDelta


def refuse_for_whole_model(lm: LanguageModel) -> None:
    """Check that an edit can be written into the model's weights.

    Raises:
        ConfigError: the weights are quantized.
    """
    if getattr(lm.model.config, "quantization_config", None):
        raise ConfigError(
            f"{lm.name}: its weights are quantized, and an edit cannot be written into them: "
            "export a PEFT adapter (task.format=peft), or load the model in a float type"
        )


def write_whole_model(lm: LanguageModel, delta: WeightDelta, folder: Path) -> None:
    """Write configuration, edited weights, generation settings and tokenizer. The model is as before afterwards.

    The weights have the type that `lm` has; large models are split into several files.
    """
    with applied(lm, delta), without_weight_bars():
        lm.model.save_pretrained(folder)
    lm.tokenizer.save_pretrained(folder)
