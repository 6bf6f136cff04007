"""Secrets and personal data in texts: found by established detectors, and masked.

Secrets by detect-secrets' patterns; telephone numbers by Google's phonenumbers; numbers of accounts
and cards by python-stdnum, which knows their check digits. Each detector looks only where something
cheap says that it might find: most texts hold neither an @ nor a run of digits.
"""

import ipaddress
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

EMAIL = re.compile(
    r"(?<![\w.+%-])[\w.+%-]{1,64}@(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z]{2,24}(?![\w-])",
    re.IGNORECASE | re.ASCII,
)
SAFE_EMAIL = re.compile(
    r"@(?:[\w-]+\.)*(?:example\.(?:com|org|net)|[\w-]+\.(?:example|invalid|test))$"
)
CARD = re.compile(r"(?<![\w.-])(?:\d[ -]?){12,18}\d(?![\w-]|\.\d)", re.ASCII)
IBAN = re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{2,4}){3,8}\b", re.ASCII)
SSN = re.compile(r"(?<![\w-])(?!000|666|9\d\d)\d{3}-(?!00)\d{2}-(?!0000)\d{4}(?![\w-])", re.ASCII)
IP = re.compile(r"(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?![\w.]|\.\d)", re.ASCII)
DIGITS = re.compile(r"\d[\d ()./-]{5,}\d")
TOKEN = re.compile(
    r"(?<![\w+/=.:-])(?=[A-Za-z_+/=.:-]{0,80}\d)[\w+/=.:-]{16,}|://[^\s/:]{1,80}:[^\s/@]{1,200}@",
    re.ASCII,
)
"""What a secret may be in: something long with a digit, or an address with a password."""
NEW_KEYS = re.compile(r"\b(?:hf_|sk-ant-|sk-proj-|AIza)[A-Za-z0-9_-]{20,}", re.ASCII)
"""Of services that are younger than the patterns of the library."""
BLOCK_KEY = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL
)
Private = Literal["all", "secrets", "personal"]
SECRET = "SECRET"  # noqa: S105 - what it is called
REST = re.compile(r"(?:[\w+/=.-]*[\w+/=-])?")
"""What follows the part of a secret that made sure of it, but the mark that ends a sentence."""
WHOLE = 20_000
"""Characters of a text that is looked at as a whole before a part of it is shown."""
EXCERPT, MARGIN = 240, 200
"""Characters that are shown of a text, and beyond them where something private may end."""
OF_NUMBERS = frozenset("0123456789 ()+./-")
LONGEST_NUMBER = 40
LEFT_OUT = {
    "KeywordDetector",
    "IPPublicDetector",
    "Base64HighEntropyString",
    "HexHighEntropyString",
}
"""Detectors of source code, which find too much in prose."""


@dataclass(frozen=True, slots=True)
class Span:
    """A part of a text that should not be there."""

    start: int
    end: int
    kind: str
    """What it is: EMAIL, PHONE, CARD, IBAN, SSN, IP or SECRET."""


def find_private(text: str, region: str | None = None) -> list[Span]:
    """Personal data and secrets in a text, in order and apart from each other.

    `region` is a country's code of two letters, whose telephone numbers need no country's prefix.
    """
    spans = [span for find in FINDERS for span in find(text, region)]
    # A secret may look like part of something else: a password before a host like an address.
    secrets = [span for span in spans if span.kind == SECRET]
    spans = [
        span
        for span in spans
        if span.kind == SECRET
        or all(span.end <= other.start or span.start >= other.end for other in secrets)
    ]
    spans.sort(key=lambda span: (span.start, -span.end))
    apart: list[Span] = []
    for span in spans:
        if not apart or span.start >= apart[-1].end:
            apart.append(span)
    return apart


def mask(text: str, region: str | None = None, what: Private = "all") -> str:
    """The text with names of kinds in the place of what is private: [EMAIL]."""
    spans = find_private(text, region)
    if what != "all":
        spans = [span for span in spans if (span.kind == SECRET) == (what == "secrets")]
    return _without(text, spans)


def _without(text: str, spans: Iterable[Span], start: int = 0, stop: int | None = None) -> str:
    parts, end = [], start
    for span in spans:
        parts += [text[end : span.start], f"[{span.kind}]"]
        end = span.end
    return "".join([*parts, text[end:stop]])


def excerpt(text: str, around: int = 0) -> str:
    """A short part of a text, from a little before a place in it; what is private is masked.

    Nothing private is cut in two, which would hide it from the mask.
    """
    start, stop = max(0, around - EXCERPT // 4), max(0, around - EXCERPT // 4) + EXCERPT
    # Digits may be a telephone number, of a region that is not known here.
    start, stop = _beside_digits(text, start, -1), _beside_digits(text, stop, 1)
    offset = max(0, start - MARGIN)
    if len(text) <= WHOLE:
        offset = 0
    window = text[offset : max(stop + MARGIN, WHOLE)]
    inside = []
    for span in find_private(window):
        if span.start + offset < stop and span.end + offset > start:
            start, stop = min(start, span.start + offset), max(stop, span.end + offset)
            inside.append(span)
    shown = _without(window, inside, start - offset, stop - offset)
    ends = "..." if len(text) > stop else ""
    return f"{'...' if start else ''}{' '.join(shown.split())}{ends}"


def _beside_digits(text: str, place: int, step: int) -> int:
    """The nearest place in this direction where no number is cut in two."""
    for _ in range(LONGEST_NUMBER):
        if not 0 < place < len(text) or not {text[place - 1], text[place]} <= OF_NUMBERS:
            break
        place += step
    return place


def _emails(text: str, region: str | None) -> Iterator[Span]:
    if "@" in text:
        for found in EMAIL.finditer(text):
            if not SAFE_EMAIL.search(found.group()):
                yield Span(found.start(), found.end(), "EMAIL")


def _numbers(text: str, region: str | None) -> Iterator[Span]:
    if not DIGITS.search(text):
        return
    from stdnum import luhn

    for found in CARD.finditer(text):
        digits = re.sub(r"\D", "", found.group())
        if digits[0] in "23456" and len(set(digits)) > 1 and luhn.is_valid(digits):
            yield Span(found.start(), found.end(), "CARD")
    for found in SSN.finditer(text):
        yield Span(found.start(), found.end(), "SSN")
    yield from _phones(text, region)


def _phones(text: str, region: str | None) -> Iterator[Span]:
    if region is None and "+" not in text:
        return
    import phonenumbers

    for match in phonenumbers.PhoneNumberMatcher(text, region):
        yield Span(match.start, match.end, "PHONE")


def _accounts(text: str, region: str | None) -> Iterator[Span]:
    for found in IBAN.finditer(text):
        from stdnum import iban

        # What follows a number may look like more of it.
        number = found.group()
        while len(number) > 14 and not iban.is_valid(number):
            number = number[:-1].rstrip()
        if iban.is_valid(number):
            yield Span(found.start(), found.start() + len(number), "IBAN")


def _addresses(text: str, region: str | None) -> Iterator[Span]:
    for found in IP.finditer(text):
        try:
            address = ipaddress.ip_address(found.group())
        except ValueError:
            continue
        if address.is_global:
            yield Span(found.start(), found.end(), "IP")


def _secrets(text: str, region: str | None) -> Iterator[Span]:
    if "-----BEGIN" in text:
        for found in BLOCK_KEY.finditer(text):
            yield Span(found.start(), found.end(), SECRET)
    for found in NEW_KEYS.finditer(text):
        yield Span(found.start(), found.end(), SECRET)
    end = 0
    for token in TOKEN.finditer(text):
        if token.start() < end:
            continue
        # Patterns look at what stands before a token on its line, too.
        start = text.rfind("\n", 0, token.start()) + 1
        end = text.find("\n", token.end())
        end = len(text) if end < 0 else end
        for pattern, group in _secret_patterns():
            for found in pattern.finditer(text, max(start, token.start() - 200), end):
                # Some patterns take only as much as they need to be sure.
                rest = REST.match(text, found.end(group)) if not group else None
                yield Span(found.start(group), rest.end() if rest else found.end(group), SECRET)


@lru_cache(1)
def _secret_patterns() -> list[tuple[re.Pattern[str], int]]:
    """Patterns, and which group of each is the secret."""
    from detect_secrets.core.plugins.util import get_mapping_from_secret_type_to_class
    from detect_secrets.plugins.base import RegexBasedDetector

    kinds: Any = get_mapping_from_secret_type_to_class().values()
    return [
        (pattern, 1 if kind.__name__ == "BasicAuthDetector" else 0)
        for kind in kinds
        if issubclass(kind, RegexBasedDetector) and kind.__name__ not in LEFT_OUT
        for pattern in kind().denylist
    ]


FINDERS: tuple[Callable[[str, str | None], Iterator[Span]], ...] = (
    _secrets, _emails, _accounts, _numbers, _addresses,
)  # fmt: skip
