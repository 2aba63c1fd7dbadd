"""Is there a key for a service? Only its presence is looked at, never its value."""

from __future__ import annotations

import netrc
import os
from urllib.parse import urlparse


def has_wandb_key() -> bool:
    """Whether Weights & Biases would find a key: in WANDB_API_KEY, or in .netrc ($NETRC) for the server in use."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlparse(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).netloc
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False
