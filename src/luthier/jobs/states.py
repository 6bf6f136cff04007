"""What state a job may go into from which; never backward."""

from typing import Literal

Status = Literal[
    "validating_files", "queued", "running", "paused", "succeeded", "failed", "cancelled"
]

LEADS_TO: dict[str, tuple[str, ...]] = {
    "validating_files": ("queued", "paused", "failed", "cancelled"),
    "queued": ("running", "paused", "failed", "cancelled"),
    "running": ("paused", "succeeded", "failed", "cancelled"),
    "paused": ("queued", "cancelled"),
    "succeeded": (),
    "failed": (),
    "cancelled": (),
}
"""A job whose worker dies stays what it is: another worker takes it up."""

OVER = tuple(status for status, further in LEADS_TO.items() if not further)


def before(status: str) -> tuple[str, ...]:
    """The states from which a job may go into this one."""
    return tuple(earlier for earlier, further in LEADS_TO.items() if status in further)
