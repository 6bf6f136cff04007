"""Checks of characters: what no text should hold, and text that was decoded wrongly."""

import re
from collections.abc import Iterable, Sequence

from luthier.curation.looking import Seen
from luthier.curation.privacy import excerpt
from luthier.curation.problems import Gathered, Kind, Problem
from luthier.evaluation import offensive_words

UNUSUAL = Kind(
    "unusual-characters", "warning",
    "{n} with control characters, invisible ones or ones that stand for nothing",
    "they cost tokens, hide text from people, and a model learns to write them", "normalise",
)  # fmt: skip
MOJIBAKE = Kind(
    "mojibake", "warning", "{n} with text that was decoded wrongly, as \u00c3\u00a9 for \u00e9",
    "a model learns to write it so", "normalise",
)  # fmt: skip
OFFENSIVE = Kind(
    "offensive-words", "note", "{n} holding obscenities or slurs",
    "they may be meant, as in a filter's examples; a model that reads them as answers writes them",
)  # fmt: skip

# Joiners (200C, 200D) belong to scripts and emoji; a byte-order mark inside a text to nothing. Tags
# are invisible letters but in a flag (1F3F4), selectors choose a form of the ideograph before them.
_NEVER = (
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\u00ad\u200b\u202a-\u202e"
    "\u2060-\u2064\u2066-\u206f\ufeff\ufff0-\uffff\ue000-\uf8ff\U000e0000-\U000e001f"
    "\U000e0080-\U000e00ff\U000e01f0-\U0010ffff]"
    "|(?<![\U0001f3f4\U000e0020-\U000e007f])[\U000e0020-\U000e007f]+"
    "|(?<![\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff])[\U000e0100-\U000e01ef]"
)
BESIDE_RIGHT_TO_LEFT = re.compile(_NEVER)
ELSEWHERE = re.compile(f"{_NEVER}|[\u200e\u200f]")
"""With marks of direction, which say something only where a text is written from right to left."""
RIGHT_TO_LEFT = re.compile("[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefe]")
NAMED = {
    0: "NUL", 0xAD: "a soft hyphen", 0x200B: "a zero-width space", 0xFEFF: "a byte-order mark",
    0xFFFD: "a replacement character",
}  # fmt: skip


class UnusualCheck:
    """Finds characters that no text should hold."""

    name = "unusual-characters"

    def __init__(self) -> None:
        self._found = Gathered(UNUSUAL)

    def see(self, rows: Sequence[Seen]) -> None:
        """Search the texts."""
        for row in rows:
            for text in row.all_texts:
                unusual = unusual_in(text)
                found = unusual.search(text)
                if found:
                    said = _named(found.group()[0])
                    shown = unusual.sub("\u2423", text)
                    self._found.add(row, shown, f"holds {said}", around=found.start())
                    break

    def problems(self) -> Iterable[Problem]:
        """Rows with such characters."""
        return self._found.problem()


def unusual_in(text: str) -> re.Pattern[str]:
    """What finds characters that such a text should not hold."""
    return BESIDE_RIGHT_TO_LEFT if RIGHT_TO_LEFT.search(text) else ELSEWHERE


def _named(character: str) -> str:
    code = ord(character)
    kind = "a private character" if 0xE000 <= code <= 0xF8FF else "the character"
    return NAMED.get(code, f"{kind} U+{code:04X}")


class MojibakeCheck:
    """Finds UTF-8 that was read as another encoding (by ftfy's measure of badness)."""

    name = "mojibake"

    def __init__(self) -> None:
        self._found = Gathered(MOJIBAKE)

    def see(self, rows: Sequence[Seen]) -> None:
        """Look at texts that are not ASCII."""
        from ftfy import fix_encoding
        from ftfy.badness import is_bad

        for row in rows:
            for text in row.all_texts:
                # Only what can be mended is surely broken.
                if not text.isascii() and is_bad(text) and (fixed := fix_encoding(text)) != text:
                    at = next(
                        (i for i, (a, b) in enumerate(zip(text, fixed, strict=False)) if a != b), 0
                    )
                    said = f"means {excerpt(fixed, at)[:80]!r}"
                    self._found.add(row, text, said, around=at)
                    break

    def problems(self) -> Iterable[Problem]:
        """Rows with such text."""
        return self._found.problem()


class OffensiveCheck:
    """Finds obscenities and slurs, by their stems."""

    name = "offensive-words"

    def __init__(self) -> None:
        self._found = Gathered(OFFENSIVE)

    def see(self, rows: Sequence[Seen]) -> None:
        """Search all texts."""
        for row in rows:
            found = offensive_words("\n".join(row.all_texts))
            if found:
                self._found.add(row, "  ".join(row.all_texts), f"holds {', '.join(found[:3])}")

    def problems(self) -> Iterable[Problem]:
        """Rows with such words."""
        return self._found.problem()
