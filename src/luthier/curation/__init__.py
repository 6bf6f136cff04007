"""Datasets become better ones: versions made from files and from other versions. No torch."""

from luthier.curation.adding import add_files
from luthier.curation.differing import Difference, differ
from luthier.curation.exporting import export_version

__all__ = ["Difference", "add_files", "differ", "export_version"]
