"""Labelled texts as conversations: told the labels, a model answers with one."""

from luthier.data import Chat, Dataset, LabelForm, Labelled, Place, as_conversations
from tiny import chat


def labelled(
    line: int, *labels: str, form: LabelForm = "text", second: str | None = None
) -> Labelled:
    return Labelled(
        f"r:{line}", Place("rows", line), f"text {line}", second, labels, form, {"a": "b"}
    )


def conversations(*examples: Labelled) -> list[Chat]:
    found = as_conversations(Dataset(examples, (), examples[:1], {}))
    assert found.test == found.train[:1]
    return [e for e in found.train if isinstance(e, Chat)]


def said(example: Chat) -> list[tuple[str, str]]:
    return [(message.role, message.content) for message in example.messages]


def test_a_label_is_one_of_the_choices() -> None:
    first, second = conversations(labelled(1, "spam"), labelled(2, "ham"))
    assert said(first) == [
        ("system", "Answer with one of these: ham, spam."),
        ("user", "text 1"),
        ("assistant", "spam"),
    ]
    assert first.choices == second.choices == ("ham", "spam")
    assert first.slices == {"a": "b"}
    assert first.id == "r:1"


def test_two_texts_stand_one_below_the_other() -> None:
    first, _ = conversations(labelled(1, "yes", second="other"), labelled(2, "no", second="other"))
    assert said(first)[1] == ("user", "text 1\n\nother")


def test_lists_and_numbers_have_no_choices() -> None:
    both, none = conversations(labelled(1, "a", "b", form="list"), labelled(2, form="list"))
    assert said(both)[0][1] == (
        "Answer with all labels of these: a, b that fit, parted by commas; if none does, none."
    )
    assert said(both)[2][1] == "a, b"
    assert said(none)[2][1] == "none"
    assert both.choices == ()
    first, _ = conversations(labelled(1, "1.5", form="number"), labelled(2, "2", form="number"))
    assert said(first)[0][1] == "Answer with a number only."


def test_many_labels_are_not_named() -> None:
    rows = [labelled(i, f"label {i // 3}") for i in range(330)]
    first = conversations(*rows)[0]
    assert said(first)[0][1] == "Answer with a label only."
    assert len(first.choices) == 110


def test_labels_are_those_to_learn_from_and_others_stay_as_they_are() -> None:
    learnt = (labelled(1, "spam"), labelled(2, "ham"))
    found = as_conversations(Dataset(learnt, (), (labelled(3, "eggs"),), {}))
    (held_out,) = found.test
    assert isinstance(held_out, Chat)
    assert held_out.choices == ("ham", "spam")
    assert held_out.target.content == "eggs"
    alone = as_conversations(Dataset((), (), learnt, {}))
    assert isinstance(alone.test[0], Chat)
    plain = Dataset((chat(("user", "q"), ("assistant", "a")),), (), (), {})
    assert as_conversations(plain) is plain
