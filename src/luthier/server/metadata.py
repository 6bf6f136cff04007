"""Pairs that a client adds to things, as the protocol limits them."""

from typing import Annotated

from pydantic import AfterValidator, StringConstraints

MOST_PAIRS = 16


def _few(pairs: dict[str, str]) -> dict[str, str]:
    if len(pairs) > MOST_PAIRS:
        raise ValueError(f"may have {MOST_PAIRS} pairs")
    return pairs


Metadata = Annotated[
    dict[
        Annotated[str, StringConstraints(max_length=64)],
        Annotated[str, StringConstraints(max_length=512)],
    ],
    AfterValidator(_few),
]
