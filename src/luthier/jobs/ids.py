"""Names that clients see: a word for the kind, and letters nobody can guess."""

import secrets
import string

LETTERS = string.ascii_letters + string.digits


def new_id(kind: str, length: int = 24) -> str:
    """Such as ftjob-4kL0...; 24 letters are 143 bits."""
    return kind + "".join(secrets.choice(LETTERS) for _ in range(length))
