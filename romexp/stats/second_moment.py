"""placeholder: replaced by the stats helper."""

from dataclasses import dataclass


@dataclass(frozen=True)
class SecondMoment:
    matrix: object
