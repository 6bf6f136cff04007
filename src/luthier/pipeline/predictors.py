"""A local model answers examples: with its instructions alone, with examples in the prompt, tuned.

One class satisfies the evaluation room's `Predictor` for all three: what differs is the model and
the examples put before the question. Answers are greedy; the loss is that of the reference answer
after the same prompt.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from luthier.data import Chat, Example, Message, Preference, Rated, Text, as_chat
from luthier.evaluation import Prediction
from luthier.models import LanguageModel, answer_losses, generate
from luthier.tokens import Tokenizer, encode_chat, encode_prompt, encode_text

INSTRUCTIONS = ("system", "developer")
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
    text_tokens: int = 1024
    """Longest piece of a raw text."""
    shots: tuple[Chat, ...] = ()
    observe: Callable[[int, int], None] = lambda done, total: None

    def predict(self, examples: Sequence[Example]) -> list[Prediction]:
        """One prediction per example, in order. Raw texts are not answered, only weighed."""
        texts = [example for example in examples if isinstance(example, Text)]
        if texts:
            return self._weigh(texts)
        asked = [with_shots(as_chat(example), self.shots) for example in examples]
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
        rejected = self._rejected_losses(examples)
        return [
            Prediction(
                example_id=example.id,
                text=self.tokenizer.decode(answer.ids),
                stopped=answer.stopped,
                num_tokens=len(answer.ids) + answer.stopped,
                target_loss=loss,
                target_tokens=target.num_supervised,
                rejected_loss=rejected.get(example.id),
            )
            for example, answer, loss, target in zip(
                examples, answers, losses, encoded, strict=True
            )
        ]

    def _rejected_losses(self, examples: Sequence[Example]) -> dict[str, float | None]:
        """Id of each preference -> mean loss of its rejected answer."""
        chats = [
            with_shots(example.chats[1], self.shots)
            for example in examples
            if isinstance(example, Preference)
        ]
        encoded = [encode_chat(self.tokenizer, chat, "last") for chat in chats]
        losses = answer_losses(self.model, encoded, budget=self.loss_tokens)
        return dict(zip([chat.id for chat in chats], losses, strict=True))

    def _weigh(self, texts: Sequence[Text]) -> list[Prediction]:
        """How likely the model finds raw texts, over all their pieces."""
        pieces = [encode_text(self.tokenizer, text, self.text_tokens) for text in texts]
        losses = iter(
            answer_losses(self.model, [p for of in pieces for p in of], budget=self.loss_tokens)
        )
        predictions = []
        for text, own in zip(texts, pieces, strict=True):
            num_tokens = sum(piece.num_supervised for piece in own)
            total = sum((next(losses) or 0.0) * piece.num_supervised for piece in own)
            loss = total / num_tokens if num_tokens else None
            predictions.append(Prediction(text.id, "", True, 0, loss, num_tokens))
        return predictions

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


def choose_shots(train: Sequence[Example], num_shots: int, seed: int) -> tuple[Chat, ...]:
    """Training examples for the prompt: a fixed random choice, without equal answers if it can.

    Answers marked bad are none.
    """
    order = [as_chat(e) for e in train if not isinstance(e, Rated) or e.is_good]
    random.Random(f"{seed}/shots").shuffle(order)  # noqa: S311 - a choice, not a secret
    first_of_answer: list[Chat] = []
    others: list[Chat] = []
    seen: set[str] = set()
    for chat in order:
        (others if chat.target.content in seen else first_of_answer).append(chat)
        seen.add(chat.target.content)
    return tuple([*first_of_answer, *others][:num_shots])
