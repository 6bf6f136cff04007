"""General questions as ids: each with each of its choices."""

from luthier.data import Chat, Message
from luthier.evaluation import GeneralSet, Question
from luthier.tokens import IGNORED, Encoded, Tokenizer, encode_chat


def encode_questions(tokenizer: Tokenizer, asked: GeneralSet) -> list[list[Encoded]]:
    """Each question with each of its choices; nothing where one is too long for the model.

    Raises TemplateError, with the question's line.
    """
    longest = tokenizer.context_length
    found = []
    for question in asked.questions:
        own = [_encoded(tokenizer, question, choice) for choice in question.choices]
        fits = longest is None or max(each.num_tokens for each in own) <= longest
        found.append(own if fits else [])
    return found


def _encoded(tokenizer: Tokenizer, question: Question, choice: str) -> Encoded:
    """A question with one answer: as a chat, or as text for a model that was not made for chats."""
    if tokenizer.chat_template is not None:
        turns = (Message("user", question.question), Message("assistant", choice))
        return encode_chat(tokenizer, Chat("", question.place, turns), "last")
    asked = tokenizer.encode_opening(f"Question: {question.question}\nAnswer:")
    ids = [*asked, *tokenizer.encode(f" {choice}").ids]
    labels = [*[IGNORED] * len(asked), *ids[len(asked) :]]
    return Encoded("", ids, labels, ((len(asked), len(ids)),))
