"""A preview shows exactly the text and the mask the training uses."""

from pathlib import Path

from luthier.tokens import Tokenizer, encode_chat, preview_page, stretches
from tiny import chat, write_tokenizer


def test_stretches_are_the_rendered_text_cut_at_the_mask(tmp_path: Path) -> None:
    write_tokenizer(tmp_path)
    tokenizer = Tokenizer.load(tmp_path)
    encoded = encode_chat(tokenizer, chat(("user", "a <b>"), ("assistant", "c & d")))
    found = list(stretches(tokenizer, encoded))
    assert [s.text for s in found if s.is_learnt] == ["c & d<|im_end|>"]
    assert "".join(s.text for s in found) == tokenizer.decode(encoded.input_ids, keep_special=True)
    page = preview_page(tokenizer, [encoded])
    assert "<mark>c &amp; d&lt;|im_end|&gt;</mark>" in page
    assert "a &lt;b&gt;" in page
    assert "<b>" not in page
