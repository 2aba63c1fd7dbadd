"""Signs of collapse: of the original model, of an edit, against plain computation; the rule that ends a sequence."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from romexp.data.corpora import TextCorpus, TextList
from romexp.data.english import texts_path
from romexp.errors import ConfigError, DataError
from romexp.evaluation.collapse import CollapseWatch, weight_changes
from romexp.evaluation.lm_eval_tasks import LmEvalTasks
from romexp.evaluation.stop_rule import StopRule
from romexp.lm.apply_delta import applied, weight_in_out
from romexp.lm.model import LanguageModel
from romexp.lm.sampling import Sampler
from romexp.lm.weight_delta import Dense, LowRank, WeightDelta
from romexp.words import word_entropy

TEXTS = TextList(items=("Anna Zoë plays the violin", "Paris is in France, and Zürich is not", "x"))
WATCH = CollapseWatch(corpus=TEXTS, prompt_words=2, sampler=Sampler(max_length=12))


def edit(lm: LanguageModel, size: float) -> WeightDelta:
    """A low-rank change of one matrix and a dense one of another, in two layers."""
    made = torch.Generator().manual_seed(0)
    names = [f"{lm.architecture.mlp_out_name(layer)}.weight" for layer in (1, 2)]
    first, second = (weight_in_out(lm, name) for name in names)
    left, right = (torch.randn(n, 3, generator=made) for n in first.shape)
    dense = torch.randn(second.shape, generator=made)
    return WeightDelta(
        terms={names[0]: LowRank(left=size * left, right=right), names[1]: Dense(value=0.1 * size * dense)}
    )


def test_signs_are_those_of_a_plain_computation(tiny_lm: LanguageModel) -> None:
    delta, watcher = edit(tiny_lm, 0.1), WATCH.watcher(tiny_lm, seed=0)

    def read(text: str) -> tuple[torch.Tensor, torch.Tensor]:
        ids = torch.tensor([tiny_lm.tokenizer(text)["input_ids"]])
        with torch.no_grad():
            scores = tiny_lm.model(input_ids=ids).logits[0, :-1].float().log_softmax(dim=-1)
            states = tiny_lm.model.base_model(input_ids=ids).last_hidden_state[0, :-1].float()
        return -scores[torch.arange(len(scores)), ids[0, 1:]], states

    longer = [text for text in TEXTS.items if len(tiny_lm.tokenizer(text)["input_ids"]) > 1]
    before = [read(text) for text in longer]
    with applied(tiny_lm, delta):
        after = [read(text) for text in longer]
    signs = watcher.signs(delta)
    nlls = torch.cat([nll for nll, _ in after])
    assert signs["perplexity"] == pytest.approx(math.exp(float(nlls.mean())), rel=1e-4)
    h, changed = torch.cat([states for _, states in before]), torch.cat([states for _, states in after])
    expected = ((changed - h).norm(dim=-1) / h.norm(dim=-1)).mean()
    assert signs["hidden_shift"] == pytest.approx(float(expected), rel=1e-3)
    original = watcher.signs(WeightDelta())
    assert original["hidden_shift"] == 0
    assert signs["perplexity"] != original["perplexity"]
    assert 0 < signs["entropy"] <= 1
    assert watcher.signs(delta) == signs  # nothing is left from the call before


def test_weight_changes_are_ratios_of_norms(tiny_lm: LanguageModel) -> None:
    delta = edit(tiny_lm, 0.1)
    expected = {
        layer: float(term.dense().norm() / weight_in_out(tiny_lm, name).norm())
        for layer, (name, term) in zip((1, 2), delta.terms.items(), strict=True)
    }
    found = weight_changes(tiny_lm, delta)
    assert list(found) == [1, 2]
    assert found == pytest.approx(expected, rel=1e-5)


def test_word_entropy() -> None:
    assert word_entropy(["a b c d"]) == pytest.approx(1)
    assert word_entropy(["the the the", "The"]) == 0
    assert word_entropy([]) == 0
    quarter = 2 - 0.75 * math.log2(3)  # of a word with 1/4 and one with 3/4
    assert word_entropy(["a a", "a b"]) == pytest.approx(quarter)


def test_a_broken_model_has_signs_too(tiny_gpt2: LanguageModel) -> None:
    """A model whose logits are no numbers has no perplexity, and writes nothing."""
    name = f"{tiny_gpt2.architecture.mlp_out_name(1)}.weight"
    shape = weight_in_out(tiny_gpt2, name).shape
    broken = WeightDelta(terms={name: Dense(value=torch.full(shape, float("nan")))})
    assert WATCH.watcher(tiny_gpt2, seed=0).signs(broken) == {}


def test_a_long_sampler_is_cut_to_the_context(tiny_gpt2: LanguageModel) -> None:
    watch = CollapseWatch(corpus=TEXTS, sampler=Sampler(max_length=10**6), n_texts=1, max_tokens=10**6)
    assert "entropy" in watch.watcher(tiny_gpt2, seed=0).signs(WeightDelta())


def test_the_shipped_texts() -> None:
    texts = CollapseWatch(corpus=TextCorpus(path=texts_path(), unit="paragraph")).texts()
    assert len(set(texts)) == 16
    assert all(len(text.split()) > 40 for text in texts)


@pytest.mark.parametrize(
    ("rule", "now", "expected"),
    [
        (StopRule(), {"perplexity": 1e9}, ""),
        (StopRule(perplexity=10), {"perplexity": 99.0}, ""),
        (StopRule(perplexity=10), {"perplexity": 101.0}, "perplexity 101 is 10.1 times the original 10"),
        (StopRule(perplexity=10), {}, "no number"),
        (StopRule(entropy=0.5), {"entropy": 0.41}, ""),
        (StopRule(entropy=0.5), {"entropy": 0.39}, "word entropy 0.390 is below 0.5 times the original 0.800"),
        (StopRule(hidden_shift=0.3), {"hidden_shift": 0.31}, "shifted by 0.31"),
        (StopRule(hidden_shift=0.3), {}, "shifted"),
        (StopRule(weight_change=1), {"weight_change/3": 0.9, "weight_change/11": 1.5}, "layer 11 are changed by 1.5"),
    ],
)
def test_the_rule(rule: StopRule, now: dict[str, float], expected: str) -> None:
    reason = rule.reason({"perplexity": 10.0, "entropy": 0.8, "hidden_shift": 0.0}, now)
    assert expected in reason
    assert bool(reason) == bool(expected)


def test_bad_settings_are_named() -> None:
    with pytest.raises(ConfigError, match=r"task\.watch\.n_texts"):
        CollapseWatch(corpus=TEXTS, n_texts=0)
    with pytest.raises(ConfigError, match=r"task\.watch\.max_tokens"):
        CollapseWatch(corpus=TEXTS, max_tokens=1)
    with pytest.raises(ConfigError, match=r"task\.watch\.stop\.perplexity"):
        StopRule(perplexity=-1)
    with pytest.raises(DataError, match=r"task\.watch\.corpus: no text"):
        CollapseWatch(corpus=TextList(items=(" ",))).texts()
    with pytest.raises(ConfigError, match=r"task\.watch\.lm_eval\.tasks"):
        LmEvalTasks(tasks=[])


def test_benchmarks_of_local_files(tiny_gpt2: LanguageModel, tmp_path: Path) -> None:
    """The harness on a model in memory, without a network. Control: an edit changes the scores."""
    pytest.importorskip("lm_eval", reason="pip install lm_eval")
    rows = [{"text": f"Anna Zoë plays the {i}", "label": i % 2} for i in range(12)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = {
        "task": "tiny_task",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"validation": str(tmp_path / "rows.jsonl")}},
        "output_type": "multiple_choice",
        "validation_split": "validation",
        "doc_to_text": "{{text}}",
        "doc_to_target": "label",
        "doc_to_choice": [" violin", " piano"],
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
    }
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "tiny_task.yaml").write_text(json.dumps(task))
    benchmarks = LmEvalTasks(tasks=["tiny_task"], include_path=str(tmp_path / "tasks"), limit=10)
    before = benchmarks(tiny_gpt2)
    assert set(before) == {"tiny_task/acc"}
    assert before == benchmarks(tiny_gpt2)
    watch = CollapseWatch(corpus=TEXTS, prompt_words=2, sampler=Sampler(max_length=12), lm_eval=benchmarks)
    assert watch.watcher(tiny_gpt2, seed=0).signs(WeightDelta())["lm_eval/tiny_task/acc"] == before["tiny_task/acc"]
    with pytest.raises(ConfigError, match="lm_eval has no task 'none_such'"):
        LmEvalTasks(tasks=["none_such"], include_path=str(tmp_path / "tasks"))(tiny_gpt2)


def test_a_missing_harness_is_one_line(tiny_gpt2: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "lm_eval", None)
    with pytest.raises(ConfigError, match=r"task.watch.lm_eval: .*pip install 'romexp\[lm-eval\]'"):
        LmEvalTasks(tasks=["sst2"])(tiny_gpt2)
