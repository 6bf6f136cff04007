"""How well an answer agrees with the reference answer: functions of two texts.

Each gives a score, or None where the reference cannot be judged by it, and never raises on what a
model wrote. They know neither rows nor systems.
"""

import re
import unicodedata
from functools import cache
from typing import Any

from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF

from luthier.evaluation.json_answers import read_json

NUMBER = re.compile(r"[-+]?(?:\d{1,3}(?:,\d{3})+|\d+)?(?:\.\d+)?(?:[eE][-+]?\d+)?%?")


def judge_exact(answer: str, target: str) -> float:
    """1 when the texts agree but for outer whitespace, or are equal JSON objects or arrays.

    JSON by value, because the order of keys and the spacing say nothing, and a prompted model
    cannot know which of them the data prefers. Scalars stay text: 1.10 and 1.1 may be versions.
    """
    if answer.strip() == target.strip():
        return 1.0
    expected = read_json(target)
    if expected is None or expected.kind not in ("object", "array"):
        return 0.0
    return float(read_json(answer) == expected)


def judge_json(answer: str, target: str) -> float | None:
    """1 when the answer is JSON of the target's kind; None when the target is not JSON."""
    expected = read_json(target)
    if expected is None:
        return None
    found = read_json(answer)
    return float(found is not None and found.kind == expected.kind)


def judge_fields(answer: str, target: str) -> float | None:
    """F1 over the leaves: a leaf counts when path and value agree; 0 when the answer is no JSON.

    Numbers compare by value. An element of an array is known by its index.
    """
    expected = read_json(target)
    if expected is None:
        return None
    found = read_json(answer)
    if found is None:
        return 0.0
    num_agreeing = len(found.leaves.items() & expected.leaves.items())
    return 2 * num_agreeing / (len(found.leaves) + len(expected.leaves))


def judge_chrf(answer: str, target: str) -> float:
    """Sentence chrF2 (Popovic 2015) as sacrebleu computes it, 0 to 100."""
    if answer.strip() == target.strip():
        return 100.0  # sacrebleu gives 0 when both are empty
    return min(float(_CHRF.sentence_score(answer, [target]).score), 100.0)


def judge_rouge_l(answer: str, target: str) -> float:
    """ROUGE-L F-measure (Lin 2004) as rouge_score computes it, 0 to 1, no stemming."""
    return rouge_f("rougeL", answer, target)


def rouge_f(kind: str, answer: str, target: str) -> float:
    """F-measure of a kind of ROUGE, such as rouge1 or rougeL, 0 to 1, no stemming."""
    if answer.strip() == target.strip():
        return 1.0  # rouge_score gives 0 when there is no word
    return float(_rouge(kind).score(target, answer)[kind].fmeasure)


def judge_normalised(answer: str, target: str) -> float:
    """1 when the texts agree but for case, punctuation, symbols and white space (after NFKC)."""
    return float(normalise(answer) == normalise(target))


def normalise(text: str) -> str:
    """Letters, digits and marks of a text, case folded, words parted by single spaces."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    kept = (c if unicodedata.category(c)[0] in "LNM" else " " for c in folded)
    return " ".join("".join(kept).split())


def judge_number(answer: str, target: str, tolerance: float) -> float | None:
    """1 when the last number of the answer is that of the reference, up to a share of it.

    None when the reference is no number. Thousands may be parted by commas; a percent sign is
    left aside.
    """
    expected = _numbers(target)
    if len(expected) != 1:
        return None
    found = _numbers(answer)
    return float(bool(found) and abs(found[-1] - expected[0]) <= tolerance * abs(expected[0]))


def _numbers(text: str) -> list[float]:
    found = (match.group().rstrip("%").replace(",", "") for match in NUMBER.finditer(text))
    return [float(number) for number in found if any(c.isdigit() for c in number)]


def judge_bleu(answer: str, target: str) -> float:
    """Sentence BLEU (Papineni et al. 2002) as sacrebleu computes it, 0 to 100."""
    if answer.strip() == target.strip():
        return 100.0  # sacrebleu gives 0 when both are empty
    return min(float(_BLEU.sentence_score(answer, [target]).score), 100.0)


class _Words:
    """For rouge_score, whose own words are of a to z and digits only."""

    def tokenize(self, text: str) -> list[str]:
        return words(text)


def words(text: str) -> list[str]:
    """Words of any script, lower case."""
    return re.findall(r"\w+", text.lower())


_CHRF, _BLEU = CHRF(), BLEU(effective_order=True)


@cache
def _rouge(kind: str) -> Any:
    from rouge_score.rouge_scorer import RougeScorer  # brings NLTK and scikit-learn

    return RougeScorer([kind], tokenizer=_Words())
