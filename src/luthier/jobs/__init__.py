"""What a service must not lose: files, jobs, events, models, keys; and the workers. No torch.

The database is the truth about jobs, the storage about contents. Servers and workers share both,
and nothing else.
"""

from luthier.jobs.captures import Captures
from luthier.jobs.errands import Errands
from luthier.jobs.files import Files
from luthier.jobs.hooks import Hooks
from luthier.jobs.ids import new_id
from luthier.jobs.keys import Keys
from luthier.jobs.models import Models
from luthier.jobs.queue import Hold, Jobs, LostHoldError
from luthier.jobs.service import LAYOUT, Service, open_database
from luthier.jobs.states import OVER, Status
from luthier.jobs.storage import Storage
from luthier.jobs.uploads import Uploads
from luthier.jobs.worker import Worker

__all__ = [
    "Captures",
    "Errands",
    "Files",
    "Hold",
    "Hooks",
    "Jobs",
    "Keys",
    "LAYOUT",
    "LostHoldError",
    "Models",
    "OVER",
    "Service",
    "Status",
    "Storage",
    "Uploads",
    "Worker",
    "new_id",
    "open_database",
]
