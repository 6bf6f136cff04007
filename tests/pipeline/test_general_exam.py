"""What a model makes of general questions is what it makes of them one by one."""

from pathlib import Path

import pytest
import torch

from luthier.data import Place
from luthier.errors import EvaluationError
from luthier.evaluation import GeneralSet, Question
from luthier.evaluation.general import Passage
from luthier.models import LanguageModel, load_model, make_trainable, trained_parameters
from luthier.pipeline.general import Exam
from luthier.pipeline.questions import encode_questions
from luthier.recipe import LoRA
from luthier.tokens import Tokenizer
from tiny import write_model

HERE = Place("own.jsonl", 1)
ASKED = GeneralSet(
    (
        Question("sums", "How much is one and one?", ("one", "two", "three"), 1, HERE),
        Question("sums", "What comes after two?", ("three", "four"), 0, HERE),
    ),
    (
        Passage("prose", "It was a dark night. " * 40, HERE),
        Passage("code", "def f(x):\n    return x", HERE),
    ),
    "",
)


def opened(folder: Path, **changes: object) -> tuple[LanguageModel, Tokenizer]:
    write_model(folder, **changes)  # type: ignore[arg-type]
    model = load_model(folder, dtype=torch.float32, device=torch.device("cpu"))
    return model, Tokenizer.load(folder)


def log_likelihood(model: LanguageModel, prompt: list[int], rest: list[int]) -> float:
    """By transformers' own forward pass, one sequence alone."""
    model.base.set_attn_implementation("eager")
    with torch.no_grad():
        logits = model.base(input_ids=torch.tensor([prompt + rest])).logits[0].log_softmax(-1)
    model.base.set_attn_implementation("luthier_flat")
    places = range(len(prompt), len(prompt) + len(rest))
    return sum(float(logits[place - 1, token]) for place, token in zip(places, rest, strict=True))


@pytest.mark.parametrize("has_template", [True, False])
def test_likelihoods_are_those_of_each_choice_alone(tmp_path: Path, has_template: bool) -> None:
    folder = write_model(tmp_path)
    if not has_template:
        (folder / "chat_template.jinja").unlink()
    model = load_model(folder, dtype=torch.float32, device=torch.device("cpu"))
    tokenizer = Tokenizer.load(folder)
    end = [2] if has_template else []
    for budget in (8, 4096):
        known = Exam(ASKED, tokenizer, budget).put(model)
        for question, found in zip(ASKED.questions, known.likelihoods, strict=True):
            text = f"Question: {question.question}\nAnswer:"
            if has_template:
                text = f"<|im_start|>user\n{question.question}<|im_end|>\n<|im_start|>assistant\n"
            space = "" if has_template else " "
            wanted = [
                log_likelihood(
                    model, tokenizer.encode(text).ids,
                    [*tokenizer.encode(f"{space}{choice}").ids, *end],
                )
                for choice in question.choices
            ]  # fmt: skip
            assert found == pytest.approx(wanted, rel=1e-4)


def test_passages_are_weighed_whole_though_in_pieces(tmp_path: Path) -> None:
    model, tokenizer = opened(tmp_path, max_position_embeddings=256)
    known = Exam(ASKED, tokenizer, 4096).put(model)
    long, short = known.losses
    assert long[1] == len(ASKED.passages[0].text), "every byte and the end, but not the first byte"
    ids = [*tokenizer.encode(ASKED.passages[1].text).ids, 0]
    assert short[0] == pytest.approx(-log_likelihood(model, ids[:1], ids[1:]), rel=1e-4)
    assert short[1] == len(ids) - 1


def test_what_is_too_long_for_the_model_is_not_asked(tmp_path: Path) -> None:
    model, tokenizer = opened(tmp_path, max_position_embeddings=48)
    known = Exam(ASKED, tokenizer, 4096).put(model)
    assert known.likelihoods[0] == ()
    assert len(known.likelihoods[1]) == 2


def test_divergence_from_another_model_and_from_the_one_without_its_adapter(
    tmp_path: Path,
) -> None:
    model, tokenizer = opened(tmp_path / "a")
    start, _ = opened(tmp_path / "a")
    exam = Exam(ASKED, tokenizer, 4096)
    assert exam.divergence(model, start) == pytest.approx(0, abs=1e-6)
    make_trainable(model, LoRA(rank=4), seed=0)
    with torch.no_grad():
        for name, parameter in trained_parameters(model.network).items():
            if "lora_B" in name:
                parameter.fill_(0.05)
    moved = exam.divergence(model, None)
    assert moved is not None
    assert moved > 1e-3
    assert exam.divergence(model, start) == pytest.approx(moved, rel=1e-5)
    questions = GeneralSet(ASKED.questions, (), "")
    assert Exam(questions, tokenizer, 4096).divergence(model, start) is None


def test_what_is_no_number_is_an_error(tmp_path: Path) -> None:
    model, tokenizer = opened(tmp_path)
    with torch.no_grad():
        model.head.weight.fill_(torch.nan)
    with pytest.raises(EvaluationError, match="are no numbers"):
        Exam(ASKED, tokenizer, 4096).put(model)


def test_text_for_models_without_chats_begins_as_the_tokenizer_begins_texts(tmp_path: Path) -> None:
    folder = write_model(tmp_path, begins=True)
    (folder / "chat_template.jinja").unlink()
    tokenizer = Tokenizer.load(folder)
    first, *rest = encode_questions(tokenizer, ASKED)[0][0].input_ids
    assert first == tokenizer.backend.token_to_id("<|endoftext|>")
    assert rest[:9] == tokenizer.encode("Question:").ids
