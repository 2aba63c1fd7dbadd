"""Without a network the hub's libraries use their cache, at once; what is not there is one line with the option."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator

import pytest
from huggingface_hub import constants
from huggingface_hub.utils import close_session

from romexp.data.corpora import HfCorpus
from romexp.errors import ConfigError, DataError
from romexp.hub import HubUnreachable, hub_access
from romexp.lm.model import PretrainedModel

ADDRESSES = {
    "a closed port": "http://me:SECRET@127.0.0.1:9",
    "no such host": "http://nowhere.invalid",
}


@pytest.fixture(params=ADDRESSES)
def _unreachable(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    import datasets.config

    for module in (constants, datasets.config):
        monkeypatch.setattr(module, "HF_HUB_OFFLINE", False)
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.setattr(constants, "ENDPOINT", ADDRESSES[request.param])
    close_session()
    yield
    close_session()


@pytest.mark.usefixtures("_unreachable")
class TestUnreachable:
    def test_a_model(self, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
        start = time.perf_counter()
        with pytest.raises(ConfigError) as caught:
            PretrainedModel(path="nobody/nothing", device="cpu").load()
        assert time.perf_counter() - start < 5  # five tries would take half a minute
        message = str(caught.value)
        assert message.startswith("model.path: cannot load 'nobody/nothing': its files are not in the cache")
        assert "set model.path to a local folder" in message
        assert "\n" not in message
        assert "SECRET" not in message
        assert capfd.readouterr().err == ""
        assert not caplog.records

    @pytest.mark.parametrize("streaming", [False, True])
    def test_a_corpus(self, streaming: bool, capfd: pytest.CaptureFixture[str]) -> None:
        start = time.perf_counter()
        with pytest.raises(DataError) as caught:
            HfCorpus(path="nobody/nothing", streaming=streaming).load()
        assert time.perf_counter() - start < 5
        message = str(caught.value)
        assert "it is not in the cache, and" in message
        assert "covariance=text" in message
        assert "covariance=sampled" in message
        assert "\n" not in message
        assert "SECRET" not in message
        assert capfd.readouterr().err == ""

    def test_what_is_in_the_cache_is_used(self) -> None:
        with hub_access():
            assert constants.HF_HUB_OFFLINE
        assert not constants.HF_HUB_OFFLINE

    def test_an_error_that_is_not_about_the_network_stays(self) -> None:
        with pytest.raises(KeyError), hub_access():
            raise KeyError("rope")
        with pytest.raises(HubUnreachable), hub_access():
            raise OSError("Couldn't reach the file on the hub")


def test_a_hub_that_answers_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    class Session:
        def head(self, *args: object, **kwargs: object) -> None: ...

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.utils.get_session", Session)
    with hub_access():
        assert not constants.HF_HUB_OFFLINE
        assert not logging.getLogger("huggingface_hub.utils._http").isEnabledFor(logging.WARNING)
    assert logging.getLogger("huggingface_hub.utils._http").isEnabledFor(logging.WARNING)


def test_the_users_own_word_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ConfigError, match="HF_HUB_OFFLINE is set"):
        PretrainedModel(path="nobody/nothing", device="cpu").load()
    with pytest.raises(ConfigError, match="there is no such folder"):
        PretrainedModel(path="models/of/mine", device="cpu").load()
