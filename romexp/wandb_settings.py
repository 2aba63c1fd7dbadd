"""Reads what the user has told Weights & Biases outside of romexp: by environment variables, by `wandb offline`.

W&B itself reads the same variables and files, but lets arguments of `wandb.init` win over them.
"""

from __future__ import annotations

import configparser
import netrc
import os
import re
from pathlib import Path
from typing import Literal
from urllib.parse import urlparse

from romexp.errors import ConfigError
from romexp.redact import without_secrets

WantedMode = Literal["online", "offline", "disabled"]

MODES: dict[str, WantedMode] = {
    "online": "online",
    "run": "online",
    "offline": "offline",
    "dryrun": "offline",
    "disabled": "disabled",
}
"""W&B's words for a mode, `run` and `dryrun` being the old ones. Its `shared`, for a run that several processes write,
is not among them: each job of romexp has a run of its own.
"""

YES, NO = ("true", "1", "yes", "on", "y", "t"), ("false", "0", "no", "off", "n", "f", "")


def wandb_setting(name: str) -> str | None:
    """The value of a setting of W&B (`project`, `entity`, `mode`, `base_url`): that of its environment variable, else
    the one in W&B's settings files; None if there is none.
    """
    return os.environ.get(f"WANDB_{name.upper()}", "").strip() or _saved(name) or None


def wanted_mode() -> WantedMode | None:
    """The mode that the user has told W&B: by WANDB_DISABLED, by WANDB_MODE, by `wandb offline` or `wandb disabled`.

    Returns:
        None if nothing was said. `wandb online` also counts as nothing, because it only takes back `wandb offline`.

    Raises:
        ConfigError: a variable holds an unknown word.
    """
    if _is_disabled():
        return "disabled"
    if word := os.environ.get("WANDB_MODE", "").strip():
        if word not in MODES:
            raise ConfigError(f"WANDB_MODE: expected {', '.join(MODES)}, not {word!r}")
        return MODES[word]
    saved = MODES.get(_saved("mode") or "")
    return None if saved == "online" else saved


def has_wandb_key() -> bool:
    """Whether W&B would find a key: in WANDB_API_KEY, or in .netrc ($NETRC) for its server."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlparse(wandb_setting("base_url") or "https://api.wandb.ai").netloc
    file = Path(os.environ.get("NETRC") or "~/.netrc").expanduser()
    try:
        return netrc.netrc(file).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False


def short_reason(error: Exception) -> str:
    """The reason that W&B gives for an error, in one line, without its advice on W&B's own settings and without user
    name and password of a server.
    """
    reason = str(error).partition("\nConsider ")[0].strip() or type(error).__name__
    return without_secrets(re.sub(r"\s*\n\s*", " ", reason))


def _is_disabled() -> bool:
    word = os.environ.get("WANDB_DISABLED", "").strip()
    if word.lower() not in (*YES, *NO):
        raise ConfigError(f"WANDB_DISABLED: expected true or false, not {word!r}")
    return word.lower() in YES


def _saved(name: str) -> str | None:
    """The value in W&B's settings files: in the one of the current folder, else in the user's own."""
    user = Path(os.environ.get("WANDB_CONFIG_DIR") or Path("~") / ".config" / "wandb").expanduser()
    here = Path(".wandb") if Path(".wandb").is_dir() else Path("wandb")
    found = configparser.ConfigParser(interpolation=None)
    try:
        found.read([user / "settings", here / "settings"], encoding="utf-8")
    except (configparser.Error, UnicodeDecodeError):
        return None  # W&B ignores such files too, and says so itself
    return found.get("default", name, fallback=None) or None
