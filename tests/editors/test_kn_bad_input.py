"""Knowledge Neurons: requests and settings that cannot be used."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace

import naive_kn
import pytest
from conftest import FAMILIES
from edit_cases import REQUESTS, beside_a_bad_request
from kn_cases import CONTEXTS, KN, RESOURCES, assert_same, neurons
from torch import nn

from romexp.editors.base import Edit
from romexp.editors.kn.editor import KnowledgeNeurons
from romexp.editors.kn.texts import fact_texts
from romexp.errors import ConfigError, RecordError
from romexp.lm.model import LanguageModel


@pytest.fixture(scope="module", params=[*FAMILIES, "llama with BOS"])
def lm(request: pytest.FixtureRequest, tiny_factory: Callable[..., LanguageModel]) -> LanguageModel:
    family, *bos = request.param.split(" ", 1)
    return tiny_factory(family, bos=bool(bos))


class TestBadInput:
    @pytest.mark.parametrize(
        ("changes", "field", "message"),
        [
            ({"target_new": " "}, "target_new", "target_new is empty"),
            ({"target_true": ""}, "target_true", "target_true is empty"),
            ({"prompt": "{}", "subject": ""}, "prompt", "the prompt has no token"),
            ({"prompt": "{} was" + " the x" * 70}, "prompt", "sees 128 at once"),
        ],
    )
    @pytest.mark.parametrize("leading_space", [False, True])
    def test_an_error_stands_in_the_bad_requests_place(
        self, tiny_gpt2: LanguageModel, changes: dict[str, str], field: str, message: str, leading_space: bool
    ) -> None:
        editor, bad = replace(KN, leading_space=leading_space), replace(REQUESTS[2], **changes)
        error, edits, without = beside_a_bad_request(tiny_gpt2, editor, bad, resources=RESOURCES)
        assert error.field == field
        assert message in error.reason
        assert_same(edits, without)
        assert len({frozenset(neurons(edit)) for edit in edits}) == len(edits)  # a control: no edit is another's

    def test_texts_have_the_error_in_its_place_too(self, tiny_gpt2: LanguageModel) -> None:
        requests = [REQUESTS[0], replace(REQUESTS[1], target_true=" "), REQUESTS[2]]
        settings = {"leading_space": True, "extend_prompt": False}
        first, error, third = fact_texts(tiny_gpt2, requests, CONTEXTS, **settings)
        assert isinstance(error, RecordError)
        assert error.field == "target_true"
        assert [first, third] == fact_texts(tiny_gpt2, [requests[0], requests[2]], CONTEXTS, **settings)
        assert first != third

    def test_a_prompt_that_is_too_long_once_extended(self, tiny_gpt2: LanguageModel) -> None:
        filler = 127 - len(naive_kn.tokens(tiny_gpt2, "Anna is the founder of the"))
        text = "{} is the founder of the" + "," * filler
        request = replace(REQUESTS[2], prompt=text, target_true="piano violin")
        assert 126 <= len(naive_kn.tokens(tiny_gpt2, request.text)) <= 128
        (edit,) = KN(tiny_gpt2, [request], resources=RESOURCES)
        assert isinstance(edit, Edit)
        (error,) = replace(KN, extend_prompt=True)(tiny_gpt2, [request], resources=RESOURCES)
        assert isinstance(error, RecordError)
        assert error.field == "prompt"
        assert "sees 128 at once" in error.reason

    def test_embeddings_of_another_width(self, tiny_factory: Callable[..., LanguageModel]) -> None:
        lm = tiny_factory("gpt2")
        other = replace(lm, model=copy.deepcopy(lm.model))
        other.model.transformer.wte = nn.Embedding(400, 16)
        with pytest.raises(ConfigError, match=r"'tiny-gpt2' are 16 wide and its MLPs' outputs 32"):
            KN(other, REQUESTS, resources=RESOURCES)

    @pytest.mark.parametrize(
        ("field", "value"),
        [("adaptive_threshold", 1.0), ("adaptive_threshold", -0.1), ("p", 1.0), ("steps", 0), ("max_neurons", 0)],
    )
    def test_other_values_are_refused(self, field: str, value: float) -> None:
        with pytest.raises(ConfigError, match=rf"editor\.{field}"):
            KnowledgeNeurons(**{field: value})  # type: ignore[arg-type]

    def test_none_at_all(self, tiny_gpt2: LanguageModel) -> None:
        assert KN(tiny_gpt2, [], resources=RESOURCES) == []
