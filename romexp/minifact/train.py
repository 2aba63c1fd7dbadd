"""Makes minifact's data files, tokenizer and model from seeds."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from transformers import GPT2LMHeadModel, PreTrainedTokenizerFast

from romexp.bounds import check_bounds
from romexp.files import replacing, write_text
from romexp.lm.tensor_files import os_errors_of_safetensors
from romexp.minifact import assets, records, snippets
from romexp.minifact.batches import Batch, BatchMaker
from romexp.minifact.corpus import CorpusMix, CorpusWriter
from romexp.minifact.prompts import plain_prompts, prefixed_prompts, question_prompts
from romexp.minifact.recall import Recall, measure_recall
from romexp.minifact.tokenizer import PieceEncoder, save_tokenizer, train_tokenizer
from romexp.minifact.training import OnStep, Shape, Training, keep_memory
from romexp.minifact.world import World, WorldMaker


@dataclass(frozen=True, kw_only=True)
class DataSizes:
    """Numbers of records in the data files.

    Attributes:
        counterfact, zsre, known: records of the three data sets.
        snippets: largest number of reference texts for one relation and object.
        corpus: documents in the sample of the corpus.
        tokenizer: documents that the tokenizer is trained on.
    """

    counterfact: int = 1000
    zsre: int = 500
    known: int = 600
    snippets: int = 8
    corpus: int = 4000
    tokenizer: int = 300

    def __post_init__(self) -> None:
        check_bounds(
            self, "task.trainer.sizes", from_1=("counterfact", "zsre", "known", "snippets", "corpus", "tokenizer")
        )


@dataclass(frozen=True, kw_only=True)
class RecallReport:
    """Recall of told facts by plain prompts, by prompts after an unrelated sentence, and by questions."""

    plain: Recall
    prefixed: Recall
    question: Recall


@dataclass(frozen=True, kw_only=True)
class TrainMinifact:
    """Writes the files that ship with romexp into a folder: the world's data, its tokenizer and the model.

    Attributes:
        world: the fictional world.
        mix: kinds of documents in its corpus.
        shape: size of the model. `shape.vocabulary` is an upper bound; the trained tokenizer decides the actual size.
        training: optimizer and schedule. A step takes 0.16 s on one idle core.
        sizes: numbers of records.
        first_subjects: number of subjects that the first steps are about. A model learns to recall a few facts within
            some hundred steps, and then learns the others too. With all facts from the start, the loss stays on a
            plateau for thousands of steps (Zucchet et al. 2025, "How do language models learn facts?").
        first_steps: number of these first steps.
        rows: sequences in a batch.
        length: tokens in a sequence.
        seed: seed of the corpus and the data files. The world and the training have their own seeds.
    """

    world: WorldMaker = field(default_factory=WorldMaker)
    mix: CorpusMix = field(default_factory=CorpusMix)
    shape: Shape = field(default_factory=Shape)
    training: Training = field(default_factory=Training)
    sizes: DataSizes = field(default_factory=DataSizes)
    first_subjects: int = 150
    first_steps: int = 800
    rows: int = 16
    length: int = 96
    seed: int = 0

    def __post_init__(self) -> None:
        check_bounds(self, "task.trainer", from_0=("first_steps", "seed"), from_1=("first_subjects", "rows", "length"))

    def __call__(self, out: Path, on_step: OnStep | None = None) -> RecallReport:
        """Write all files into the folder `out`, and measure the model.

        Args:
            out: a folder, which is made if it is missing. Files in it are replaced.
            on_step: called after every update with (step, loss, model), for example to show progress.

        Returns:
            the recall of 500 told facts.
        """
        world = self.world()
        self.write_data(world, out)
        tokenizer = self.tokenizer(world)
        save_tokenizer(tokenizer, out / assets.MODEL)
        model = self.train(world, tokenizer, on_step)
        with os_errors_of_safetensors(out / assets.MODEL):
            model.save_pretrained(str(out / assets.MODEL))
        return recall_report(model, tokenizer, world, facts=500, seed=self.seed)

    def write_data(self, world: World, out: Path) -> None:
        """Write the data sets, the snippets, the TF-IDF statistics and the sample of the corpus."""
        (out / assets.TFIDF).mkdir(parents=True, exist_ok=True)
        _write_records(out / assets.COUNTERFACT, records.counterfact_records(world, self.sizes.counterfact, self.seed))
        _write_records(out / assets.ZSRE, records.zsre_records(world, self.sizes.zsre, self.seed))
        _write_records(out / assets.KNOWN, records.known_records(world, self.sizes.known, self.seed))
        texts = snippets.attribute_snippets(world, self.sizes.snippets, self.seed)
        _write_records(out / assets.SNIPPETS, texts)
        idf, vocabulary = snippets.tfidf_statistics(texts)
        with replacing(out / assets.TFIDF / assets.IDF) as part, part.open("wb") as file:
            np.save(file, idf)
        write_text(out / assets.TFIDF / assets.VOCABULARY, json.dumps(vocabulary))
        lines = snippets.corpus_lines(world, self.mix, self.sizes.corpus, self.seed)
        write_text(out / assets.CORPUS, "".join(f"{line}\n" for line in lines))

    def tokenizer(self, world: World) -> PreTrainedTokenizerFast:
        """Train the tokenizer on documents about this world."""
        writer = CorpusWriter(world, self.mix, f"tokenizer {self.seed}")
        return train_tokenizer(itertools.islice(iter(writer), self.sizes.tokenizer), self.shape.vocabulary)

    def train(self, world: World, tokenizer: PreTrainedTokenizerFast, on_step: OnStep | None = None) -> GPT2LMHeadModel:
        """Train a model. Its documents are written while it is trained, so each is new."""
        first = self._batches(world.part(self.first_subjects, self.seed), tokenizer, f"first {self.seed}")
        rest = self._batches(world, tokenizer, f"train {self.seed}")
        keep_memory()
        shape = replace(self.shape, vocabulary=len(tokenizer))
        return self.training(shape, itertools.chain(itertools.islice(first, self.first_steps), rest), on_step)

    def _batches(self, world: World, tokenizer: PreTrainedTokenizerFast, seed: str) -> Iterator[Batch]:
        writer, encoder = CorpusWriter(world, self.mix, seed), PieceEncoder(tokenizer)
        return iter(BatchMaker(writer, encoder, rows=self.rows, length=self.length, end_of_text=0, seed=seed))


def recall_report(
    model: GPT2LMHeadModel, tokenizer: PreTrainedTokenizerFast, world: World, *, facts: int, seed: int
) -> RecallReport:
    """The recall of at most `facts` told facts, drawn at random."""
    rng = random.Random(f"minifact recall {seed}")
    chosen = rng.sample(world.told, min(facts, len(world.told)))
    return RecallReport(
        plain=measure_recall(model, tokenizer, plain_prompts(chosen, rng)),
        prefixed=measure_recall(model, tokenizer, prefixed_prompts(world, chosen, rng)),
        question=measure_recall(model, tokenizer, question_prompts(chosen, rng)),
    )


def _write_records(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write a JSON list with one record on each line."""
    lines = ",\n".join(json.dumps(row, ensure_ascii=False, separators=(",", ":")) for row in rows)
    write_text(path, f"[\n{lines}\n]\n")
