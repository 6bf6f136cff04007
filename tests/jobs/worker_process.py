"""A worker in a process of its own: python worker_process.py FOLDER URL LEASE."""

import sys
import time
from pathlib import Path

from own_service import Service

if __name__ == "__main__":
    folder, url, lease = sys.argv[1:]
    worker = Service(Path(folder), url).worker(lease=float(lease))
    worker.run(lambda: False, time.sleep)
