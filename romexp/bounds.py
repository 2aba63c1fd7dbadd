"""Bounds of the numbers in configured objects. Every object checks its own when it is made."""

from __future__ import annotations

import math
from collections.abc import Iterable
from numbers import Real

from romexp.errors import ConfigError


def check_bounds(
    part: object,
    where: str,
    *,
    finite: Iterable[str] = (),
    from_0: Iterable[str] = (),
    from_1: Iterable[str] = (),
    above_0: Iterable[str] = (),
    shares: Iterable[str] = (),
) -> None:
    """Look at fields of an object. None is not looked at: what it means is up to the field.

    Args:
        part: the object.
        where: what stands before a field's name in messages, as `editor`; may be empty.
        finite: names of fields that may hold any number but infinity and NaN.
        from_0: fields that must be at least 0.
        from_1: fields that must be at least 1.
        above_0: fields that must be more than 0.
        shares: fields from 0 to 1.

    Raises:
        ConfigError: a field holds something else; the message names the first.
    """
    rules = (
        (finite, "a finite number", -math.inf, math.inf),
        (from_0, "a number of at least 0", 0, math.inf),
        (from_1, "a number of at least 1", 1, math.inf),
        (above_0, "a number above 0", math.ulp(0.0), math.inf),
        (shares, "a number from 0 to 1", 0, 1),
    )
    for names, expected, lowest, highest in rules:
        for name in names:
            value = getattr(part, name)
            if value is not None and not (_is_finite(value) and lowest <= value <= highest):
                field = f"{where}.{name}" if where else name
                raise ConfigError(f"{field}: expected {expected}, not {value!r}")


def _is_finite(value: object) -> bool:
    """Whether this is a number, and neither infinite nor NaN. A switch is no number."""
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
