"""A preview shows exactly the text and the mask the training uses."""

from pathlib import Path

from luthier.tokens import (
    Encoded,
    EncodedPair,
    EncodedRated,
    Tokenizer,
    encode_chat,
    preview_page,
    shown_example,
    shown_sequences,
    stretches,
)
from tiny import chat, write_tokenizer


def test_stretches_are_the_rendered_text_cut_at_the_mask(tmp_path: Path) -> None:
    write_tokenizer(tmp_path)
    tokenizer = Tokenizer.load(tmp_path)
    encoded = encode_chat(tokenizer, chat(("user", "a <b>"), ("assistant", "c & d")))
    found = list(stretches(tokenizer, encoded))
    assert [s.text for s in found if s.is_learnt] == ["c & d<|im_end|>"]
    assert "".join(s.text for s in found) == tokenizer.decode(encoded.input_ids, keep_special=True)
    page = preview_page(shown_example(tokenizer, encoded))
    assert "<mark>c &amp; d&lt;|im_end|&gt;</mark>" in page
    assert "a &lt;b&gt;" in page
    assert "<b>" not in page


def test_the_parts_of_an_example_are_named() -> None:
    first, second = (Encoded("row 1", [1, n], [-100, n], ((1, 2),)) for n in (2, 3))
    pair, bad = EncodedPair(first, second), EncodedRated(first, second, is_good=False)
    assert [s.example_id for s in shown_sequences(pair)] == ["row 1, chosen", "row 1, rejected"]
    # The sequence that KTO's baseline is made of is not learnt.
    assert [s.example_id for s in shown_sequences(bad)] == ["row 1, bad"]
    assert shown_sequences(first) == [first]
