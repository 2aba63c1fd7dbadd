"""Seeds that depend on what a random number is for, never on batch size, order or sharding (docs/method.md §10)."""

from __future__ import annotations

import hashlib


def derive_seed(*parts: object) -> int:
    """A 63-bit seed from (run seed, case id, purpose, …): the first bytes of a Sha256 over their `repr`."""
    digest = hashlib.sha256(repr(parts).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
