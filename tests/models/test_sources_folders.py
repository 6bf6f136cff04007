"""Model folders are accepted whole, refused with a reason otherwise, and never written to."""

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file
from tokenizers import Tokenizer

from luthier.errors import ConfigError, ModelError, StorageError
from luthier.models.pooling import read_pooling
from luthier.models.sources import ModelFolder, default_cache, resolve_source
from luthier.recipe import Model
from tiny_encoders import write_encoder


def write_folder(folder: Path, weights: str = "model.safetensors") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    save_file({"w": np.arange(6, dtype=np.float32)}, folder / weights)
    (folder / "config.json").write_text('{"model_type": "llama"}')
    (folder / "tokenizer.json").write_text("{}")
    return folder


def write_shards(folder: Path, *names: str) -> Path:
    write_folder(folder)
    (folder / "model.safetensors").rename(folder / "model-1.safetensors")
    index = {"weight_map": {f"w{i}": name for i, name in enumerate(names)}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def resolve(source: Path | str, **settings: Any) -> ModelFolder:
    cache = Path(source).parent / "cache"
    return resolve_source(Model(source=str(source), **settings), cache)


def test_a_whole_folder_is_used_as_it_is(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "model")
    (folder / "README.md").write_text("---\nlicense: mit\n---\n# A model\n")
    found = resolve(folder)
    assert (found.path, found.source, found.kind) == (folder, str(folder), "folder")
    assert (found.licence, found.revision) == ("mit", "")


@pytest.mark.parametrize(
    "card",
    ["", "# No front matter", "---\nlicense: [\n---\n", "---\n- a\n---\n", "---\nlicense: mit\n"],
)
def test_a_card_without_a_licence_states_none(tmp_path: Path, card: str) -> None:
    folder = write_folder(tmp_path / "model")
    (folder / "README.md").write_text(card)
    assert resolve(folder).licence == ""


def test_the_identity_follows_the_weights_and_nothing_else(tmp_path: Path) -> None:
    first, second = write_folder(tmp_path / "first"), write_folder(tmp_path / "second")
    (second / "config.json").write_text('{"model_type": "qwen3"}')
    assert resolve(first).sha256 == resolve(second).sha256
    save_file({"w": np.zeros(6, dtype=np.float32)}, second / "model.safetensors")
    assert resolve(first).sha256 != resolve(second).sha256


def test_the_hash_of_an_unchanged_file_is_remembered(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "model")
    first = resolve(folder).sha256
    (record,) = (tmp_path / "cache" / "hashes").iterdir()
    record.write_text("0" * 64)
    assert resolve(folder).sha256 != first


def test_all_shards_are_needed_and_all_missing_ones_named(tmp_path: Path) -> None:
    folder = write_shards(tmp_path / "model", "model-1.safetensors", "b.safetensors", "c.x")
    with pytest.raises(ModelError) as caught:
        resolve(folder)
    assert "2 of 3 weight files are missing" in caught.value.found
    assert caught.value.details == ("b.safetensors", "c.x")
    assert resolve(write_shards(tmp_path / "whole", "model-1.safetensors")).sha256


def remove(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).unlink()


def cut(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-3])


def claim(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", 2**40) + b"{}")


def only_pickles(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    (folder / "more.ckpt").touch()


def only_adapter(folder: Path) -> None:
    (folder / "config.json").rename(folder / "adapter_config.json")


def escape(folder: Path) -> None:
    write_shards(folder, "../model-1.safetensors")


def write(name: str, text: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_text(text)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (remove("config.json"), "config.json is missing"),
        (remove("model.safetensors"), "holds no weights"),
        (remove("tokenizer.json"), "has no tokenizer.json"),
        (only_pickles, "only pickled weights (more.ckpt, pytorch_model.bin)"),
        (only_adapter, "holds an adapter, not a model"),
        (cut, "model.safetensors: is cut short"),
        (claim, "model.safetensors: is cut short"),
        (write("model.safetensors", ""), "model.safetensors: is cut short"),
        (escape, "names files outside the folder"),
        (write("config.json", "{"), "config.json: cannot be read"),
        (write("config.json", "[]"), "config.json: is not a JSON object"),
        (write("config.json", '{"auto_map": {"AutoModel": "x.Y"}}'), "set model.remote_code:"),
        (lambda f: save_file({}, f / "model.safetensors"), "holds no weights"),
    ],
)
def test_an_unusable_folder_is_refused(
    tmp_path: Path, spoil: Callable[[Path], object], words: str
) -> None:
    folder = write_folder(tmp_path / "model")
    spoil(folder)
    with pytest.raises(ModelError) as caught:
        resolve(folder)
    assert words in str(caught.value)
    assert str(folder) in str(caught.value)


def test_an_index_without_weights_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="has no weight_map"):
        resolve(write_shards(tmp_path / "model"))


def test_remote_code_is_allowed_by_name_only(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "model")
    (folder / "config.json").write_text('{"auto_map": {"AutoModel": "x.Y"}}')
    assert resolve(folder, remote_code=str(folder)).path == folder
    with pytest.raises(ConfigError, match="names 'another/model'"):
        resolve(folder, remote_code="another/model")


def test_a_revision_of_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="has no revisions"):
        resolve(write_folder(tmp_path / "model"), revision="v1")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("weights.bin", "is a pickled file"),
        ("model.safetensors", "without config and tokenizer"),
        ("notes.txt", "is a .txt file"),
        ("notes", "is a nameless file"),
    ],
)
def test_a_file_of_another_kind_is_refused(tmp_path: Path, name: str, words: str) -> None:
    (tmp_path / name).touch()
    with pytest.raises(ModelError, match=words):
        resolve(tmp_path / name)


@pytest.mark.parametrize("source", ["/no/such/folder", "absent.gguf", "absent", "a/absent.gguf"])
def test_what_is_not_there_is_said_to_be_missing(source: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such folder or file"):
        resolve_source(Model(source=source), tmp_path)


def test_an_older_tokenizer_is_converted_into_the_cache(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "model")
    (folder / "tokenizer.json").unlink()
    (folder / "config.json").write_text('{"model_type": "gpt2"}')
    vocabulary = {"<|endoftext|>": 0, "h": 1, "e": 2, "he": 3}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("#version: 0.2\nh e\n")
    before = sorted(folder.iterdir())
    notes: list[str] = []
    model, cache = Model(source=str(folder)), tmp_path / "cache"
    found = resolve_source(model, cache, notes.append)
    again = resolve_source(model, cache, notes.append)
    assert found == again
    assert notes == ["converting the tokenizer of model, once"]
    assert sorted(folder.iterdir()) == before
    tokenizer = Tokenizer.from_file(str(found.path / "tokenizer.json"))
    assert tokenizer.encode("he").ids == [3]
    assert (found.path / "model.safetensors").resolve() == folder / "model.safetensors"


def test_a_tokenizer_that_cannot_be_converted_is_refused(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "model")
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer.model").write_bytes(b"not a sentencepiece model")
    with pytest.raises(ModelError, match="its tokenizer cannot be converted"):
        resolve(folder)


def test_the_default_cache_is_the_users_own() -> None:
    assert default_cache().name == "luthier"


def test_a_cache_that_cannot_be_written_is_a_storage_error(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "model")
    (tmp_path / "cache").write_text("a file in the way")
    with pytest.raises(StorageError, match="free some space"):
        resolve(folder)


def test_an_older_tokenizer_is_converted_and_pooling_comes_along(tmp_path: Path) -> None:
    folder = write_encoder(tmp_path / "model", "bert", sentence="cls_token")
    vocabulary = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
    (folder / "vocab.txt").write_text("\n".join(sorted(vocabulary, key=vocabulary.__getitem__)))
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer"}')
    found = resolve(folder)
    assert found.path != folder
    assert Tokenizer.from_file(str(found.path / "tokenizer.json")).token_to_id("lamp")
    assert read_pooling(found.path).mode == "cls"


@pytest.mark.parametrize("path", ["..", "../outside", "/tmp/outside"])
def test_modules_outside_the_folder_are_refused(path: str, tmp_path: Path) -> None:
    folder = write_encoder(tmp_path / "model", "bert", sentence="cls_token")
    modules = json.loads((folder / "modules.json").read_text())
    modules.append({"idx": 3, "name": "3", "path": path, "type": "sentence_transformers.Dense"})
    (folder / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(ModelError, match="names folders outside"):
        read_pooling(folder)
