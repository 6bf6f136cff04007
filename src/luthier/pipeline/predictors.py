"""A local model answers examples: with its instructions alone, with examples in the prompt, tuned.

One class satisfies the evaluation room's `Predictor` for all three: what differs is the model and
the examples put before the question. Answers are greedy; the loss is that of the reference answer
after the same prompt.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from luthier.data import Chat, Message
from luthier.evaluation import Prediction
from luthier.models import LanguageModel, answer_losses, generate
from luthier.tokens import Tokenizer, encode_chat, encode_prompt

INSTRUCTIONS = ("system", "developer")
TUNED = "fine-tuned"
ZERO_SHOT = "prompt alone"


@dataclass(frozen=True)
class LocalPredictor:
    """Asks a model in this process. `observe` is told how many examples are answered."""

    name: str
    model: LanguageModel
    tokenizer: Tokenizer
    max_new_tokens: int
    loss_tokens: int
    """Tokens computed at once for the losses."""
    shots: tuple[Chat, ...] = ()
    observe: Callable[[int, int], None] = lambda done, total: None

    def predict(self, examples: Sequence[Chat]) -> list[Prediction]:
        """One prediction per example, in order."""
        asked = [with_shots(example, self.shots) for example in examples]
        prompts = [encode_prompt(self.tokenizer, chat.prompt, chat.tools) for chat in asked]
        answers = generate(
            self.model,
            prompts,
            max_new_tokens=self.max_new_tokens,
            stop_ids=self.tokenizer.stop_ids,
            observe=lambda done: self.observe(done, len(prompts)),
        )
        encoded = [encode_chat(self.tokenizer, chat, "last") for chat in asked]
        losses = answer_losses(self.model, encoded, budget=self.loss_tokens)
        return [
            Prediction(
                example_id=example.id,
                text=self.tokenizer.decode(answer.ids),
                stopped=answer.stopped,
                num_tokens=len(answer.ids) + answer.stopped,
                target_loss=loss,
                target_tokens=target.num_supervised,
            )
            for example, answer, loss, target in zip(
                examples, answers, losses, encoded, strict=True
            )
        ]

    def answer(self, messages: Sequence[Message]) -> str:
        """The answer to a conversation, for talking to the model."""
        prompt = encode_prompt(self.tokenizer, messages)
        (answer,) = generate(
            self.model,
            [prompt],
            max_new_tokens=self.max_new_tokens,
            stop_ids=self.tokenizer.stop_ids,
        )
        return self.tokenizer.decode(answer.ids)


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


def choose_shots(train: Sequence[Chat], num_shots: int, seed: int) -> tuple[Chat, ...]:
    """Training examples for the prompt: a fixed random choice, without equal answers if it can."""
    order = list(train)
    random.Random(f"{seed}/shots").shuffle(order)  # noqa: S311 - a choice, not a secret
    first_of_answer: list[Chat] = []
    others: list[Chat] = []
    seen: set[str] = set()
    for chat in order:
        (others if chat.target.content in seen else first_of_answer).append(chat)
        seen.add(chat.target.content)
    return tuple([*first_of_answer, *others][:num_shots])
