"""The editors over trained networks: batches, order, variants, where the network comes from, and a model left alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import naive_learned
import pytest
import torch
from edit_cases import REQUESTS, beside_a_bad_request
from learned_cases import MEND, born_ke, born_mend, dense, distance, factors_of, texts_of
from learned_editor_cases import RESOURCES, same

from romexp.editors.base import Edit
from romexp.editors.learned.checkpoint import save
from romexp.editors.learned.editor import KE, Mend
from romexp.errors import ConfigError, RecordError
from romexp.lm.apply_delta import applied, overlay
from romexp.lm.forward import Row, make_inputs, run_blocks
from romexp.lm.model import LanguageModel
from romexp.lm.packing import Query
from romexp.lm.scoring import score


@pytest.fixture(scope="module")
def files(tiny_gpt2: LanguageModel, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A network of each kind for the tiny GPT-2, moved away from its birth."""
    folder = tmp_path_factory.mktemp("networks")
    for network in (born_mend(tiny_gpt2), born_ke(tiny_gpt2)):
        naive_learned.shake(network)
        save(network, folder / f"{network.kind}.safetensors")
    return {"mend": folder / "mend.safetensors", "ke": folder / "ke.safetensors"}


@pytest.fixture(params=["mend", "ke"])
def editor(request: pytest.FixtureRequest, files: dict[str, Path]) -> Mend | KE:
    return (Mend if request.param == "mend" else KE)(checkpoint=files[request.param])


class TestEveryEditor:
    def test_edits_are_the_networks_deltas(self, tiny_gpt2: LanguageModel, editor: Mend | KE) -> None:
        edits = editor(tiny_gpt2, REQUESTS, resources=RESOURCES)
        network = editor.network(tiny_gpt2)
        factors = factors_of(tiny_gpt2, network.edited)
        for edit, delta, loss in zip(edits, network(factors), factors.losses, strict=True):
            assert distance(edit.delta, dense(delta)) == 0
            assert edit.diagnostics == {"loss": float(loss), "norm": edit.delta.norm()}
            assert edit.delta.norm() > 1e-3
            assert not any(side.requires_grad for t in edit.delta.terms.values() for side in (t.left, t.right))

    def test_a_batch_is_each_request_alone_in_any_order(self, tiny_gpt2: LanguageModel, editor: Mend | KE) -> None:
        together = editor(tiny_gpt2, REQUESTS, resources=RESOURCES)
        alone = [editor(tiny_gpt2, [request], resources=RESOURCES)[0] for request in reversed(REQUESTS)][::-1]
        assert same(together, alone) < 1e-4
        assert same(together, alone[1:] + alone[:1]) > 0.1

    def test_the_weights_are_left_alone(
        self, tiny_gpt2: LanguageModel, editor: Mend | KE, guard: Callable[[LanguageModel], None]
    ) -> None:
        guard(tiny_gpt2)
        (edit,) = editor(tiny_gpt2, REQUESTS[:1], resources=RESOURCES)
        query = Query(prompt=REQUESTS[0].text, targets=(REQUESTS[0].target_new,))
        (before,), (after,) = score(tiny_gpt2, [query] * 2, deltas=[None, edit.delta])
        assert after.token_nlls != pytest.approx(before.token_nlls, abs=1e-2)
        with applied(tiny_gpt2, edit.delta):
            ((written,),) = score(tiny_gpt2, [query])
        assert written.token_nlls == pytest.approx(after.token_nlls, abs=1e-3)

    def test_the_overlay_is_the_written_weights(self, tiny_gpt2: LanguageModel, editor: Mend | KE) -> None:
        edits = editor(tiny_gpt2, REQUESTS, resources=RESOURCES)
        given = make_inputs(tiny_gpt2, [Row.text(text.ids) for text in texts_of(tiny_gpt2)])
        with torch.no_grad(), overlay(tiny_gpt2, [edit.delta for edit in edits]):
            together = run_blocks(tiny_gpt2, given)
        for i, edit in enumerate(edits):
            with torch.no_grad(), applied(tiny_gpt2, edit.delta):
                alone = run_blocks(tiny_gpt2, given.select(torch.tensor([i])))[0]
            n = len(texts_of(tiny_gpt2)[i].ids)
            assert torch.allclose(together[i, :n], alone[:n], atol=1e-4)

    def test_none_at_all(self, tiny_gpt2: LanguageModel, editor: Mend | KE) -> None:
        assert editor(tiny_gpt2, [], resources=RESOURCES) == []

    @pytest.mark.parametrize(
        ("changes", "field"),
        [({"target_new": " "}, "target_new"), ({"prompt": "{} was" + " the x" * 70}, "prompt")],
    )
    def test_an_error_stands_in_the_bad_requests_place(
        self, tiny_gpt2: LanguageModel, editor: Mend | KE, changes: dict[str, str], field: str
    ) -> None:
        bad = replace(REQUESTS[2], **changes)
        error, edits, without = beside_a_bad_request(tiny_gpt2, editor, bad, resources=RESOURCES)
        assert error.field == field
        assert same(edits, without) == 0
        assert same(edits, without[1:] + without[:1]) > 0.1  # a control: no edit is another's

    def test_the_network_is_read_once(
        self, tiny_gpt2: LanguageModel, editor: Mend | KE, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first = editor(tiny_gpt2, REQUESTS[:1], resources=RESOURCES)
        network = editor.network(tiny_gpt2)
        monkeypatch.setattr("romexp.editors.learned.network_editor.load", None)
        assert same(first, editor(tiny_gpt2, REQUESTS[:1], resources=RESOURCES)) == 0
        assert editor.network(tiny_gpt2) is network
        with pytest.raises(TypeError):
            replace(editor).network(tiny_gpt2)


class TestMendsVariants:
    def test_lr_scale_is_a_factor(self, tiny_gpt2: LanguageModel, files: dict[str, Path]) -> None:
        full, half = (
            Mend(checkpoint=files["mend"], lr_scale=scale)(tiny_gpt2, REQUESTS, resources=RESOURCES)
            for scale in (1.0, 0.5)
        )
        for a, b in zip(full, half, strict=True):
            assert distance(b.delta, {name: value / 2 for name, value in dense(a.delta).items()}) < 1e-6

    def test_named_parameters_swaps_the_step_sizes_of_a_gpt2_layer(
        self, tiny_gpt2: LanguageModel, files: dict[str, Path]
    ) -> None:
        plain, swapped = (Mend(checkpoint=files["mend"], lr_order=order) for order in ("config", "named_parameters"))
        rates = plain.network(tiny_gpt2).edit_lrs.detach()  # type: ignore[union-attr]
        names = plain.network(tiny_gpt2).edited
        (a,), (b,) = (editor(tiny_gpt2, REQUESTS[:1], resources=RESOURCES) for editor in (plain, swapped))
        factors = {names[i]: rates[j] / rates[i] for i, j in ((0, 1), (1, 0), (2, 3), (3, 2))}
        assert distance(b.delta, {name: factors[name] * value for name, value in dense(a.delta).items()}) < 1e-4
        assert distance(b.delta, dense(a.delta)) > 0.1

    def test_and_changes_nothing_where_the_orders_agree(
        self, tiny_factory: Callable[..., LanguageModel], tmp_path: Path
    ) -> None:
        lm = tiny_factory("gptj")
        network = born_mend(lm)
        naive_learned.shake(network)
        save(network, path := tmp_path / "mend.safetensors")
        edits = [
            Mend(checkpoint=path, lr_order=order)(lm, REQUESTS, resources=RESOURCES)
            for order in ("config", "named_parameters")
        ]
        assert same(*edits) == 0

    def test_training_statistics_depend_on_the_order(self, tiny_gpt2: LanguageModel, files: dict[str, Path]) -> None:
        """As in the authors' evaluation: the first edit forgets the trained statistics, the others add to them."""

        def edits(statistics: str, order: list[int]) -> list[Edit]:
            editor = Mend(checkpoint=files["mend"], statistics=statistics)  # type: ignore[arg-type]
            # One call a request, as runs with other batch sizes would have it.
            found = {i: editor(tiny_gpt2, [REQUESTS[i]], resources=RESOURCES)[0] for i in order}
            return [found[i] for i in range(4)]

        orders = [[0, 1, 2, 3], [3, 2, 1, 0]]
        assert same(*(edits("frozen", order) for order in orders)) < 1e-5
        assert same(*(edits("training", order) for order in orders)) > 0.1
        assert same(*(edits("training", orders[0]) for _ in range(2))) < 1e-6

    def test_training_statistics_are_the_same_in_one_batch(
        self, tiny_gpt2: LanguageModel, files: dict[str, Path]
    ) -> None:
        one, other = (Mend(checkpoint=files["mend"], statistics="training") for _ in range(2))
        together = one(tiny_gpt2, REQUESTS, resources=RESOURCES)
        alone = [other(tiny_gpt2, [request], resources=RESOURCES)[0] for request in REQUESTS]
        assert same(together, alone) < 1e-4

    def test_a_bad_request_leaves_no_mark_on_them(self, tiny_gpt2: LanguageModel, files: dict[str, Path]) -> None:
        one, other = (Mend(checkpoint=files["mend"], statistics="training") for _ in range(2))
        bad = replace(REQUESTS[1], target_new="")
        first, error = one(tiny_gpt2, [REQUESTS[0], bad], resources=RESOURCES)
        assert isinstance(error, RecordError)
        assert same([first], other(tiny_gpt2, REQUESTS[:1], resources=RESOURCES)) == 0
        (error,) = one(tiny_gpt2, [bad], resources=RESOURCES)
        assert isinstance(error, RecordError)
        edits = [editor(tiny_gpt2, REQUESTS[2:], resources=RESOURCES) for editor in (one, other)]
        assert same(*edits) == 0

    def test_they_forget_what_the_checkpoint_knew(self, tiny_gpt2: LanguageModel, files: dict[str, Path]) -> None:
        editor = Mend(checkpoint=files["mend"], statistics="training")
        (edit,) = editor(tiny_gpt2, REQUESTS[:1], resources=RESOURCES)
        fresh = MEND.new_network(tiny_gpt2, seed=0)
        fresh.load_state_dict(Mend(checkpoint=files["mend"]).network(tiny_gpt2).state_dict())
        fresh.reset_statistics()
        (expected,) = fresh(factors_of(tiny_gpt2, fresh.edited, REQUESTS[:1]))
        assert distance(edit.delta, dense(expected)) < 1e-6

    @pytest.mark.parametrize("field", ["statistics", "lr_order"])
    def test_other_values_are_refused(self, field: str) -> None:
        with pytest.raises(ConfigError, match=rf"editor\.{field}: 'x' is none of"):
            Mend(**{field: "x"})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("kind", "sizes"),
    [
        (Mend, {"rank": 0}),
        (Mend, {"n_hidden": -1}),
        (Mend, {"n_layers": 0}),
        (KE, {"hidden_size": 0}),
        (KE, {"condition_size": -1}),
        (KE, {"max_scale": 0.0}),
    ],
)
def test_sizes_are_positive(kind: type[Mend | KE], sizes: dict[str, float]) -> None:
    (field,) = sizes
    with pytest.raises(ConfigError, match=rf"editor\.{field}: expected"):
        kind(**sizes)  # type: ignore[arg-type]
    assert Mend(n_hidden=0).n_hidden == 0
