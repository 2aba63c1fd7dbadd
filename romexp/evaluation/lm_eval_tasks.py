"""Benchmarks of the Language Model Evaluation Harness (`lm_eval`), on a model in memory (docs/method.md §13.4)."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from romexp.bounds import check_bounds
from romexp.errors import ConfigError
from romexp.lm.model import LanguageModel


@dataclass(frozen=True, kw_only=True)
class LmEvalTasks:
    """Benchmarks to run. They need the package `lm_eval` (`pip install '.[lm-eval]'`).

    Attributes:
        tasks: names of tasks of the harness.
        limit: examples of each task; None takes all.
        num_fewshot: worked examples before each question; None takes the task's own number.
        include_path: a folder of the user's own task files (YAML); None takes the harness's tasks alone.
        batch_size: examples in a batch.
    """

    tasks: Sequence[str]
    limit: int | None = 100
    num_fewshot: int | None = None
    include_path: str | None = None
    batch_size: int = 8

    def __post_init__(self) -> None:
        if not self.tasks or isinstance(self.tasks, str):
            raise ConfigError("task.watch.lm_eval.tasks: expected a list with at least one name")
        check_bounds(self, "task.watch.lm_eval", from_1=("limit", "batch_size"), from_0=("num_fewshot",))

    def __call__(self, lm: LanguageModel) -> dict[str, float]:
        """The scores by `<task>/<metric>`, of the model as its weights are now.

        Raises:
            ConfigError: the package is missing, or it does not know a task.
        """
        evaluator, models, tasks = _imported()
        known = tasks.TaskManager(include_path=self.include_path)
        if unknown := [name for name in self.tasks if name not in known.all_tasks]:
            raise ConfigError(f"task.watch.lm_eval.tasks: lm_eval has no task {unknown[0]!r}")
        model = models.HFLM(pretrained=lm.model, tokenizer=lm.tokenizer, batch_size=self.batch_size)
        found = evaluator.simple_evaluate(
            model=model,
            tasks=list(self.tasks),
            limit=self.limit,
            num_fewshot=self.num_fewshot,
            task_manager=known,
            bootstrap_iters=0,
            log_samples=False,
        )
        return {
            f"{task}/{metric.partition(',')[0]}": float(value)
            for task, scores in found["results"].items()
            for metric, value in scores.items()
            if isinstance(value, (int, float)) and "," in metric and "_stderr" not in metric
        }


def _imported() -> tuple[Any, Any, Any]:
    """The three modules of the harness that are used. It is imported late, since that takes seconds.

    Raises:
        ConfigError: the package is missing.
    """
    try:
        import lm_eval.evaluator
        import lm_eval.models.huggingface
        import lm_eval.tasks
    except ImportError as error:
        raise ConfigError(f"task.watch.lm_eval: {error}; pip install 'romexp[lm-eval]'") from error
    logging.getLogger("lm_eval").setLevel(logging.WARNING)
    return lm_eval.evaluator, lm_eval.models.huggingface, lm_eval.tasks
