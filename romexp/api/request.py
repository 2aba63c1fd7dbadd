"""A fact as a user writes it."""

from __future__ import annotations

from romexp.errors import ConfigError, RecordError
from romexp.facts import EditRequest
from romexp.subjects import find_subject


def make_request(prompt: str, subject: str, target: str) -> EditRequest:
    """A fact as the user writes it.

    Args:
        prompt: with one `{}` for the subject, or with the subject itself.

    Raises:
        ConfigError: the prompt has neither or several `{}`.
    """
    subject, target = subject.strip(), target.strip()
    for name, value in (("subject", subject), ("target", target), ("prompt", prompt)):
        if not value.strip():
            raise ConfigError(f"{name} is empty")
    if (count := prompt.count("{}")) > 1:
        raise ConfigError(f"prompt: expected one {{}} for the subject, found {count} in {prompt!r}")
    if not count:
        try:
            start = find_subject(prompt, subject)
        except RecordError as error:
            raise ConfigError(f"prompt: {error.reason}; write {{}} where the subject stands") from error
        prompt = f"{prompt[:start]}{{}}{prompt[start + len(subject) :]}"
    return EditRequest(subject=subject, prompt=prompt.rstrip(), target_new=target)
