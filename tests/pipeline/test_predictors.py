"""What is put into a prompt, and what comes back from a model asked with it."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from luthier.data import Chat, Message
from luthier.evaluation import Prompt, choose_shots, with_shots
from luthier.models import LanguageModel, load_model
from luthier.models.attention import FLAT
from luthier.pipeline.predictors import LocalPredictor
from luthier.tokens import Tokenizer, encode_prompt
from tiny import chat, write_model

SHOTS = (
    chat(("system", "be brief"), ("user", "one"), ("assistant", "1"), line=1),
    chat(("system", "be brief"), ("user", "two"), ("assistant", "2"), line=2),
)
QUESTION = chat(("system", "be brief"), ("user", "three"), ("assistant", "3"), line=9)


def said(example: Chat) -> list[tuple[str, str]]:
    return [(message.role, message.content) for message in example.messages]


def test_examples_stand_between_instructions_and_question() -> None:
    assert said(with_shots(QUESTION, SHOTS)) == [
        ("system", "be brief"),
        ("user", "one"), ("assistant", "1"),
        ("user", "two"), ("assistant", "2"),
        ("user", "three"), ("assistant", "3"),
    ]  # fmt: skip
    assert with_shots(QUESTION, SHOTS).target == QUESTION.target
    assert with_shots(QUESTION, SHOTS).id == QUESTION.id
    assert with_shots(QUESTION, ()) is QUESTION


def test_messages_after_the_answer_stay_out_of_the_prompt() -> None:
    asked = chat(("user", "a"), ("assistant", "b"), ("user", "thanks"))
    assert "thanks" not in [text for _, text in said(with_shots(asked, SHOTS))]


def test_shots_are_a_fixed_choice_without_equal_answers() -> None:
    rows = [chat(("user", f"q{i}"), ("assistant", f"answer {i % 3}"), line=i) for i in range(1, 30)]
    chosen = choose_shots(rows, 3, seed=1)
    assert chosen == choose_shots(rows, 3, seed=1)
    assert len({row.target.content for row in chosen}) == 3
    assert chosen != choose_shots(rows, 3, seed=2)
    assert len(choose_shots(rows, 5, seed=1)) == 5
    assert choose_shots(rows, 0, seed=1) == ()


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> tuple[LanguageModel, Tokenizer]:
    folder: Path = write_model(tmp_path_factory.mktemp("llama"))
    model = load_model(folder, dtype=torch.float32, device=torch.device("cpu"))
    return model, Tokenizer.load(folder)


def test_predictions_come_in_order_with_the_loss_of_the_reference(
    tuned: tuple[LanguageModel, Tokenizer],
) -> None:
    model, tokenizer = tuned
    seen: list[tuple[int, int]] = []
    predictor = LocalPredictor(
        "two examples", model, tokenizer, max_new_tokens=6, loss_tokens=64,
        prompt=Prompt(shots=SHOTS),
        observe=lambda done, total: seen.append((done, total)),
    )  # fmt: skip
    examples = [QUESTION, chat(("user", "four, please"), ("assistant", "4"), line=10)]
    found = predictor.predict(examples)
    assert [prediction.example_id for prediction in found] == [e.id for e in examples]
    assert seen[-1] == (2, 2)
    model.base.set_attn_implementation("eager")
    for example, prediction in zip(examples, found, strict=True):
        asked = with_shots(example, SHOTS)
        ids = encode_prompt(tokenizer, asked.prompt)
        answer = tokenizer.encode(f"{example.target.content}<|im_end|>").ids
        logits = model.network(input_ids=torch.tensor([ids + answer])).logits[0]
        expected = torch.nn.functional.cross_entropy(
            logits[len(ids) - 1 : -1], torch.tensor(answer)
        ).item()
        assert prediction.target_loss == pytest.approx(expected, rel=1e-4)
        assert prediction.target_tokens == len(answer)
        assert 1 <= prediction.num_tokens <= 6
    model.base.set_attn_implementation(FLAT)


def test_prompts_longer_than_the_model_was_made_for_are_not_asked(
    tuned: tuple[LanguageModel, Tokenizer],
) -> None:
    model, tokenizer = tuned
    short = replace(tokenizer, context_length=60)
    predictor = LocalPredictor("it", model, short, max_new_tokens=3, loss_tokens=64)
    long = chat(("user", "far too long " * 30), ("assistant", "4"), line=10)
    first, second, third = predictor.predict([QUESTION, long, replace(QUESTION, id="again")])
    assert not first.error
    assert first.text == third.text
    assert first.target_loss == pytest.approx(third.target_loss)
    assert second.example_id == long.id
    assert "the model was made for 60" in second.error
    assert second.target_loss is None


def test_the_likeliest_choice_is_picked_and_a_row_without_choices_has_none(
    tuned: tuple[LanguageModel, Tokenizer],
) -> None:
    model, tokenizer = tuned
    words = ("one", "two", "a longer answer", "x")
    rows = [
        replace(chat(("user", f"how many? {i}"), ("assistant", words[i % 4]), line=i + 1),
                choices=words if i % 3 else ())
        for i in range(9)
    ]  # fmt: skip
    for at_once in (16, 4096):
        predictor = LocalPredictor("m", model, tokenizer, max_new_tokens=2, loss_tokens=at_once)
        found = predictor.predict(rows)
        for row, prediction in zip(rows, found, strict=True):
            if not row.choices:
                assert prediction.picked == ""
                continue
            sums = []
            for word in words:
                asked = replace(row, messages=(*row.prompt, Message("assistant", word)), choices=())
                (alone,) = predictor.predict([asked])
                assert alone.target_loss is not None
                assert alone.target_tokens is not None
                sums.append(alone.target_loss * alone.target_tokens)
            assert prediction.picked == words[sums.index(min(sums))]
