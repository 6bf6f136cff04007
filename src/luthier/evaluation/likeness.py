"""How alike two texts are, 0 to 1, by the measures that text_similarity graders name.

Each is a library's own: rapidfuzz, sacrebleu, NLTK, rouge_score. METEOR knows equal words and equal
stems; synonyms it knows where NLTK's WordNet is installed. They are imported where they are used.
"""

from collections.abc import Callable, Mapping
from functools import cache, partial
from typing import Any

from luthier.evaluation.matching import judge_bleu, judge_rouge_l, rouge_f, words

MAX_NGRAM = 5


def fuzzy_match(first: str, second: str) -> float:
    """Share of letters in common, in order: rapidfuzz's ratio."""
    from rapidfuzz import fuzz

    return float(fuzz.ratio(first, second)) / 100


def gleu(answer: str, reference: str) -> float:
    """Google's BLEU of one sentence (Wu et al. 2016), n-grams up to 4."""
    from nltk.translate.gleu_score import sentence_gleu

    return float(sentence_gleu([words(reference)], words(answer))) if answer.strip() else 0.0


def meteor(answer: str, reference: str) -> float:
    """METEOR (Banerjee and Lavie 2005)."""
    from nltk.translate.meteor_score import single_meteor_score

    found = single_meteor_score(words(reference), words(answer), wordnet=_wordnet())
    return float(found)


class _NoSynonyms:
    """In place of a WordNet that is not installed."""

    def synsets(self, word: str) -> list[Any]:
        return []


@cache
def _wordnet() -> Any:
    from nltk.corpus import wordnet

    try:
        wordnet.ensure_loaded()
    except LookupError:
        return _NoSynonyms()
    return wordnet


LIKENESS: Mapping[str, Callable[[str, str], float]] = {
    "fuzzy_match": fuzzy_match,
    "bleu": lambda answer, reference: judge_bleu(answer, reference) / 100,
    "gleu": gleu,
    "meteor": meteor,
    "rouge_l": judge_rouge_l,
    **{f"rouge_{n}": partial(rouge_f, f"rouge{n}") for n in range(1, MAX_NGRAM + 1)},
}
"""Answer and reference -> how alike they are."""
