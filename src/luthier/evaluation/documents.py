"""Documents become passages: pieces of some 200 words, each under the title of its document.

Paragraphs stay whole where they are short enough; a longer one is cut between words.
"""

from collections.abc import Iterator

PASSAGE_WORDS = 200


def passages_of(title: str, text: str, size: int = PASSAGE_WORDS) -> list[str]:
    """Passages of a document, in order; none of an empty one."""
    found: list[str] = []
    gathered: list[str] = []
    num_words = 0
    for piece in _pieces(text, size):
        words = len(piece.split())
        if gathered and num_words + words > size:
            found.append("\n\n".join(gathered))
            gathered, num_words = [], 0
        gathered.append(piece)
        num_words += words
    if gathered:
        found.append("\n\n".join(gathered))
    return [f"{title}\n{passage}" for passage in found]


def _pieces(text: str, size: int) -> Iterator[str]:
    """Paragraphs; those of more words cut."""
    for paragraph in text.replace("\r\n", "\n").split("\n\n"):
        words = paragraph.split()
        if len(words) <= size:
            if words:
                yield paragraph.strip()
            continue
        for start in range(0, len(words), size):
            yield " ".join(words[start : start + size])
