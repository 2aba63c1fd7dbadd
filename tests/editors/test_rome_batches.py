"""ROME on batches of requests, some of them bad, and its settings."""

from __future__ import annotations

import json
import random
import re
from dataclasses import replace
from pathlib import Path

import pytest
from edit_cases import (
    REQUESTS,
    beside_a_bad_request,
    furthest,
    no_moment,
    resources,
)
from rome_cases import ROME

from romexp.editors.base import Resources
from romexp.editors.rome.editor import Rome
from romexp.errors import ConfigError, RecordError
from romexp.facts import EditRequest
from romexp.lm.model import LanguageModel
from romexp.lm.weight_delta import WeightDelta


class TestBatches:
    def test_a_batch_is_each_request_alone(self, tiny_lm: LanguageModel) -> None:
        """Measured 1e-5 after 20 passes (test_golden goes that far)."""
        rome = replace(ROME, v_num_grad_steps=10)
        order = random.sample(range(len(REQUESTS)), 3)
        together = rome(tiny_lm, [REQUESTS[i] for i in order], resources=resources())
        alone = [rome(tiny_lm, [REQUESTS[i]], resources=resources())[0] for i in order]
        assert furthest(together, alone) < 1e-3
        assert furthest(together, alone[1:] + alone[:1]) > 0.1
        for one, other in zip(together, alone, strict=True):
            assert one.diagnostics["loss"] == pytest.approx(other.diagnostics["loss"], abs=1e-4)

    def test_a_request_may_come_twice(self, tiny_gpt2: LanguageModel) -> None:
        one, other = ROME(tiny_gpt2, [REQUESTS[0]] * 2, resources=resources())
        assert furthest([one], [other]) < 1e-5

    def test_none_at_all(self, tiny_gpt2: LanguageModel) -> None:
        assert ROME(tiny_gpt2, [], resources=resources()) == []

    @pytest.mark.parametrize(
        ("changes", "field", "message"),
        [
            ({"target_new": " "}, "target_new", "the new target is empty"),
            ({"subject": " "}, "subject", "has no tokens"),
            ({"prompt": "nobody was the founder of"}, "prompt", r"expected a '\{\}'"),
            ({"prompt": "{} was" + " the x" * 70}, "prompt", "sees 128 at once"),
        ],
    )
    def test_an_error_stands_in_the_bad_requests_place(
        self, tiny_gpt2: LanguageModel, changes: dict[str, str], field: str, message: str
    ) -> None:
        bad = replace(REQUESTS[2], **changes)
        error, edits, without = beside_a_bad_request(tiny_gpt2, ROME, bad, resources=resources())
        assert error.field == field
        assert re.search(message, error.reason)
        assert furthest(edits, without) == 0
        assert furthest(edits, without[1:] + without[:1]) > 0.1  # a control: no edit is another's

    def test_the_old_answer_may_be_left_out(self, tiny_gpt2: LanguageModel) -> None:
        first = REQUESTS[0]
        bare = EditRequest(subject=first.subject, prompt=first.prompt, target_new=first.target_new)
        assert bare != first
        edits = [ROME(tiny_gpt2, [request], resources=resources()) for request in (bare, first)]
        assert furthest(*edits) == 0

    def test_bad_requests_alone_give_their_errors(self, tiny_gpt2: LanguageModel) -> None:
        requests = [replace(REQUESTS[0], target_new=" "), replace(REQUESTS[1], subject=" ")]
        errors = ROME(tiny_gpt2, requests, resources=Resources(second_moment=no_moment))
        assert [isinstance(error, RecordError) and error.field for error in errors] == ["target_new", "subject"]


class TestSettings:
    def test_contexts_are_sampled_by_seed_or_read_from_a_file(self, tiny_gpt2: LanguageModel, tmp_path: Path) -> None:
        sampled = replace(ROME, context_templates=None, context_template_length_params=((4, 1), (6, 1)))
        run = {seed: sampled(tiny_gpt2, REQUESTS[:1], resources=resources(seed=seed)) for seed in (0, 1)}
        assert furthest(sampled(tiny_gpt2, REQUESTS[:1], resources=resources(seed=0)), run[0]) == 0
        assert furthest(run[1], run[0]) > 0.01
        given = tmp_path / "contexts.json"
        given.write_text('["{}", "The phone. {}", "It is said that Anna. {}"]')
        from_file = replace(ROME, context_templates=str(given))(tiny_gpt2, REQUESTS[:1], resources=resources())
        assert furthest(from_file, ROME(tiny_gpt2, REQUESTS[:1], resources=resources())) == 0

    def test_the_layer_may_be_a_fraction_of_the_depth(self, tiny_gpt2: LanguageModel) -> None:
        (edit,) = replace(ROME, layer=None, layer_fraction=0.5)(tiny_gpt2, REQUESTS[:1], resources=resources())
        assert edit.diagnostics["layer"] == 2
        assert list(edit.delta.terms) == ["transformer.h.2.mlp.c_proj.weight"]

    @pytest.mark.parametrize("layer", [-1, 4])
    def test_there_must_be_such_a_layer(self, tiny_gpt2: LanguageModel, layer: int) -> None:
        with pytest.raises(ConfigError, match=rf"editor\.layer: {layer} is outside 0…3 of 'tiny-gpt2'"):
            replace(ROME, layer=layer)(tiny_gpt2, REQUESTS, resources=resources())

    @pytest.mark.parametrize(("field", "value"), [("keys", "all"), ("fact_token", "subject"), ("v_num_grad_steps", 0)])
    def test_other_values_are_refused(self, field: str, value: object) -> None:
        with pytest.raises(ConfigError, match=rf"editor\.{field}"):
            Rome(**{field: value})  # type: ignore[arg-type]

    def test_diagnostics_are_json_ready(self, tiny_gpt2: LanguageModel) -> None:
        (edit,) = ROME(tiny_gpt2, REQUESTS[:1], resources=resources())
        assert json.loads(json.dumps(edit.diagnostics)) == edit.diagnostics
        assert isinstance(edit.delta, WeightDelta)
