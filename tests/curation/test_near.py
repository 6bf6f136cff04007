"""Near duplicates, common runs and masks beside plain ways of finding them."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from luthier.curation import FileSource, find_private, looking, mask, near
from luthier.curation.leaks import PIECE, longest_run, sampled_pieces
from luthier.curation.looking import Growing, Spool
from luthier.curation.near import BLOCK, find_alike, piece_set, similarities, similarity
from luthier.curation.privacy import EXCERPT, excerpt

WORDS = st.lists(
    st.sampled_from(["red", "green", "lamp", "song", "rain", "hall", "of", "on", "off"]),
    max_size=12,
)


def pieces(text: bytes) -> set[bytes]:
    padded = text + b"\0" * 5
    return {padded[i : i + 5] for i in range(max(1, len(text)))}


@given(st.binary(max_size=60), st.binary(max_size=60))
def test_similarity_is_jaccards(one: bytes, other: bytes) -> None:
    expected = len(pieces(one) & pieces(other)) / len(pieces(one) | pieces(other))
    assert similarity(piece_set(one), piece_set(other)) == pytest.approx(expected)


@given(
    st.lists(st.text("abc", max_size=30), min_size=1, max_size=8),
    st.lists(st.tuples(st.integers(0, 7), st.integers(0, 7)), max_size=20),
    st.integers(1, 60),
)
def test_many_pairs_are_measured_as_one_by_one(
    texts: list[str], pairs: list[tuple[int, int]], size: int
) -> None:
    one, other = (np.array([pair[i] % len(texts) for pair in pairs], np.int64) for i in (0, 1))
    with pytest.MonkeyPatch.context() as patch, Spool() as spool:
        patch.setattr(near, "BYTES_AT_ONCE", size)
        spool.add(texts)
        sets = [piece_set(spool.content(number)) for number in range(len(texts))]
        expected = [similarity(sets[a], sets[b]) for a, b in zip(one, other, strict=True)]
        assert similarities(spool, one, other).tolist() == pytest.approx(expected)


def test_groups_are_those_of_all_pairs() -> None:
    """Of 600 texts with many near ones, what is measured pair by pair."""
    generator = np.random.default_rng(3)
    texts = []
    for _ in range(200):
        words = generator.integers(0, 500, 40)
        texts.append(" ".join(map(str, words)))
        for _ in range(2):
            words = words.copy()
            words[generator.integers(0, 40, int(generator.integers(0, 5)))] = 999
            texts.append(" ".join(map(str, words)))
    order = generator.permutation(len(texts))
    texts = [texts[i] for i in order]
    sets = [piece_set(text.encode()) for text in texts]
    expected = {
        (i, j)
        for i in range(len(texts))
        for j in range(i + 1, len(texts))
        if similarity(sets[i], sets[j]) >= 0.8
    }
    with Spool() as spool:
        spool.add(texts[:100])
        spool.add(texts[100:])
        groups = find_alike(spool, 0.8)
    together = {(i, j) for i, j in expected if groups[i] == groups[j]}
    assert len(expected) > 200
    assert len(together) >= 0.99 * len(expected)
    # None is with others but by pairs that are alike.
    linked = {i for pair in expected for i in pair}
    assert {i for i, group in enumerate(groups) if (groups == group).sum() > 1} <= linked
    assert all(group <= i for i, group in enumerate(groups))


@given(st.lists(WORDS.map(" ".join), max_size=30))
def test_equal_texts_are_together(texts: list[str]) -> None:
    with Spool() as spool:
        spool.add(texts)
        groups = find_alike(spool)
    for text in set(texts):
        own = {int(groups[i]) for i, other in enumerate(texts) if other == text}
        assert len(own) == 1


def plain_run(one: bytes, other: bytes) -> int:
    return max(
        (
            length
            for i in range(len(one))
            for length in range(1, len(one) - i + 1)
            if one[i : i + length] in other
        ),
        default=0,
    )


@settings(max_examples=50)
@given(
    st.binary(max_size=30), st.binary(max_size=30), st.binary(max_size=30), st.binary(max_size=30),
    st.binary(min_size=120, max_size=200),
)  # fmt: skip
def test_the_longest_run_is_found(a: bytes, b: bytes, c: bytes, d: bytes, run: bytes) -> None:
    one, other = a + run + b, c + run + d
    shared = set(sampled_pieces(one).tolist()) & set(sampled_pieces(other).tolist())
    start, end = longest_run(one, other)
    assert one[start:end] in other
    if shared:
        assert end - start == plain_run(one, other)


def test_pieces_are_sampled_alike_wherever_they_stand() -> None:
    generator = np.random.default_rng(1)
    text = generator.integers(0, 256, 4000, dtype=np.uint8).tobytes()
    found = sampled_pieces(text)
    assert len(found) == pytest.approx((4000 - PIECE + 1) / 8, rel=0.2)
    assert set(sampled_pieces(text[1000:2000]).tolist()) <= set(found.tolist())
    assert len(sampled_pieces(text[: PIECE - 1])) == 0


@given(st.lists(st.lists(st.text(max_size=20), max_size=6), max_size=5))
def test_a_spool_gives_back_what_it_was_given(blocks: list[list[str]]) -> None:
    texts = [text for block in blocks for text in block]
    with Spool() as spool:
        for block in blocks:
            spool.add(block)
        assert len(spool) == len(texts)
        assert [spool.text(i) for i in range(len(texts))] == texts
        read = [(first + i, c.decode("utf-8", "surrogatepass"))
                for first, some in spool.blocks(3) for i, c in enumerate(some)]  # fmt: skip
    assert read == list(enumerate(texts))


@given(st.lists(st.lists(st.integers(0, 9), max_size=200), max_size=6))
def test_an_array_grows(parts: list[list[int]]) -> None:
    growing = Growing(np.int64)
    for part in parts:
        growing.extend(part)
    assert growing.array.tolist() == [x for part in parts for x in part]


PRIVATE = (
    "anna.berg@firma.de", "+49 30 901820", "4111 1111 1111 1111", "DE89 3704 0044 0532 0130 00",
    "123-45-6789", "8.8.8.8", "ghp_abcdefghijklmnopqrstuvwxyz0123456789", "AKIAIOSFODNN7EXAMPLE",
)  # fmt: skip
HARMLESS = (
    "x@example.com", "192.168.1.1", "version 1.2.3.4.5", "order 1234567890123456", "2026-11-22",
    "http://www.example.org/a/b?c=d", "12:30 to 14:45", "DE12 is no account", "1,234,567.89",
    "4111 1111 1111 1112", "antidisestablishmentarianism",
)  # fmt: skip


@pytest.mark.parametrize("text", PRIVATE)
def test_what_is_private_is_masked_whole(text: str) -> None:
    masked = mask(f"Before {text}, and after.")
    assert masked.startswith("Before [")
    assert masked.endswith("], and after.")


@pytest.mark.parametrize("text", HARMLESS)
def test_what_is_harmless_stays(text: str) -> None:
    assert find_private(f"See {text} there") == []


def test_numbers_without_a_prefix_are_those_of_the_region() -> None:
    said = "Call (650) 253-0000 now."
    assert mask(said) == said
    assert mask(said, "US") == "Call [PHONE] now."


@given(st.lists(st.sampled_from([*PRIVATE, *HARMLESS, "word", "\n", "[EMAIL]"]), max_size=8))
def test_masks_leave_nothing_to_mask(parts: list[str]) -> None:
    masked = mask(" ; ".join(parts))
    assert find_private(masked) == []
    assert not any(part in masked for part in parts if part in PRIVATE)


@given(st.integers(0, 400), st.sampled_from(PRIVATE))
def test_an_excerpt_never_shows_half_of_a_secret(start: int, text: str) -> None:
    content = "lorem " * (start // 6) + "x" * (start % 6) + f" {text} " + "ipsum " * 60
    for around in (0, start, start + 10):
        shown = excerpt(content, around)
        assert text[:6] not in shown
        assert text[-6:] not in shown
        assert len(shown) <= EXCERPT + 80


@given(st.integers(0, 400))
def test_an_excerpt_never_cuts_a_number_that_a_region_would_know(start: int) -> None:
    text = "word " * 40 + "(030) 123 456-78 " + "word " * 40
    shown = excerpt(text, start)
    digits = "".join(filter(str.isdigit, shown))
    assert digits in ("", "03012345678")


def test_blocks_are_smaller_than_files(tmp_path: Path) -> None:
    """Texts of several blocks are grouped as those of one."""
    texts = [f"this is the text number {i % (BLOCK + 7)} of all" for i in range(3 * BLOCK)]
    with Spool() as spool:
        spool.add(texts)
        groups = find_alike(spool, 0.99)
    assert all(groups[i] == groups[i % (BLOCK + 7)] for i in range(len(texts)))


def test_blocks_hold_few_long_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looking, "BLOCK_SIZE", 100)
    lengths = [10, 90, 5, 300, 40, 40, 40, 1]
    path = tmp_path / "rows.jsonl"
    path.write_text(
        "".join(json.dumps({"text": f"{i}" * length}) + "\n" for i, length in enumerate(lengths))
    )
    source = FileSource({None: [path]})
    blocks = [[len(row.answer) for row in block] for block in looking.seen(source, print)]
    assert [length for block in blocks for length in block] == lengths
    assert all(len(block) == 1 or sum(block) <= 100 for block in blocks)
    assert len(blocks) == 5
    with Spool() as spool:
        spool.add(["x" * length for length in lengths])
        parts = [(first, [len(text) for text in texts]) for first, texts in spool.blocks()]
    assert parts == [(0, [10, 90]), (2, [5]), (3, [300]), (4, [40, 40]), (6, [40, 1])]
