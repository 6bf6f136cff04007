"""A local model answers examples: with its instructions alone, with examples in the prompt, tuned.

One class satisfies the evaluation room's `Predictor` for all three: what differs is the model and
the `Prompt` that it is asked with. Answers are greedy unless sampling is asked for; the loss is
that of the reference answer after the same prompt.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from luthier.data import Chat, Example, Message, Preference, Text
from luthier.evaluation import ALONE, Prediction, Prompt
from luthier.models import LanguageModel, Sampling, answer_losses, choice_likelihoods, generate
from luthier.tokens import Encoded, Tokenizer, encode_chat, encode_prompt, encode_text

ZERO_SHOT = "prompt alone"
QUESTIONS_AT_ONCE = 32
"""Questions with choices whose ids are held at once."""


def _unasked(name: str, num_tokens: int, limit: int) -> Prediction:
    why = f"the prompt has {num_tokens:,} tokens, the model was made for {limit:,}"
    return Prediction(name, "", stopped=False, num_tokens=0, prompt_tokens=num_tokens, error=why)


def _answered(chat: Chat, answer: str) -> Chat:
    """The conversation with another last answer."""
    return replace(chat, messages=(*chat.prompt, Message("assistant", answer)))


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
    prompt: Prompt = ALONE
    sampling: Sampling | None = None
    """Greedy without."""
    observe: Callable[[int, int], None] = lambda done, total: None

    def predict(self, examples: Sequence[Example]) -> list[Prediction]:
        """One prediction per example, in order. Raw texts are not answered, only weighed.

        A prompt that is longer than the model was made for has no answer.
        """
        texts = [example for example in examples if isinstance(example, Text)]
        if texts:
            return self._weigh(texts)
        asked = self.prompt.asked(examples)
        prompts = [encode_prompt(self.tokenizer, chat.prompt, chat.tools) for chat in asked]
        limit = self.tokenizer.context_length or sys.maxsize
        fits = [len(prompt) < limit for prompt in prompts]
        answered = iter(
            self._answer(
                [chat for chat, is_short in zip(asked, fits, strict=True) if is_short],
                [prompt for prompt, is_short in zip(prompts, fits, strict=True) if is_short],
                self._rejected_losses(examples),
            )
        )
        return [
            next(answered) if is_short else _unasked(chat.id, len(prompt), limit)
            for chat, prompt, is_short in zip(asked, prompts, fits, strict=True)
        ]

    def _answer(
        self,
        chats: Sequence[Chat],
        prompts: Sequence[Sequence[int]],
        rejected: Mapping[str, float | None],
    ) -> list[Prediction]:
        """Predictions of conversations whose prompts are no longer than they may be."""
        answers = generate(
            self.model,
            prompts,
            max_new_tokens=self.max_new_tokens,
            stop_ids=self.tokenizer.stop_ids,
            sampling=self.sampling,
            observe=lambda done: self.observe(done, len(prompts)),
        )
        encoded = [encode_chat(self.tokenizer, chat, "last") for chat in chats]
        losses = answer_losses(self.model, encoded, budget=self.loss_tokens)
        picked = self._picked(chats)
        return [
            Prediction(
                example_id=chat.id,
                text=self.tokenizer.decode(answer.ids),
                stopped=answer.stopped,
                num_tokens=len(answer.ids) + answer.stopped,
                target_loss=loss,
                target_tokens=target.num_supervised,
                rejected_loss=rejected.get(chat.id),
                prompt_tokens=len(prompt),
                picked=picked.get(chat.id, ""),
            )
            for chat, answer, loss, target, prompt in zip(
                chats, answers, losses, encoded, prompts, strict=True
            )
        ]

    def _picked(self, chats: Sequence[Chat]) -> dict[str, str]:
        """Id of each conversation with choices -> the likeliest of them.

        Likelihoods are those of whole answers, their end included, as is usual for choices of like
        length.
        """
        asked, picked = [chat for chat in chats if chat.choices], {}
        for start in range(0, len(asked), QUESTIONS_AT_ONCE):
            some = asked[start : start + QUESTIONS_AT_ONCE]
            encoded = [self._choices(chat) for chat in some]
            found = choice_likelihoods(self.model, encoded, budget=self.loss_tokens)
            for chat, own in zip(some, found, strict=True):
                logs = [likelihood.log for likelihood in own]
                if logs:
                    picked[chat.id] = chat.choices[logs.index(max(logs))]
        return picked

    def _choices(self, chat: Chat) -> list[Encoded]:
        """A conversation with each of its choices; nothing where one is too long for the model."""
        longest = self.tokenizer.context_length or sys.maxsize
        found = [
            encode_chat(self.tokenizer, _answered(chat, choice), "last") for choice in chat.choices
        ]
        return found if max(each.num_tokens for each in found) <= longest else []

    def _rejected_losses(self, examples: Sequence[Example]) -> dict[str, float | None]:
        """Id of each preference -> mean loss of its rejected answer."""
        chats = self.prompt.asked([e.chats[1] for e in examples if isinstance(e, Preference)])
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
