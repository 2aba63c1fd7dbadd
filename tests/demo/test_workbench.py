"""The demo without its page: what its buttons do, by themselves and for two visitors."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import romexp
from romexp.api.models import LoadedModel
from romexp.demo.workbench import TRACES, Workbench, percent
from romexp.errors import ConfigError, RecordError, RomexpError

FACT = {"prompt": "{} plays the", "subject": "Selus Dunwood", "target": "cello"}


@pytest.fixture(scope="module")
def lm() -> LoadedModel:
    return romexp.load("minifact")


@pytest.fixture
def bench(lm: LoadedModel, tmp_path: Path) -> Workbench:
    return Workbench(loaders={"minifact": lambda: lm}, folder=tmp_path, tokens=6)


def test_an_edit_changes_the_answer_and_no_weight(bench: Workbench, lm: LoadedModel) -> None:
    before = {name: weight.clone() for name, weight in lm.model.state_dict().items()}
    edit = bench.edit("minifact", **FACT, method="rome")
    asked, top = bench.answers("minifact", edit)
    assert asked["answer"].tolist() == ["cello", "piano"]
    assert float(asked["after"][0].split()[0]) > 50 > float(asked["before"][0].split()[0])
    assert (top["before"][0].strip(), top["after"][0].strip()) == ("piano", "cello")
    texts = bench.texts("minifact", edit, bench.about("minifact", edit))
    assert texts["text"][0] == "Selus Dunwood plays the"
    assert texts["after"][0].strip().startswith("cello")
    assert texts[""][0] == "≠"
    assert set(bench.kept("minifact", edit)[""]) == {"="}
    assert all(torch.equal(weight, before[name]) for name, weight in lm.model.state_dict().items())


def test_two_visitors_have_an_edit_each(bench: Workbench) -> None:
    one = bench.edit("minifact", **FACT, method="rome")
    other = bench.edit("minifact", **{**FACT, "target": "violin"}, method="rome")
    for edit, answer in ((one, "cello"), (other, "violin"), (one, "cello")):
        assert bench.answers("minifact", edit)[1]["after"][0].strip() == answer


def test_the_subject_may_stand_in_the_text(bench: Workbench) -> None:
    edit = bench.edit("minifact", **{**FACT, "prompt": "Selus Dunwood plays the "}, method="ft")
    assert edit.request.prompt == "{} plays the"


@pytest.mark.parametrize("how", TRACES)
def test_a_trace_is_drawn(bench: Workbench, how: str) -> None:
    figure = bench.trace("minifact", prompt=FACT["prompt"], subject=FACT["subject"], how=how)
    assert len(figure.axes) >= 3


def test_methods_are_compared_by_their_own_edits(bench: Workbench) -> None:
    table = bench.compare("minifact", **FACT, methods=["rome", "ft"])
    assert table["method"].tolist() == ["ROME", "FT"]
    assert table["P(new) before"].nunique() == 1
    moved = table["others moved by (points)"].astype(float)
    assert moved[0] < moved[1]


def test_an_adapter_is_a_zip_of_its_own(bench: Workbench) -> None:
    edit = bench.edit("minifact", **FACT, method="rome")
    files = [bench.adapter("minifact", edit) for _ in range(2)]
    assert files[0] != files[1]
    with zipfile.ZipFile(files[0]) as packed:
        packed.extract("adapter_model.safetensors", bench.folder)
    (left, right) = load_file(bench.folder / "adapter_model.safetensors").values()
    (term,) = edit.delta.terms.values()
    assert {tuple(left.shape), tuple(right.shape)} == {(1, term.left.shape[0]), (term.right.shape[0], 1)}


@pytest.mark.parametrize(
    ("changed", "error", "said"),
    [
        ({"target": " "}, ConfigError, "target is empty"),
        ({"subject": "Nobody"}, ConfigError, "does not occur"),
        ({"prompt": "{} and {}"}, ConfigError, "found 2"),
        ({"subject": "x" * 5000}, RecordError, "token"),
        ({"target": "<script>alert(1)</script>" * 300}, RomexpError, "token"),
    ],
)
def test_mistakes_are_one_line(bench: Workbench, changed: dict[str, str], error: type[Exception], said: str) -> None:
    fact = {**FACT, "prompt": "Selus Dunwood plays the"} if changed.get("subject") == "Nobody" else FACT
    with pytest.raises(error, match=said) as found:
        bench.edit("minifact", **{**fact, **changed}, method="rome")
    assert "\n" not in str(found.value)


def test_a_model_is_loaded_once_and_only_if_asked(lm: LoadedModel, tmp_path: Path) -> None:
    loads: list[str] = []

    def load() -> LoadedModel:
        loads.append("minifact")
        return lm

    bench = Workbench(loaders={"minifact": load, "other": lambda: pytest.fail("nobody asked")}, folder=tmp_path)
    for _ in range(2):
        bench.trace("minifact", prompt=FACT["prompt"], subject=FACT["subject"], how=next(iter(TRACES)))
    assert loads == ["minifact"]
    with pytest.raises(ConfigError, match="no model"):
        bench.kept("third", bench.edit("minifact", **FACT, method="ft"))


def test_shares_have_three_digits_at_any_size() -> None:
    assert [percent(p) for p in (0.98765, 0.0123456, 1.2e-7)] == ["98.8 %", "1.23 %", "1.2e-05 %"]
