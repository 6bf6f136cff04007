"""What a model is asked with besides the row: instructions, solved examples, passages to look at.

A system under judgement is a model with a `Prompt`. The row's last assistant turn stays the target,
whatever is put before its question. Solved examples are the same for every row, or for each row
those whose questions are nearest.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from luthier.data import Chat, Example, Message, Rated, as_chat
from luthier.evaluation.searching import Search

INSTRUCTIONS = ("system", "developer")
HEADING = "These passages may help:"


@dataclass(frozen=True)
class NearestShots:
    """For each row the solved examples whose questions are nearest, the nearest one last."""

    solved: tuple[Chat, ...]
    search: Search
    """Of the questions of `solved`, in their order."""
    count: int

    def of(self, chats: Sequence[Chat]) -> list[tuple[Chat, ...]]:
        """Solved examples for each row."""
        places = self.search.nearest([question(chat) for chat in chats], self.count)
        return [tuple(self.solved[place] for place in reversed(row)) for row in places]


@dataclass(frozen=True)
class Passages:
    """For each row the passages that are nearest to its question, the nearest one first."""

    texts: tuple[str, ...]
    search: Search
    count: int

    def of(self, chats: Sequence[Chat]) -> list[tuple[str, ...]]:
        """Passages for each row."""
        places = self.search.nearest([question(chat) for chat in chats], self.count)
        return [tuple(self.texts[place] for place in row) for row in places]


@dataclass(frozen=True)
class Prompt:
    """What stands before a row's question, and in place of its instructions."""

    instructions: str = ""
    """In place of the row's own, if given."""
    shots: tuple[Chat, ...] = ()
    """Solved examples, the same for every row."""
    nearest: NearestShots | None = None
    passages: Passages | None = None

    def asked(self, examples: Sequence[Example]) -> list[Chat]:
        """The conversations to ask a model, in order; their targets are those of the rows."""
        chats = [as_chat(example) for example in examples]
        shots = self.nearest.of(chats) if self.nearest else [self.shots] * len(chats)
        found = [with_shots(chat, own) for chat, own in zip(chats, shots, strict=True)]
        if self.passages:
            # Searched by the row's own question, without the examples.
            texts = self.passages.of(chats)
            found = [with_passages(chat, own) for chat, own in zip(found, texts, strict=True)]
        return [with_instructions(chat, self.instructions) for chat in found]


ALONE = Prompt()
"""The row as it is."""


def question(chat: Chat) -> str:
    """What the user says in a row."""
    return "\n".join(message.content for message in chat.prompt if message.role == "user")


def with_instructions(chat: Chat, instructions: str) -> Chat:
    """The row under these instructions instead of its own; as it is where there are none."""
    if not instructions:
        return chat
    rest = (message for message in chat.messages if message.role not in INSTRUCTIONS)
    return replace(chat, messages=(Message("system", instructions), *rest))


def with_passages(chat: Chat, texts: Sequence[str]) -> Chat:
    """The row with passages before its last question."""
    places = [i for i, message in enumerate(chat.prompt) if message.role == "user"]
    if not texts or not places:
        return chat
    asked = chat.messages[places[-1]]
    said = "\n\n".join((HEADING, *texts, asked.content))
    messages = list(chat.messages)
    messages[places[-1]] = replace(asked, content=said)
    return replace(chat, messages=tuple(messages))


def with_shots(example: Chat, shots: Sequence[Chat]) -> Chat:
    """The example with solved examples between its instructions and its question.

    Its last assistant turn stays the target. Instructions of the shots are left out: the
    example's own stand at the top once.
    """
    if not shots:
        return example
    prompt = example.prompt
    num_instructions = next(
        (i for i, message in enumerate(prompt) if message.role not in INSTRUCTIONS), len(prompt)
    )
    solved = [
        message
        for shot in shots
        for message in (*shot.prompt, shot.target)
        if message.role not in INSTRUCTIONS
    ]
    messages = (*prompt[:num_instructions], *solved, *prompt[num_instructions:], example.target)
    return replace(example, messages=messages)


def choose_shots(train: Sequence[Example], num_shots: int, seed: int) -> tuple[Chat, ...]:
    """Training examples for the prompt: a fixed random choice, without equal answers if it can.

    Answers marked bad are none.
    """
    order = solved_examples(train)
    random.Random(f"{seed}/shots").shuffle(order)  # noqa: S311 - a choice, not a secret
    first_of_answer: list[Chat] = []
    others: list[Chat] = []
    seen: set[str] = set()
    for chat in order:
        (others if chat.target.content in seen else first_of_answer).append(chat)
        seen.add(chat.target.content)
    return tuple([*first_of_answer, *others][:num_shots])


def solved_examples(train: Sequence[Example]) -> list[Chat]:
    """Conversations whose answers are good."""
    return [as_chat(e) for e in train if not isinstance(e, Rated) or e.is_good]
