"""The loop: it learns, it can be killed, and it does what its settings say."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from learning_cases import Kept, draws, session, step_network, training

from romexp.editors.learned.editor import Mend
from romexp.errors import ConfigError, DataError
from romexp.learning.session import HEADER
from romexp.learning.training import Training
from romexp.lm.model import LanguageModel
from romexp.lm.tensor_files import read_tensors, write_tensors


def test_training_lowers_the_loss_on_held_out_edits(tiny_gpt2: LanguageModel) -> None:
    trained, untrained = session(tiny_gpt2, steps=30, lr=0.05), session(tiny_gpt2)
    before = trained.validate()
    trained.run(Kept())
    after = trained.validate()
    assert after["total_loss"] < 0.7 * before["total_loss"]
    assert after["edit_loss"] < before["edit_loss"]
    assert untrained.validate() == before, "without a step nothing is lower"


@pytest.mark.parametrize("kill_at", [3, 6, 11])
def test_killed_and_resumed_is_one_go(tiny_gpt2: LanguageModel, tmp_path: Path, kill_at: int) -> None:
    """Also in the middle of an accumulation, and between two points of the curves."""
    settings = {"accumulate": 3, "validate_every": 5, "log_every": 4, "steps": 13}
    whole, kept = session(tiny_gpt2, **settings), Kept()
    whole.run(kept)
    state = tmp_path / "state.safetensors"
    first = Kept(stop_at=kill_at)
    with pytest.raises(KeyboardInterrupt):
        session(tiny_gpt2, state=state, **settings).run(first)
    resumed, second = session(tiny_gpt2, state=state, **settings), Kept()
    start = resumed.progress.step
    assert start == max([1, *range(5, kill_at, 5)])
    resumed.run(second)
    assert second.done[0] == start + 1
    torch.testing.assert_close(resumed.network.steps, whole.network.steps, rtol=0, atol=0)
    assert (resumed.progress.best, resumed.progress.best_step) == (whole.progress.best, whole.progress.best_step)
    assert [p for p in first.points if p["step"] <= start] + second.points == kept.points


def test_a_finished_run_makes_no_step(tiny_gpt2: LanguageModel, tmp_path: Path) -> None:
    state = tmp_path / "state.safetensors"
    session(tiny_gpt2, state=state).run(Kept())
    again = Kept()
    session(tiny_gpt2, state=state).run(again)
    assert (again.done, again.points) == ([], [])


def test_the_state_of_another_network_is_refused(tiny_gpt2: LanguageModel, tmp_path: Path) -> None:
    state = tmp_path / "state.safetensors"
    session(tiny_gpt2, state=state, steps=1).run(Kept())
    with pytest.raises(DataError, match="another network"):
        session(tiny_gpt2, network=step_network(tiny_gpt2, layers=(1, 2, 3)), state=state)
    state.write_bytes(state.read_bytes()[:50])
    with pytest.raises(DataError, match="delete it"):
        session(tiny_gpt2, state=state)


@pytest.mark.parametrize(
    ("what", "value"),
    [
        ("header", "[]"),
        ("header", '{"step": "one"}'),
        ("header", '{"steps": 1}'),
        ("header", "[" * 9000),
        ("gradient.steps", torch.ones(99)),
        ("optimizer.0.nonsense.exp_avg", torch.ones(1)),
    ],
)
def test_a_state_that_holds_something_else_is_named(
    tiny_gpt2: LanguageModel, tmp_path: Path, what: str, value: str | torch.Tensor
) -> None:
    state = tmp_path / "state.safetensors"
    session(tiny_gpt2, state=state, steps=1).run(Kept())
    metadata, tensors = read_tensors(state)
    if isinstance(value, str):
        metadata[HEADER] = value
    else:
        tensors[what] = value
    write_tensors(state, tensors, metadata)
    with pytest.raises(DataError, match=r"state\.safetensors.*delete it to start over"):
        session(tiny_gpt2, state=state, steps=2)


def gradient_after(lm: LanguageModel, **settings: object) -> torch.Tensor:
    """What has been gathered when the next update is due: the update itself is left out."""
    made = session(lm, network=step_network(lm, 0.1), **settings)
    gathered: list[torch.Tensor] = []
    made._update = lambda: gathered.append(made.network.steps.grad.clone()) or 0.0  # type: ignore[method-assign, union-attr, func-returns-value]
    while not gathered:
        made.progress.step += 1
        made.step()
    return gathered[0]


def test_two_accumulated_steps_are_one_batch_of_two(tiny_gpt2: LanguageModel) -> None:
    """The same two edits; the texts that judge them are drawn by step, so they are fixed here."""

    class Fixed:
        def training(self, step: int, count: int):  # type: ignore[no-untyped-def]
            return pair[(step - 1) * count : step * count]

    pair = draws(tiny_gpt2).training(1, 2)
    gradients = []
    for accumulate, count in ((1, 2), (2, 1)):
        made = session(tiny_gpt2, network=step_network(tiny_gpt2, 0.1), accumulate=accumulate, edits_per_step=count)
        made.draws = Fixed()  # type: ignore[assignment]
        made._update = lambda: 0.0  # type: ignore[method-assign]
        for made.progress.step in range(1, accumulate + 1):
            made.step()
        gradients.append(made.network.steps.grad)
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-4, atol=1e-6)


def test_the_two_losses_are_weighed(tiny_gpt2: LanguageModel) -> None:
    edit, locality = (gradient_after(tiny_gpt2, cedit=e, cloc=loc) for e, loc in ((1.0, 0.0), (0.0, 1.0)))
    assert not torch.allclose(edit, locality)
    both = gradient_after(tiny_gpt2, cedit=0.25, cloc=3.0)
    torch.testing.assert_close(both, 0.25 * edit + 3.0 * locality, rtol=1e-4, atol=1e-6)


def test_the_gradient_is_clipped(tiny_gpt2: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Adam hides the size of a gradient, so plain steps are made here."""
    plain = lambda self, network: [torch.optim.SGD(network.parameters(), lr=1.0)]  # noqa: E731
    monkeypatch.setattr(Training, "optimizers", plain)
    moved = {}
    for clip in (1e9, 1e-3):
        made = session(tiny_gpt2, network=step_network(tiny_gpt2, 0.1), clip=clip)
        made.progress.step = 1
        values = made.step()
        moved[clip] = float((made.network.steps.detach() - 0.1).norm())
        assert values["gradient_norm"] > 1e-2
    assert moved[1e-3] == pytest.approx(1e-3, rel=1e-2)
    assert moved[1e9] == pytest.approx(values["gradient_norm"], rel=1e-3)


def test_the_best_network_is_kept(tiny_gpt2: LanguageModel) -> None:
    """A step size that overshoots: the loss goes down, then up."""
    made, kept = session(tiny_gpt2, lr=0.4, steps=40, validate_every=1, patience=1000), Kept()
    made.run(kept)
    by_step = dict(zip([p["step"] for p in kept.points if "validation/total_loss" in p],
                       kept.column("validation/total_loss"), strict=True))  # fmt: skip
    best = kept.bests[-1]
    assert best["total_loss"] == min(by_step.values()) == made.progress.best
    assert best["step"] == made.progress.best_step == min(by_step, key=by_step.__getitem__)
    assert best["step"] < 40
    losses = [kept_best["total_loss"] for kept_best in kept.bests]
    assert losses == sorted(losses, reverse=True)
    assert not torch.equal(best["steps"], made.network.steps)
    made.network.load_state_dict({"steps": best["steps"]})
    assert made.validate()["total_loss"] == pytest.approx(made.progress.best)


def test_it_stops_when_nothing_gets_better(tiny_gpt2: LanguageModel) -> None:
    made, kept = session(tiny_gpt2, lr=1e-12, steps=1000, validate_every=2, patience=7, cedit=0.0), Kept()
    made.run(kept)
    assert made.progress.step - made.progress.best_step in (7, 8)
    assert made.progress.step < 30


def test_validations_leave_normalization_statistics_alone(tiny_gpt2: LanguageModel) -> None:
    """A real MEND network: training mode in a step, evaluation mode in a validation."""
    network = Mend(rank=4, n_layers=2, edit_lr=0.01).new_network(tiny_gpt2, seed=0)
    made = session(tiny_gpt2, network=network, lr=1e-3)
    made.progress.step = 1
    made.step()
    seen = {name: value.clone() for name, value in network.named_buffers()}
    assert made.validate() == made.validate()
    assert all(torch.equal(value, seen[name]) for name, value in network.named_buffers())
    made.step()
    assert any(not torch.equal(value, seen[name]) for name, value in network.named_buffers())


def test_only_a_validation_can_end_it_early(tiny_gpt2: LanguageModel, tmp_path: Path) -> None:
    """Less patience than steps between validations: the loss still goes down at each, so nothing stops it."""
    made, kept = session(tiny_gpt2, lr=0.02, steps=13, validate_every=6, patience=2), Kept()
    made.run(kept)
    assert [p["step"] for p in kept.points if "validation/total_loss" in p] == [1, 6, 12, 13]
    losses = kept.column("validation/total_loss")
    assert losses == sorted(losses, reverse=True)
    state = tmp_path / "state.safetensors"
    stopped, kept = session(tiny_gpt2, lr=1e-12, cedit=0.0, steps=40, validate_every=6, patience=2, state=state), Kept()
    stopped.run(kept)
    assert stopped.progress.step == max(p["step"] for p in kept.points if "validation/total_loss" in p) < 40
    assert session(tiny_gpt2, lr=1e-12, cedit=0.0, steps=40, validate_every=6, patience=2, state=state).finished


def test_step_sizes_have_a_second_optimizer(tiny_gpt2: LanguageModel) -> None:
    """docs/method.md §4.6: both move them, by lr and by lr_lr, since Adam's first step is the sign of the gradient."""

    class TwoGroups(type(step_network(tiny_gpt2))):  # type: ignore[misc]
        def parameter_groups(self, *, lr: float, lr_lr: float):  # type: ignore[no-untyped-def]
            return [{"params": [self.steps], "lr": lr}, {"params": [self.steps], "lr": lr_lr}]

    network = TwoGroups(step_network(tiny_gpt2).shapes)
    made = session(tiny_gpt2, network=network, lr=1e-3, lr_lr=1e-2)
    made.progress.step = 1
    made.step()
    torch.testing.assert_close(network.steps.detach().abs(), torch.full((2,), 1.1e-2), rtol=1e-3, atol=0)


def test_the_authors_learning_rates_are_the_defaults(tiny_gpt2: LanguageModel) -> None:
    network = step_network(tiny_gpt2)
    assert Training().optimizers(network)[0].param_groups[0]["lr"] == 1e-6
    network.kind = "ke"  # type: ignore[misc]
    assert Training().optimizers(network)[0].param_groups[0]["lr"] == 1e-5
    assert Training(lr=0.5).optimizers(network)[0].param_groups[0]["lr"] == 0.5


def test_training_that_diverges_says_so(tiny_gpt2: LanguageModel) -> None:
    with pytest.raises(ConfigError, match="step 1 the gradient is not finite"):
        session(tiny_gpt2, network=step_network(tiny_gpt2, float("inf"))).run(Kept())


def test_a_validation_loss_that_is_no_number_is_no_best(
    tiny_gpt2: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, kept = session(tiny_gpt2), Kept()
    monkeypatch.setattr(type(made), "validate", lambda self: {"total_loss": float("nan")})
    with pytest.raises(ConfigError, match="step 1 the validation loss is not finite"):
        made.run(kept)
    assert kept.bests == []


@pytest.mark.parametrize("bad", [{"steps": 0}, {"lr": -1.0}, {"clip": 0.0}, {"accumulate": 0}, {"cedit": -0.1}])
def test_settings_are_positive(bad: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(bad))):
        training(**bad)


def test_draws_depend_on_the_seed_and_the_step_alone(tiny_gpt2: LanguageModel) -> None:
    stream, other = draws(tiny_gpt2), draws(tiny_gpt2)
    forward = [stream.training(step, 2) for step in (1, 2, 3)]
    assert forward == [other.training(step, 2) for step in (3, 2, 1)][::-1]
    assert stream.training(1, 2) != draws(tiny_gpt2, seed=1).training(1, 2)
    epoch = [draw.text for step in range(1, 6) for draw in stream.training(step, 1)]
    assert set(epoch) == {edit.text for edit in stream.edits.training}, "every edit once an epoch"
    following = [draw.text for step in range(6, 11) for draw in stream.training(step, 1)]
    assert set(following) == set(epoch)
    assert stream.validation(2) == stream.validation(3)[:2]
