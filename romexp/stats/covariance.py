"""Where the second moments of an experiment come from (configuration group `covariance`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from romexp.bounds import check_bounds
from romexp.errors import ConfigError, DataError, RecordError
from romexp.lm.model import LanguageModel
from romexp.stats.cache import Entry, MomentCache, key_of, load_measured
from romexp.stats.fit import Checkpoint, Corpus, Progress, batch_tokens, fit, sample
from romexp.stats.keys import key_module, key_width, largest_key_width
from romexp.stats.memory import layers_that_fit
from romexp.stats.moment_fitter import MomentFitter, sum_dtype, versions
from romexp.stats.moment_source import MomentSource
from romexp.stats.readers import Published, read, read_files
from romexp.stats.sampled import SampledTexts, first_half, second_half
from romexp.stats.second_moment import SecondMoment, save_moments
from romexp.stats.token_counts import ENOUGH, check_tokens, say_measured

LONGEST = 2048
"""Default limit for the tokens of a text: the context of GPT-J, which is the longest of the authors' models."""


@dataclass(frozen=True, kw_only=True)
class Covariance:
    """Second moments C = E[k kᵀ] of a model's keys (docs/method.md §3.3).

    The first of these sources that is set and fits the model is used: `path`, `published`, `shipped`, the cache, a pass
    over `corpus`.

    Attributes:
        corpus: texts to measure on (`romexp.data.corpora`), or texts that the model writes itself
            (`romexp.stats.sampled.SampledTexts`). None: nothing is measured.
        path: a statistics file: our .safetensors, an .npz with `moment`, or an .npz of the authors; or a folder of such
            files. It may contain `{layer}` or `{module}`.
        published: the statistics that the authors publish, which are downloaded.
        shipped: a .safetensors file of ours. It is used only if it was measured on this model with these settings.
        sample_size: number of texts; None takes all.
        sample_seed: seed of the shuffle that chooses the texts; the authors use 1.
        max_tokens: tokens read from all texts together. None takes 10 D for texts that the model writes, where D is the
            largest width of its keys, and all tokens of any other corpus, as the authors do.
        text_tokens: tokens read from each text. None takes the model's context, but at most 2048. The authors take the
            context (1024 or 2048).
        batch_tokens: tokens of a forward pass, padding included (the authors: three contexts). None lets the device
            decide. Affects only rounding.
        dtype: type of the sums, `float32` as the authors use, or `float64`.
        cache_dir: folder for measured statistics and for unfinished passes; None stores nothing.
        checkpoint_every: number of texts after which an unfinished pass is saved; 0 never saves it.
        check_model: refuse a file in `path` if its metadata name another model.
    """

    corpus: Corpus | SampledTexts | None = None
    path: str | Path | None = None
    published: Published | None = None
    shipped: str | Path | None = None
    sample_size: int | None = 100_000
    sample_seed: int = 1
    max_tokens: int | None = None
    text_tokens: int | None = None
    batch_tokens: int | None = None
    dtype: str = "float32"
    cache_dir: str | Path | None = None
    checkpoint_every: int = 5000
    check_model: bool = True

    def __post_init__(self) -> None:
        check_bounds(
            self,
            "covariance",
            from_0=("sample_seed", "checkpoint_every"),
            from_1=("sample_size", "max_tokens", "text_tokens", "batch_tokens"),
        )

    def moments(
        self, lm: LanguageModel, layers: Sequence[int], *, also: Sequence[int] = (), progress: Progress | None = None
    ) -> dict[int, SecondMoment]:
        """The second moments of `layers`. Those that must be measured are measured in one pass over the corpus.

        A warning names those of few tokens (`romexp.stats.token_counts`).

        Args:
            also: layers that will be needed later. If a pass is needed, they are measured in it too, as far as memory
                allows, and stored in the cache. Layers that the model lacks are left out.
            progress: called with the number of texts done and the total, first before the pass begins. It is not called
                if nothing is measured. If there is a limit of tokens, it gets numbers of tokens; those of texts that
                the model writes count twice, since they are drawn and then measured.

        Raises:
            ConfigError: the model has no such layer, a field has a bad value, there is no source, a file was measured
                on another model, or there were fewer tokens than entries of a key.
            DataError: a file is not a valid statistics file, or the corpus cannot be read. It is never a `RecordError`,
                for which an editor's caller would blame a fact.
        """
        if wrong := [layer for layer in layers if not 0 <= layer < lm.n_layers]:
            raise ConfigError(f"second moment of layer {wrong}: {lm.name} has layers 0 to {lm.n_layers - 1}")
        found = self._found(lm, sorted(set(layers)), also, progress)
        check_tokens(found)
        return found

    def at_hand(self, lm: LanguageModel, layers: Sequence[int]) -> dict[int, SecondMoment]:
        """Those of the second moments that need no pass over texts.

        Raises:
            ConfigError: see `moments`.
            DataError: see `moments`.
        """
        if self.path is not None or self.published is not None:
            return self.moments(lm, layers)
        found = self._from_shipped(lm, layers)
        if self.cache_dir is not None:
            cache = MomentCache(folder=self._folder(lm, self.cache_dir))
            stored = {layer: cache.get(self._entry(lm, layer)) for layer in layers if layer not in found}
            found |= {layer: moment for layer, moment in stored.items() if moment is not None}
        return found

    def _found(
        self, lm: LanguageModel, wanted: Sequence[int], also: Sequence[int], progress: Progress | None
    ) -> dict[int, SecondMoment]:
        if self.path is not None:
            return read_files(lm, self.path, wanted, check_model=self.check_model)
        if self.published is not None:
            files = {layer: self.published.locate(key_module(lm, layer)) for layer in wanted}
            return {layer: read(file, layer=layer, width=key_width(lm, layer)) for layer, file in files.items()}
        found = self._from_shipped(lm, wanted)
        if missing := [layer for layer in wanted if layer not in found]:
            found |= self._from_cache(lm, missing, also, progress)
        return found

    def source(
        self, lm: LanguageModel, *, also: Callable[[], Sequence[int]] = tuple, progress: Progress | None = None
    ) -> MomentSource:
        """A function that returns a layer's second moment. It loads or measures each one once and keeps it in memory.

        Args:
            also: returns the layers for `moments`; it is called when a second moment is asked for.
            progress: as for `moments`.
        """
        return MomentSource(load=lambda layers: self.moments(lm, layers, also=also(), progress=progress))

    def _from_shipped(self, lm: LanguageModel, layers: Sequence[int]) -> dict[int, SecondMoment]:
        if self.shipped is None or self.corpus is None or not Path(self.shipped).is_file():
            return {}
        usual = replace(lm, matmul_precision="highest")  # with which they were measured
        keys = {layer: key_of(self.ingredients(usual, layer)) for layer in layers}
        return load_measured(Path(self.shipped), keys)

    def _from_cache(
        self, lm: LanguageModel, layers: Sequence[int], also: Sequence[int], progress: Progress | None
    ) -> dict[int, SecondMoment]:
        if self.cache_dir is None:
            return self._fit(lm, layers, progress, None)
        cache = MomentCache(folder=self._folder(lm, self.cache_dir))
        entries = {layer: self._entry(lm, layer) for layer in layers}
        found = {layer: moment for layer, entry in entries.items() if (moment := cache.get(entry))}
        if missing := [layer for layer in layers if layer not in found]:
            more = {n: self._entry(lm, n) for n in also if 0 <= n < lm.n_layers and n not in entries}
            unknown = [layer for layer, entry in more.items() if not cache.path(entry).is_file()]
            asked = layers_that_fit(lm, missing, unknown, self.dtype)
            found |= self._measured_once(lm, {n: (entries | more)[n] for n in asked}, cache, progress)
        return {layer: found[layer] for layer in layers}

    def _measured_once(
        self, lm: LanguageModel, entries: Mapping[int, Entry], cache: MomentCache, progress: Progress | None
    ) -> dict[int, SecondMoment]:
        """Measure those layers that no other process has measured in the meantime, and store them."""
        with cache.locked(list(entries.values())):
            found = {layer: moment for layer, entry in entries.items() if (moment := cache.get(entry))}
            if missing := [layer for layer in entries if layer not in found]:
                checkpoint = self._checkpoint(lm, missing, cache.folder)
                fitted = self._fit(lm, missing, progress, checkpoint)
                for layer, moment in fitted.items():
                    cache.put(entries[layer], moment)
                if checkpoint:
                    checkpoint.path.unlink(missing_ok=True)
                found |= fitted
            return found

    def _folder(self, lm: LanguageModel, cache_dir: str | Path) -> Path:
        return Path(cache_dir).expanduser() / lm.name.replace("/", "_")

    def _checkpoint(self, lm: LanguageModel, layers: Sequence[int], folder: Path) -> Checkpoint | None:
        if self.checkpoint_every <= 0:
            return None
        # A resumed pass must give the same bits as an uninterrupted one, and the batch size affects rounding.
        work: dict[str, Any] = {str(layer): self.ingredients(lm, layer) for layer in layers}
        key = key_of(work | {"batch_tokens": self._batch_tokens(lm)})
        return Checkpoint(path=folder / f"unfinished_{key}.safetensors", key=key, every=self.checkpoint_every)

    def _fit(
        self, lm: LanguageModel, layers: Sequence[int], progress: Progress | None, checkpoint: Checkpoint | None
    ) -> dict[int, SecondMoment]:
        ingredients = {layer: self.ingredients(lm, layer) for layer in layers}
        corpus = self._corpus(lm, progress)
        if progress is not None and isinstance(self.corpus, SampledTexts):
            progress = second_half(progress)
        try:
            fitters, read_texts = self._sums(lm, layers, corpus, progress, checkpoint)
        except RecordError as error:  # An editor's caller would take it for the error of a fact.
            raise DataError(f"covariance.corpus: {error}") from error
        if not all(fitter.count for fitter in fitters.values()):
            raise ConfigError(f"covariance.corpus: no text with any tokens in {dict(corpus.provenance)}")
        common = {"model": lm.name, "texts": read_texts, "versions": versions()}
        measured = {
            layer: fitter.result({**common, **i, "layer": layer, "key": key_of(i)})
            for layer, fitter in fitters.items()
            for i in (ingredients[layer],)
        }
        say_measured(measured)
        return measured

    def _sums(
        self,
        lm: LanguageModel,
        layers: Sequence[int],
        corpus: Corpus,
        progress: Progress | None,
        checkpoint: Checkpoint | None,
    ) -> tuple[dict[int, MomentFitter], int]:
        texts, total = sample(corpus.load(), self.sample_size, seed=self.sample_seed)
        return fit(
            lm,
            texts,
            layers,
            max_tokens=self._text_limit(lm),
            total_tokens=self._total_limit(lm),
            batch_tokens=self._batch_tokens(lm),
            dtype=sum_dtype(self.dtype),
            total=total,
            progress=progress,
            checkpoint=checkpoint,
        )

    def ingredients(self, lm: LanguageModel, layer: int) -> dict[str, Any]:
        """JSON-ready settings that affect the second moment of a layer by more than rounding.

        Raises:
            ConfigError: a field has a bad value, or there is no corpus.
        """
        if self.sample_size is not None and self.sample_size < 1:
            raise ConfigError(f"covariance.sample_size: {self.sample_size}, expected at least 1, or null for all texts")
        sum_dtype(self.dtype)
        total = self._total_limit(lm)
        # "max_tokens" of each text is older than the setting of this name. It stays, so that stored files remain valid.
        return {
            "model_digest": lm.digest,
            "module": key_module(lm, layer),
            "corpus": dict(self._corpus(lm).provenance),
            "sample_size": self.sample_size,
            "sample_seed": self.sample_seed,
            "max_tokens": self._text_limit(lm),
            "dtype": self.dtype,
            **({} if total is None else {"total_tokens": total}),
            **({} if lm.matmul_precision == "highest" else {"matmul_precision": lm.matmul_precision}),
        }

    def _corpus(self, lm: LanguageModel, progress: Progress | None = None) -> Corpus:
        if self.corpus is None:
            raise ConfigError("covariance: no statistics for this model; set covariance.path or covariance.corpus")
        if not isinstance(self.corpus, SampledTexts):
            return self.corpus
        return self.corpus.written_by(
            lm,
            tokens=self._total_limit(lm) or 1,
            folder=None if self.cache_dir is None else self._folder(lm, self.cache_dir),
            progress=None if progress is None else first_half(progress),
        )

    def _entry(self, lm: LanguageModel, layer: int) -> Entry:
        return Entry(layer=layer, key=key_of(self.ingredients(lm, layer)), name=f"{key_module(lm, layer)}_{self.dtype}")

    def _text_limit(self, lm: LanguageModel) -> int:
        if self.text_tokens is None:
            return min(lm.max_positions, LONGEST)
        if self.text_tokens > (most := lm.max_positions):
            raise ConfigError(f"covariance.text_tokens: {self.text_tokens}, expected 1 to {most} ({lm.name})")
        return self.text_tokens

    def _total_limit(self, lm: LanguageModel) -> int | None:
        if self.max_tokens is None and isinstance(self.corpus, SampledTexts):
            return ENOUGH * largest_key_width(lm)
        return self.max_tokens

    def _batch_tokens(self, lm: LanguageModel) -> int:
        return self.batch_tokens or batch_tokens(lm.device)


def ship(covariance: Covariance, lm: LanguageModel, path: Path, *, progress: Progress | None = None) -> None:
    """Measure all layers of a small model in one pass and write one file for `Covariance.shipped`.

    The cache and the other sources are not used. The file holds packed float32 triangles: 4.2 MB for 8 layers of width
    512.
    """
    layers = range(lm.n_layers)
    save_moments(path, covariance._fit(lm, layers, progress, None))
