"""--help and import answer at once: nothing heavy is imported for them."""

import resource
import subprocess
import sys

import pytest

HEAVY = {
    "torch", "transformers", "peft", "sqlalchemy", "alembic", "scipy", "pyarrow", "numpy",
    "sacrebleu", "gguf", "huggingface_hub",
}  # fmt: skip


@pytest.mark.parametrize(
    "arguments",
    [
        ("-m", "luthier.cli", "--help"),
        ("-m", "luthier.cli", "runs", "--help"),
        ("-c", "import luthier"),
    ],
)
def test_nothing_heavy_is_imported(arguments: tuple[str, ...]) -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *arguments], capture_output=True, text=True, check=True
    )
    seconds = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before
    modules = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert not modules & HEAVY, "imports of heavy packages belong inside the commands"
    assert seconds < 2, "a person waits for --help"


def test_a_run_begins_without_what_only_its_end_needs() -> None:
    program = "import luthier.pipeline.learning, sys; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert not {"nltk", "sklearn", "pandas", "scipy.stats"} & set(loaded.stdout.split())
    assert "luthier.pipeline.learning" in loaded.stdout
