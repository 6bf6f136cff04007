"""Bad input: a message that says what to do, exit code 2, no traceback, nothing half-written."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from journey import luthier, rows, write_rows, write_task

GOOD = rows(40)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("template")
    write_task(folder)
    return folder


def change_recipe(folder: Path, **changes: object) -> None:
    path = folder / "recipe.yaml"
    content = yaml.safe_load(path.read_text())
    content.update(changes)
    path.write_text(yaml.safe_dump(content))


def missing_file(folder: Path) -> None:
    (folder / "rows.jsonl").unlink()


def empty_file(folder: Path) -> None:
    (folder / "rows.jsonl").write_bytes(b"")


def a_directory(folder: Path) -> None:
    (folder / "rows.jsonl").unlink()
    (folder / "rows.jsonl").mkdir()


def wrong_encoding(folder: Path) -> None:
    (folder / "rows.jsonl").write_bytes(
        '{"prompt": "gr\u00fcn", "completion": "x"}'.encode("latin-1")
    )


def broken_json_on_line_7(folder: Path) -> None:
    lines = (folder / "rows.jsonl").read_text().splitlines()
    lines[6] = lines[6][:-3]
    (folder / "rows.jsonl").write_text("\n".join(lines))


def with_row(row: object) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        write_rows(folder / "rows.jsonl", [*GOOD[:4], row, *GOOD[4:]])  # type: ignore[list-item]

    return write


def messages(*turns: tuple[object, object]) -> dict[str, object]:
    return {"messages": [{"role": role, "content": content} for role, content in turns]}


def nan_label(folder: Path) -> None:
    text = (folder / "rows.jsonl").read_text()
    (folder / "rows.jsonl").write_text(text + '{"prompt": "a", "completion": NaN}\n')


def duplicate_ids(folder: Path) -> None:
    write_rows(
        folder / "rows.jsonl", [{**row, "id": f"row-{i % 39}"} for i, row in enumerate(GOOD)]
    )


def unreadable_model(folder: Path) -> None:
    (folder / "model" / "config.json").write_text("{ not json")


def model_without_weights(folder: Path) -> None:
    (folder / "model" / "model.safetensors").unlink()


def pickled_model(folder: Path) -> None:
    path = folder / "model" / "model.safetensors"
    path.rename(folder / "model" / "pytorch_model.bin")


def weights_cut_short(folder: Path) -> None:
    path = folder / "model" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def gguf_cut_short(folder: Path) -> None:
    (folder / "model.gguf").write_bytes(b"GGUF\x03\x00\x00\x00 cut short")
    change_recipe(folder, model="model.gguf")


def recipe_with_a_typo(folder: Path) -> None:
    change_recipe(folder, trainning={"epochs": 1})


def template_that_drops_the_system_turn(folder: Path) -> None:
    path = folder / "model" / "chat_template.jinja"
    kept = "{% for message in messages if message.role != 'system' %}"
    path.write_text(path.read_text().replace("{% for message in messages %}", kept))


def template_without_an_end(folder: Path) -> None:
    path = folder / "model" / "chat_template.jinja"
    path.write_text(path.read_text().replace("<|im_end|>", ""))


def rows_too_long(folder: Path) -> None:
    change_recipe(folder, training={"max_length": 20})


CASES: list[tuple[Callable[[Path], None], str]] = [
    (missing_file, "rows.jsonl: does not exist"),
    (empty_file, "rows.jsonl: is empty"),
    (a_directory, "rows.jsonl: is a folder"),
    (wrong_encoding, "rows.jsonl:1"),
    (broken_json_on_line_7, "rows.jsonl:7"),
    (with_row(messages(("user", "a"))), "rows.jsonl:5 messages has the roles user"),
    (with_row(messages(("user", "a"), ("asistant", "b"))), "did you mean assistant?"),
    (with_row(messages(("user", "a"), ("assistant", None))), "messages[1].content is null"),
    (with_row(messages(("user", "x" * 5_000_001), ("assistant", "b"))), "rows.jsonl:5 is 5.0 MB"),
    (nan_label, "rows.jsonl:41 holds NaN"),
    (duplicate_ids, "rows.jsonl:40 id is 'row-0'"),
    (unreadable_model, "config.json"),
    (model_without_weights, "weights"),
    (pickled_model, "safetensors"),
    (weights_cut_short, "cut short"),
    (gguf_cut_short, "model.gguf: is damaged or cut short"),
    (recipe_with_a_typo, "did you mean training"),
    (template_that_drops_the_system_turn, "messages[0] (system) does not appear"),
    (template_without_an_end, "no token that generation stops on"),
    (rows_too_long, "rows cannot be used"),
]


@pytest.mark.parametrize(("spoil", "expected"), CASES, ids=lambda c: getattr(c, "__name__", None))
def test_bad_input_is_one_message(
    template: Path, tmp_path: Path, spoil: Callable[[Path], None], expected: str
) -> None:
    folder = tmp_path / "task"
    shutil.copytree(template, folder)
    spoil(folder)
    done = luthier(folder, "train", "recipe.yaml")
    assert done.code == 2, done.error
    assert expected in done.error
    assert "Traceback" not in done.error
    assert done.error.startswith("error: ")
    assert not (folder / "luthier-workspace").exists(), "nothing is half-written"


def test_every_problem_is_listed(template: Path, tmp_path: Path) -> None:
    bad: list[dict[str, object]] = [
        messages(("user", "a")),
        messages(("user", None), ("assistant", "b")),
        {"x": 1},
    ]
    folder = tmp_path / "task"
    shutil.copytree(template, folder)
    write_rows(folder / "rows.jsonl", [*GOOD, *bad])
    done = luthier(folder, "check", "recipe.yaml")
    assert done.code == 2
    assert "3 problems in 3 rows" in done.error
    for line in (41, 42, 43):
        assert f"rows.jsonl:{line} " in done.error


def test_a_workspace_that_cannot_be_written_is_named(template: Path, tmp_path: Path) -> None:
    folder = tmp_path / "task"
    shutil.copytree(template, folder)
    (folder / "luthier-workspace").write_text("a file where the folder should be")
    done = luthier(folder, "train", "recipe.yaml")
    assert done.code == 2
    assert "luthier-workspace" in done.error
    assert "Traceback" not in done.error
