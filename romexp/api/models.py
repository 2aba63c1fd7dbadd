"""Loading a language model, and asking it for text."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import overload

import pandas as pd
from hydra.utils import instantiate
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from romexp.api import checks
from romexp.api.generation import continue_texts, next_tokens
from romexp.compose import compose_config, options
from romexp.errors import ConfigError
from romexp.files import cache_folder
from romexp.lm.architecture import architecture_for
from romexp.lm.kept_digest import load_with_digest
from romexp.lm.model import LanguageModel, PretrainedModel, prepare, with_precision
from romexp.lm.precision import MatmulPrecision, check_precision


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class LoadedModel(LanguageModel):
    """A language model that was loaded by `romexp.load`.

    Attributes:
        option: the model's option in the config group `model`; empty if it has none. A method's settings for this
            option (`conf/editor_model/`) apply to it, as on the command line.
        source: the name, folder or hub id from which it can be loaded again; empty for a model object.
    """

    option: str = ""
    source: str = ""

    @overload
    def generate(self, prompt: str, max_new_tokens: int = 20, *, top_k: int = 1, seed: int = 0) -> str: ...
    @overload
    def generate(self, prompt: list[str], max_new_tokens: int = 20, *, top_k: int = 1, seed: int = 0) -> list[str]: ...

    def generate(
        self, prompt: str | list[str], max_new_tokens: int = 20, *, top_k: int = 1, seed: int = 0
    ) -> str | list[str]:
        """Continue a text, or each text of a list. The prompt is part of the returned text.

        Args:
            top_k: number of most likely tokens among which each token is drawn; 1 always takes the most likely one.
            seed: seed of the draws.
        """
        return continue_texts(self, prompt, max_new_tokens, top_k=top_k, seed=seed, delta=None)

    def next_tokens(self, prompt: str, n: int = 5) -> pd.DataFrame:
        """The n most likely next tokens: `token` and `probability`."""
        return next_tokens(self, prompt, n, delta=None)

    def __repr__(self) -> str:
        size = sum(parameter.numel() for parameter in self.model.parameters()) / 1e6
        dtype = str(self.dtype).removeprefix("torch.")
        family = self.architecture.family
        return f"<{self.name}: {family}, {self.n_layers} layers, {size:.1f} M parameters, {dtype} on {self.device}>"


def load(
    model: str | Path | PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase | None = None,
    *,
    name: str = "",
    dtype: str = "float32",
    matmul_precision: MatmulPrecision = "highest",
    device: str = "auto",
) -> LoadedModel:
    """Load a model, or take one that is loaded.

    Args:
        model: a name that the program knows (`minifact`, `gpt2-xl`, … the options of the config group `model`), a local
            folder, a GGUF file, an id of the Hugging Face hub; or a model object, which then needs its tokenizer. A
            model object is put into evaluation mode and its weights are frozen.
        tokenizer: of a model object; a fast one.
        name: short name for tables; by default the option's, or the last part of the path.
        dtype: type of the weights, as `bfloat16`. Not for a model object.
        matmul_precision: how exactly matrix products of float32 weights are computed: `highest`, `high` (TF32) or
            `medium` (bfloat16), where the machine has it; else a warning says that it has no effect. It holds inside
            the functions of this package and not for what you run with the model yourself.
        device: `auto` takes an accelerator if there is one. Not for a model object.

    Raises:
        ConfigError: there is no such model, or it cannot be used; the message says what was expected.
    """
    if isinstance(model, PreTrainedModel):
        check_precision(matmul_precision)
        return _taken(model, tokenizer, name, matmul_precision)
    if not isinstance(model, str | Path):
        raise ConfigError(f"model: expected a name, a folder or a Hugging Face model, got {type(model).__name__}")
    if tokenizer is not None:
        raise ConfigError("tokenizer: only for a model object; a folder or hub id has its own")
    path = checks.text(str(model), "model")
    known = [option for option in options("model") if option != "hf"]
    if path in known:
        settings: PretrainedModel = instantiate(compose_config([f"model={path}"]).model)
    else:
        settings = PretrainedModel(path=path)
    chosen = replace(
        settings, name=name or settings.name, dtype=dtype, matmul_precision=matmul_precision, device=device
    )
    lm = load_with_digest(chosen, cache_folder(None) / "digests")
    return _as_loaded(lm, option=path if path in known else "", source=path)


def _taken(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None, name: str, precision: MatmulPrecision
) -> LoadedModel:
    if not isinstance(tokenizer, PreTrainedTokenizerBase):
        raise ConfigError("tokenizer: a model object needs its tokenizer: romexp.load(model, tokenizer)")
    config = model.config
    called = name or Path(str(config.name_or_path)).name or config.model_type
    lm = prepare(model, tokenizer, architecture=architecture_for(config.model_type), name=called)
    return _as_loaded(with_precision(lm, precision), option="", source="")


def _as_loaded(lm: LanguageModel, *, option: str, source: str) -> LoadedModel:
    return LoadedModel(
        model=lm.model,
        tokenizer=lm.tokenizer,
        architecture=lm.architecture,
        name=lm.name,
        provenance=lm.provenance,
        option=option,
        source=source,
        known_digest=lm.known_digest,
        matmul_precision=lm.matmul_precision,
    )
