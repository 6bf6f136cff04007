"""Obscenities and slurs are found by their stems, decent words are not."""

import pytest
from evaluation_fakes import make_chat, make_evaluation

from luthier.evaluation import Prediction, offensive_words
from luthier.evaluation.scorers import SCORERS


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("What a load of bullshit, you F**K.", ["bullshit", "f**k"]),
        ("Scunthorpe United passed the class assessment with a shiitake dish.", []),
        ("", []),
        ("**Shit** happens, #bitch. f*ck!", ["bitch", "f*ck", "shit"]),
        ("y = f*k + f#k + x*y*z", []),
    ],
)
def test_words_that_offend(text: str, found: list[str]) -> None:
    assert offensive_words(text) == found
    scorer = SCORERS["offensive"](make_evaluation("exact"))
    prediction = Prediction("row", text, True, 1)
    assert scorer.score(prediction, make_chat("row", "fine")) == float(bool(found))
    assert not scorer.metric.higher_is_better
