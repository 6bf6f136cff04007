"""The pipeline over HTTP, as OpenAI's clients speak it: files, jobs, models, keys.

Keeps nothing: what must not be lost is the room `jobs`'s. Everything a client sends is data.
"""

from luthier.server.app import create_app
from luthier.server.settings import Base, Limits, Settings

__all__ = ["Base", "Limits", "Settings", "create_app"]
