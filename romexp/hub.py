"""Access to the Hugging Face hub. Without a network, only the local cache is used, at once and without a word.

The libraries of the hub try again for half a minute, with a line for each try, also for files that are in the cache.
"""

from __future__ import annotations

import logging
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from romexp.redact import without_secrets

WAIT_S = 3.0
"""Seconds in which the hub must answer. An address that does not exist or a closed port is known at once."""
NOT_IN_CACHE = r"(?i)offline|connect|reach|LocalEntryNotFound|does not appear to have|not.{0,20} cache"
"""What the libraries say in such a case."""


class HubUnreachable(Exception):
    """A file is not in the local cache, and the hub cannot be reached. The message says why."""


@contextmanager
def hub_access() -> Iterator[None]:
    """Inside the context, the libraries of the hub print no line for each new try. If the hub cannot be reached, they
    use only their cache, as with HF_HUB_OFFLINE=1.

    Raises:
        HubUnreachable: the hub cannot be reached, and the context has ended because a file is not in the cache.
    """
    reason = _why_unreachable()
    tries = logging.getLogger("huggingface_hub.utils._http")
    level = tries.level
    tries.setLevel(logging.ERROR)
    try:
        if not reason:
            yield
            return
        try:
            with _offline():
                yield
        except Exception as error:
            if _is_not_in_cache(error):
                raise HubUnreachable(reason) from error
            raise
    finally:
        tries.setLevel(level)


def _why_unreachable() -> str:
    """Why the hub cannot be reached, in a few words; empty if it can."""
    from huggingface_hub import constants
    from huggingface_hub.utils import get_session

    host = without_secrets(str(constants.ENDPOINT)).rpartition("://")[2]
    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    found = [f"{host} does not answer within {WAIT_S:g} s"]

    def ask() -> None:
        try:
            get_session().head(constants.ENDPOINT, timeout=WAIT_S)
            found[0] = ""
        except Exception as error:  # `huggingface_hub` has changed its HTTP library, and with it the types of errors.
            lines = str(error).splitlines() or [type(error).__name__]
            found[0] = f"no connection to {host}: {without_secrets(lines[0])}"

    # In a thread, because looking up a name has no time limit of its own.
    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(WAIT_S)
    return found[0]


def _is_not_in_cache(error: BaseException | None) -> bool:
    """Whether an error, or one that led to it, says that a file would have to be downloaded."""
    said = ""
    while error is not None and len(said) < 10_000:
        said += f" {type(error).__name__}: {error}"
        error = error.__cause__ or error.__context__
    return re.search(NOT_IN_CACHE, said) is not None


@contextmanager
def _offline() -> Iterator[None]:
    """Set the switch that HF_HUB_OFFLINE=1 sets when these libraries are imported."""
    modules = [sys.modules.get(name) for name in ("huggingface_hub.constants", "datasets.config")]
    before = [(module, module.HF_HUB_OFFLINE) for module in modules if module is not None]
    try:
        for module, _ in before:
            module.HF_HUB_OFFLINE = True  # type: ignore[attr-defined]
        yield
    finally:
        for module, value in before:
            module.HF_HUB_OFFLINE = value  # type: ignore[attr-defined]
