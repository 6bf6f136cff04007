"""Examples become token ids and a loss mask; chats from one render of the model's own template.

Spans come from the render itself: each character knows the message that wrote it (`tracing`), and
offsets carry that to tokens. A trained turn's span runs from where generation would begin, through
the answer, to and including the first token that generation stops on. Everything the training
relies on is checked on every chat, before any step (`TemplateError` names the row):

- the serving prompt of each trained turn is, as text and as ids, a prefix of the training render;
- the answer's words are in the render, whole, and no message was left out by the template;
- the turn ends in a token that generation stops on, and that token is supervised.
"""

from collections.abc import Sequence
from typing import Any, Literal

from luthier.data import Chat, Message, Preference, Text
from luthier.errors import TemplateError
from luthier.tokens.encoded import IGNORED, Encoded, EncodedPair, EncodedRated
from luthier.tokens.tokenizer import Tokenized, Tokenizer
from luthier.tokens.tracing import stretches_of


def encode_prompt(
    tokenizer: Tokenizer, messages: Sequence[Message], tools: Sequence[dict[str, Any]] = ()
) -> list[int]:
    """Ids a model is served with when asked for the turn after `messages`."""
    text = tokenizer.template.render(messages, tools, add_generation_prompt=True)
    return tokenizer.encode(text).ids


def encode_text(tokenizer: Tokenizer, text: Text, max_length: int) -> list[Encoded]:
    """Ids of a text with the end of a document, in pieces of at most `max_length` tokens.

    Every token but the first is learnt exactly once: a piece begins with the last token of the
    one before it.
    """
    return cut_document(text, tokenizer.encode_documents([text.text])[0], max_length)


def cut_document(text: Text, ids: Sequence[int], max_length: int) -> list[Encoded]:
    """A text's ids, with the end of a document, in pieces of at most `max_length` tokens."""
    pieces = []
    for number, start in enumerate(range(0, max(1, len(ids) - 1), max(1, max_length - 1))):
        piece = [*ids[start : start + max_length]]
        name = text.id if len(ids) <= max_length else f"{text.id}#{number + 1}"
        spans = ((1, len(piece)),) if len(piece) > 1 else ()
        pieces.append(Encoded(name, piece, [IGNORED, *piece[1:]], spans))
    return pieces


def encode_pair(tokenizer: Tokenizer, preference: Preference) -> EncodedPair:
    """Both answers of a preference, each after the same prompt. Raises TemplateError."""
    chosen, rejected = (encode_chat(tokenizer, chat, "last") for chat in preference.chats)
    return EncodedPair(chosen, rejected)


def mismatch(rated: Sequence[tuple[Encoded, bool]]) -> list[EncodedRated]:
    """Rated answers, each beside its prompt with the answer to another prompt.

    Every answer serves once, so good ones are as frequent among them as in the data. One that
    makes its sequence longer than the longest rated one is cut. Answers to one prompt that are
    more than half of all are beside each other where nothing else is left.
    """
    by_prompt: dict[tuple[int, ...], list[int]] = {}
    for i, (answer, _) in enumerate(rated):
        by_prompt.setdefault(tuple(answer.input_ids[: answer.spans[-1][0]]), []).append(i)
    order = [i for same in by_prompt.values() for i in same]
    # Prompts stand together: as far on as the most frequent one reaches, there is another.
    step = max(len(same) for same in by_prompt.values()) if len(by_prompt) > 1 else 1
    partners = dict(zip(order, [*order[step:], *order[:step]], strict=True))
    longest = max(answer.num_tokens for answer, _ in rated)
    return [
        EncodedRated(answer, _with_answer_of(rated[partners[i]][0], answer, longest), is_good)
        for i, (answer, is_good) in enumerate(rated)
    ]


def _with_answer_of(other: Encoded, asked: Encoded, longest: int) -> Encoded:
    """The prompt of one sequence with the answer of another, no longer than `longest`."""
    start, other_start = asked.spans[-1][0], other.spans[-1][0]
    ids = asked.input_ids[:start] + other.input_ids[other_start:]
    labels = [IGNORED] * start + other.labels[other_start:]
    span = (start, min(start + other.num_supervised, longest))
    return Encoded(asked.example_id, ids[:longest], labels[:longest], (span,))


def encode_chat(
    tokenizer: Tokenizer, chat: Chat, train_on: Literal["all", "last"] = "all"
) -> Encoded:
    """Ids and mask of a chat; the messages after its last assistant turn are left out.

    Raises TemplateError when the template and this chat break one of the module's rules.
    """
    messages = (*chat.prompt, chat.target)
    text = tokenizer.template.render(messages, chat.tools)
    tokens = tokenizer.encode(text)
    covered = _characters_by_message(text, len(messages))
    _check_nothing_left_out(chat, messages, covered)
    spans = []
    for turn in _trained_turns(messages, train_on):
        start = _serving_length(tokenizer, chat, turn, text, tokens)
        _check_answer_is_whole(chat, turn, messages[turn], text, covered[turn])
        spans.append((start, _end_of_turn(tokenizer, chat, turn, covered, tokens)))
    labels = [IGNORED] * len(tokens.ids)
    for start, end in spans:
        labels[start:end] = tokens.ids[start:end]
    return Encoded(chat.id, tokens.ids, labels, tuple(spans))


def _trained_turns(messages: Sequence[Message], train_on: str) -> list[int]:
    turns = [i for i, m in enumerate(messages) if m.role == "assistant" and m.weight > 0]
    return turns[-1:] if train_on == "last" else turns


def _characters_by_message(text: str, num_messages: int) -> list[list[tuple[int, int]]]:
    """For each message, the stretches of the text it wrote."""
    covered: list[list[tuple[int, int]]] = [[] for _ in range(num_messages)]
    for start, end, message in stretches_of(text):
        covered[message].append((start, end))
    return covered


def _check_nothing_left_out(
    chat: Chat, messages: Sequence[Message], covered: list[list[tuple[int, int]]]
) -> None:
    for i, message in enumerate(messages):
        if message.content.strip() and not covered[i]:
            raise TemplateError(
                f"messages[{i}] ({message.role}) does not appear in what the chat template renders",
                where=f"{chat.place}",
                advice="move its text into a turn the template keeps, "
                "or name another template in model.chat_template",
            )


def _check_answer_is_whole(
    chat: Chat, turn: int, message: Message, text: str, stretches: list[tuple[int, int]]
) -> None:
    rendered = "".join(str.__str__(text)[a:b] for a, b in stretches)
    if message.content.strip() not in rendered:
        raise TemplateError(
            f"messages[{turn}] (assistant) is changed by the chat template: "
            f"{_around(message.content.strip(), rendered)}",
            where=str(chat.place),
            advice="train on the last turn only (method.train_on: last), or change the row",
        )


def _serving_length(
    tokenizer: Tokenizer, chat: Chat, turn: int, text: str, tokens: Tokenized
) -> int:
    """Number of tokens of the serving prompt for this turn, proven a prefix of the render."""
    served = tokenizer.template.render(chat.messages[:turn], chat.tools, add_generation_prompt=True)
    served, text = str.__str__(served), str.__str__(text)
    if not text.startswith(served):
        raise TemplateError(
            f"the prompt served for messages[{turn}] differs from what was trained: "
            f"{_around(served, text)}",
            where=str(chat.place),
            advice="train on the last turn only (method.train_on: last), "
            "or name another template in model.chat_template",
        )
    ids = tokenizer.encode(served).ids
    if tokens.ids[: len(ids)] != ids:
        raise TemplateError(
            f"the first characters of messages[{turn}] melt into one token with the prompt's end",
            where=str(chat.place),
            advice="remove white space from the start of the answer",
        )
    return len(ids)


def _end_of_turn(
    tokenizer: Tokenizer,
    chat: Chat,
    turn: int,
    covered: list[list[tuple[int, int]]],
    tokens: Tokenized,
) -> int:
    """Index after the token that ends this turn, which must be one generation stops on."""
    if not covered[turn]:
        raise TemplateError(
            f"messages[{turn}] is empty", where=str(chat.place), accepted="an answer that is a text"
        )
    first, last = covered[turn][0][0], covered[turn][-1][1]
    following = next((spans[0][0] for spans in covered[turn + 1 :] if spans), None)
    for index, (token, (start, end)) in enumerate(zip(tokens.ids, tokens.offsets, strict=True)):
        if following is not None and start >= following:
            break
        if token not in tokenizer.stop_ids or end <= first:
            continue
        if start < last:
            raise TemplateError(
                f"messages[{turn}] contains {tokenizer.decode([token], keep_special=True)!r}, "
                "which ends a generation",
                where=str(chat.place),
                advice="remove it from the answer",
            )
        return index + 1
    stops = ", ".join(repr(tokenizer.decode([i], keep_special=True)) for i in tokenizer.stop_ids)
    raise TemplateError(
        f"after messages[{turn}] the chat template writes no token that generation stops on; "
        "a model trained like this never ends its answer",
        where=str(chat.place),
        accepted=f"one of {stops}",
        advice="name another template in model.chat_template",
    )


def _around(wanted: str, found: str, width: int = 24) -> str:
    """The first place where two texts part, a few characters of each."""
    at = next(
        (i for i, (a, b) in enumerate(zip(wanted, found, strict=False)) if a != b),
        min(len(wanted), len(found)),
    )
    start = max(0, at - width)
    return f"{wanted[start : at + width]!r} against {found[start : at + width]!r}"
