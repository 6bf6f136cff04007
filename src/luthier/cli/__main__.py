"""`python -m luthier.cli` is the same as `luthier`."""

from luthier.cli import main

main()
