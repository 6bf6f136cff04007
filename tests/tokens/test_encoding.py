"""The mask covers the answers and their end, exactly, or the chat is refused."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from luthier.data import Chat, Message, Place, Role, Text
from luthier.errors import DataError, ModelError, TemplateError
from luthier.tokens import (
    IGNORED,
    Encoded,
    Tokenizer,
    check_ledger,
    encode_chat,
    encode_split,
    encode_text,
)
from luthier.tokens.encoding import mismatch
from tiny import CHATML, chat, write_tokenizer


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return load(tmp_path_factory.mktemp("tokenizer"), CHATML)


def load(folder: Path, template: str) -> Tokenizer:
    write_tokenizer(folder, template)
    return Tokenizer.load(folder)


CONTENT = st.text(
    alphabet=st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20
).filter(lambda text: text.strip() and "<|" not in text)


@given(
    st.lists(st.tuples(CONTENT, CONTENT), min_size=1, max_size=3), st.sampled_from(["all", "last"])
)
@settings(
    max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_supervised_ids_decode_to_the_answers_and_their_end(
    tokenizer: Tokenizer, turns: list[tuple[str, str]], train_on: str
) -> None:
    messages: list[tuple[Role, str]] = []
    for question, answer in turns:
        messages += [("user", question), ("assistant", answer)]
    encoded = encode_chat(tokenizer, chat(*messages), "last" if train_on == "last" else "all")
    learnt = [i for i in encoded.labels if i != IGNORED]
    answers = [a for _, a in turns][-1:] if train_on == "last" else [a for _, a in turns]
    assert tokenizer.decode(learnt, keep_special=True) == "".join(a + "<|im_end|>" for a in answers)
    assert all(
        label in (IGNORED, token)
        for label, token in zip(encoded.labels, encoded.input_ids, strict=True)
    )
    assert encoded.num_supervised == len(learnt)


def test_a_turn_of_weight_zero_carries_no_loss(tokenizer: Tokenizer) -> None:
    messages = (
        Message("user", "a"), Message("assistant", "first", weight=0),
        Message("user", "b"), Message("assistant", "second"),
    )  # fmt: skip
    encoded = encode_chat(tokenizer, Chat("x", Place("f", 1), messages))
    learnt = [i for i in encoded.labels if i != IGNORED]
    assert tokenizer.decode(learnt) == "second"


def test_messages_after_the_last_answer_are_left_out(tokenizer: Tokenizer) -> None:
    asked = chat(("user", "a"), ("assistant", "b"), ("user", "thanks"))
    assert "thanks" not in tokenizer.decode(encode_chat(tokenizer, asked).input_ids)


def test_a_template_without_an_end_token_is_refused(tmp_path: Path) -> None:
    endless = load(tmp_path, CHATML.replace("<|im_end|>", ""))
    with pytest.raises(TemplateError, match="no token that generation stops on"):
        encode_chat(endless, chat(("user", "a"), ("assistant", "b")))


def test_an_end_token_of_the_next_turn_does_not_count(tmp_path: Path) -> None:
    late = load(
        tmp_path,
        "{% for m in messages %}{{ '[' + m.role + ']' + m.content }}"
        "{% if m.role == 'user' %}<|im_end|>{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}[assistant]{% endif %}",
    )
    with pytest.raises(TemplateError, match="never ends its answer"):
        encode_chat(
            late, chat(("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d"))
        )


def test_a_template_that_drops_the_system_turn_is_refused(tmp_path: Path) -> None:
    forgetful = load(
        tmp_path, CHATML.replace("{% for message in messages %}",
                                 "{% for message in messages if message.role != 'system' %}"),
    )  # fmt: skip
    with pytest.raises(
        TemplateError, match=r"rows\.jsonl:3: messages\[0\] \(system\) does not appear"
    ):
        encode_chat(forgetful, chat(("system", "s"), ("user", "a"), ("assistant", "b"), line=3))


def test_a_serving_prompt_that_differs_from_training_is_refused(tmp_path: Path) -> None:
    drifting = load(tmp_path, CHATML.replace("'<|im_start|>assistant\n'", "'<|im_start|>bot\n'"))
    with pytest.raises(TemplateError, match=r"differs from what was trained: .*bot"):
        encode_chat(drifting, chat(("user", "a"), ("assistant", "b")))


def test_an_answer_the_template_changes_is_refused(tmp_path: Path) -> None:
    shouting = load(tmp_path, CHATML.replace("message['content'] +", "message['content'][1:] +"))
    with pytest.raises(TemplateError, match="is changed by the chat template"):
        encode_chat(shouting, chat(("user", "ab"), ("assistant", "cd")))


def test_an_answer_that_contains_an_end_token_is_refused(tokenizer: Tokenizer) -> None:
    with pytest.raises(TemplateError, match="which ends a generation"):
        encode_chat(tokenizer, chat(("user", "a"), ("assistant", "b<|im_end|>c")))


def test_every_broken_row_is_listed(tmp_path: Path) -> None:
    endless = load(tmp_path, CHATML.replace("<|im_end|>", ""))
    rows = [chat(("user", "a"), ("assistant", "b"), line=line) for line in range(1, 26)]
    with pytest.raises(TemplateError, match="25 of 25 train rows") as caught:
        encode_split(endless, "train", rows, train_on="all", max_length=100)
    assert "rows.jsonl:20" in str(caught.value)
    assert "and 5 more" in str(caught.value)


def test_the_ledger_accounts_for_every_row(tokenizer: Tokenizer) -> None:
    rows = [
        chat(("user", "a"), ("assistant", "b"), line=1),
        chat(("user", "a" * 500), ("assistant", "b"), line=2),
        chat(("user", "a"), ("assistant", "b"), line=3, weight=0.0),
    ]
    split = encode_split(tokenizer, "train", rows, train_on="all", max_length=100)
    ledger = split.ledger
    assert (ledger.num_rows, ledger.num_kept) == (3, 1)
    assert [(d.example_id, d.reason) for d in ledger.dropped] == [
        ("rows:2", "longer than 100 tokens"),
        ("rows:3", "nothing to learn from"),
    ]
    assert ledger.num_supervised == split.encoded[0].num_supervised == len("b") + 1
    assert ledger.num_tokens == ledger.longest == split.encoded[0].num_tokens
    with pytest.raises(DataError, match=r"2 of 3 train rows cannot be used.*\n.*rows\.jsonl:2"):
        check_ledger(ledger, 0.5)
    check_ledger(ledger, 0.7)


def test_no_row_left_is_refused_whatever_the_share(tokenizer: Tokenizer) -> None:
    with pytest.raises(DataError, match="0 of 0"):
        check_ledger(encode_split(tokenizer, "train", [], train_on="all", max_length=9).ledger, 1.0)


def test_a_model_without_a_template_says_what_to_do(tmp_path: Path) -> None:
    write_tokenizer(tmp_path)
    (tmp_path / "chat_template.jinja").unlink()
    with pytest.raises(TemplateError, match="choose an instruct model"):
        _ = Tokenizer.load(tmp_path).template
    chosen = tmp_path / "mine.jinja"
    chosen.write_text(CHATML)
    assert Tokenizer.load(tmp_path, chosen).template.source == CHATML


def test_a_broken_tokenizer_file_is_named(tmp_path: Path) -> None:
    write_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(ModelError, match=r"tokenizer\.json: cannot be read"):
        Tokenizer.load(tmp_path)


@given(length=st.integers(0, 60), max_length=st.integers(2, 20))
def test_pieces_of_a_text_learn_every_token_but_the_first_once(
    tokenizer: Tokenizer, length: int, max_length: int
) -> None:
    text = "".join(chr(97 + i % 26) for i in range(length))
    ids = tokenizer.encode_documents([text])[0]
    assert tokenizer.decode(ids, keep_special=True) == text + "<|endoftext|>"
    pieces = encode_text(tokenizer, Text("t", Place("t.jsonl", 1), text), max_length)
    assert max(piece.num_tokens for piece in pieces) <= max_length
    learnt = [x for piece in pieces for x in piece.labels if x != IGNORED]
    assert learnt == ids[1:]
    assert sum(piece.num_supervised for piece in pieces) == len(ids) - 1


def rated(prompt: int, prompt_length: int, answer: int, answer_length: int) -> Encoded:
    ids = [100 + prompt] * prompt_length + [answer] * answer_length
    labels = [IGNORED] * prompt_length + [answer] * answer_length
    return Encoded(str(answer), ids, labels, ((prompt_length, len(ids)),))


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(1, 9)), min_size=1, max_size=12))
def test_a_rated_answer_stands_beside_its_prompt_with_the_answer_to_another_one(
    rows: list[tuple[int, int]],
) -> None:
    answers = [rated(prompt, 1 + 2 * prompt, i, n) for i, (prompt, n) in enumerate(rows)]
    found = mismatch([(answer, i % 2 == 0) for i, answer in enumerate(answers)])
    prompts = [prompt for prompt, _ in rows]
    used = []
    for i, one in enumerate(found):
        assert (one.answer, one.is_good) == (answers[i], i % 2 == 0)
        ids, (start, end) = one.mismatched.input_ids, one.mismatched.spans[0]
        assert ids[:start] == [100 + prompts[i]] * (1 + 2 * prompts[i])
        assert one.mismatched.labels == [IGNORED] * start + ids[start:]
        assert end == len(ids) <= max(answer.num_tokens for answer in answers)
        (other,) = set(ids[start:])
        used.append(other)
        if 2 * max(map(prompts.count, prompts)) <= len(rows):
            assert prompts[other] != prompts[i]
        assert other != i or len(rows) == 1
        room = max(answer.num_tokens for answer in answers) - start
        assert len(ids) - start == min(rows[other][1], room)
    assert sorted(used) == list(range(len(rows))), "every answer serves once"


def test_the_two_answers_of_a_preference_are_not_beside_each_other() -> None:
    """Rows of preferences become good, bad, good, bad, ..., two to a prompt."""
    answers = [rated(i // 2, 3, i, 2) for i in range(6)]
    found = mismatch([(answer, i % 2 == 0) for i, answer in enumerate(answers)])
    assert [one.mismatched.input_ids[-1] for one in found] == [2, 3, 4, 5, 0, 1]
