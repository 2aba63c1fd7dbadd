"""Seeds that depend on the purpose of a random number, not on batch size, order or sharding (docs/method.md §10.2)."""

from __future__ import annotations

import hashlib


def derive_seed(*parts: object) -> int:
    """A 63-bit seed from (run seed, case id, purpose, …): the first 63 bits of a SHA-256 over their `repr`."""
    digest = hashlib.sha256(repr(parts).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
