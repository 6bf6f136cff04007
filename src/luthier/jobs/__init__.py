"""What a service must not lose: files, jobs, events, models, keys; and the workers. No torch.

The database is the truth about jobs, the storage about contents. Servers and workers share both,
and nothing else.
"""

from luthier.jobs.files import Files
from luthier.jobs.ids import new_id
from luthier.jobs.queue import Hold, Jobs, LostHoldError
from luthier.jobs.service import LAYOUT, open_database
from luthier.jobs.states import OVER, Status
from luthier.jobs.storage import Storage
from luthier.jobs.worker import Worker

__all__ = [
    "Files",
    "Hold",
    "Jobs",
    "LAYOUT",
    "LostHoldError",
    "OVER",
    "Status",
    "Storage",
    "Worker",
    "new_id",
    "open_database",
]
