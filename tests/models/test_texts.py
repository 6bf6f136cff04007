"""Texts in a flat batch come out as by themselves: vectors, answers and gradients."""

import json
from pathlib import Path
from typing import Literal

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from luthier.errors import ModelError
from luthier.models import whole
from luthier.models.asking import vectors_of
from luthier.models.attention import attend
from luthier.models.encoder_tuning import make_encoder_trainable, save_encoder
from luthier.models.encoders import Encoder, load_encoder
from luthier.models.layout import Scoring
from luthier.models.pooling import read_pooling
from luthier.models.texts import pack_texts, unfold_texts
from luthier.models.trained import trained_parameters
from luthier.models.whole import WholeLayout
from luthier.recipe import Full, LastLayers, LoRA
from luthier.tokens import EncodedText, Tokenizer, read_texts
from tiny_encoders import (
    ENCODERS,
    PADDED_ENCODERS,
    some_texts,
    write_decoder,
    write_encoder,
    write_modules,
)

CPU = torch.device("cpu")


def load(folder: Path, **settings: object) -> Encoder:
    return load_encoder(folder, dtype=torch.float32, device=CPU, **settings)  # type: ignore[arg-type]


def one_by_one(encoder: Encoder, texts: list[EncodedText]) -> Tensor:
    return torch.cat([encoder.vectors(encoder.pack([text])) for text in texts])


def states_by_transformers(encoder: Encoder, text: EncodedText) -> Tensor:
    """Mean of the hidden states of one text, by transformers' own attention."""
    implementation = encoder.base.config._attn_implementation
    encoder.base.set_attn_implementation("eager")
    ids = torch.tensor([text.input_ids])
    types = {}
    if getattr(encoder.base.config, "type_vocab_size", 0) > 1:
        second = text.second or len(text.input_ids)
        types = {"token_type_ids": (torch.arange(len(text.input_ids)) >= second).long()[None]}
    output = encoder.base(input_ids=ids, attention_mask=torch.ones_like(ids), **types)
    encoder.base.set_attn_implementation(implementation)
    found: Tensor = output.last_hidden_state[0].mean(0)
    return found


@pytest.mark.parametrize("family", [*ENCODERS])
def test_flat_texts_have_transformers_own_vectors_and_gradients(
    family: str, tmp_path: Path
) -> None:
    encoder = load(write_encoder(tmp_path, family))
    assert not encoder.padded_because
    texts = some_texts()
    make_encoder_trainable(encoder, Full(), 0)
    weights = torch.linspace(-1, 1, 32)

    plain = torch.stack([states_by_transformers(encoder, text) for text in texts])
    (plain @ weights).square().sum().backward()
    expected = {n: p.grad.clone() for n, p in trained(encoder) if p.grad is not None}
    for _, p in trained(encoder):
        p.grad = None
    found = encoder.vectors(encoder.pack(texts))
    (found @ weights).square().sum().backward()

    torch.testing.assert_close(found, plain, rtol=1e-4, atol=1e-5)
    for name, p in trained(encoder):
        if name in expected:
            assert p.grad is not None, name
            torch.testing.assert_close(p.grad, expected[name], rtol=1e-3, atol=1e-4)


def trained(encoder: Encoder) -> list[tuple[str, torch.nn.Parameter]]:
    return list(trained_parameters(encoder.network).items())


@pytest.mark.parametrize("family", [*PADDED_ENCODERS])
def test_what_cannot_run_flat_runs_padded_and_says_so(family: str, tmp_path: Path) -> None:
    encoder = load(write_encoder(tmp_path, family))
    assert family in encoder.padded_because
    texts = some_texts()
    with torch.no_grad():
        found = encoder.vectors(encoder.pack(texts))
        torch.testing.assert_close(found, one_by_one(encoder, texts), rtol=1e-4, atol=1e-5)


def test_a_decoder_reads_texts_by_their_last_token(tmp_path: Path) -> None:
    encoder = load(write_decoder(tmp_path))
    assert encoder.is_causal
    assert encoder.pooling.mode == "lasttoken"
    texts = [EncodedText(text.input_ids) for text in some_texts()]
    with torch.no_grad():
        found = encoder.vectors(encoder.pack(texts))
        for text, vector in zip(texts, found, strict=True):
            plain = encoder.base(
                input_ids=torch.tensor([text.input_ids]),
                flat_layout=encoder.pack([text]).layout.of([len(text.input_ids)]),
                position_ids=torch.arange(len(text.input_ids))[None],
                use_cache=False,
            ).last_hidden_state[0, -1]
            torch.testing.assert_close(vector, plain, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", ["bert", "distilbert", "roberta", "modernbert", "electra"])
def test_an_architectures_own_head_answers_as_in_transformers(family: str, tmp_path: Path) -> None:
    encoder = load(write_encoder(tmp_path / "start", family), answers=3, head="own", seed=4)
    make_encoder_trainable(encoder, LastLayers(count=1), 0)
    texts = [EncodedText(text.input_ids) for text in some_texts()]
    encoder.logits(encoder.pack(texts)).square().sum().backward()
    with torch.no_grad():
        for _, p in trained(encoder):
            assert p.grad is not None
            p.sub_(0.1 * p.grad / p.grad.norm())
        found = encoder.logits(encoder.pack(texts))
    save_encoder(encoder, tmp_path / "tuned", tmp_path / "start", ("no", "perhaps", "yes"))
    saved = AutoModelForSequenceClassification.from_pretrained(tmp_path / "tuned").eval()
    assert saved.config.id2label == {0: "no", 1: "perhaps", 2: "yes"}
    with torch.no_grad():
        for text, logits in zip(texts, found, strict=True):
            expected = saved(torch.tensor([text.input_ids])).logits[0]
            torch.testing.assert_close(logits, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("mode", ["mean_tokens", "cls_token", "max_tokens", "lasttoken"])
@pytest.mark.parametrize("variant", [(), ("dora",)])
def test_a_tuned_folder_loads_in_sentence_transformers_with_equal_vectors(
    mode: str, variant: tuple[str, ...], tmp_path: Path
) -> None:
    from sentence_transformers import SentenceTransformer

    start = write_encoder(tmp_path / "start", sentence=mode)
    encoder = load(start)
    make_encoder_trainable(encoder, LoRA(rank=4, variants=variant), 0)  # type: ignore[arg-type]
    with torch.no_grad():
        for _, p in trained(encoder):
            p.add_(0.05 * torch.randn_like(p))
    save_encoder(encoder, tmp_path / "tuned", start)
    sentences = ["turn the lamp on", "what is the weather", "stop", "play a song now please"]
    tokenizer = Tokenizer.load(start, writes=False)
    texts = [t for t, _ in read_texts(tokenizer, [(s, None) for s in sentences], 64)]
    with torch.no_grad():
        found = encoder.vectors(encoder.pack(texts))
    loaded = SentenceTransformer(str(tmp_path / "tuned"), device="cpu")
    expected = loaded.encode(sentences, convert_to_tensor=True)
    assert torch.cosine_similarity(found, expected).min() > 0.9999
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)
    assert read_pooling(tmp_path / "tuned") == read_pooling(start)


def test_a_pooled_classifier_is_a_sentence_transformers_folder_whose_vectors_are_logits(
    tmp_path: Path,
) -> None:
    from sentence_transformers import SentenceTransformer

    start = write_encoder(tmp_path / "start", sentence="mean_tokens")
    encoder = load(start, answers=2)
    make_encoder_trainable(encoder, Full(), 0)
    save_encoder(encoder, tmp_path / "tuned", start, ("off", "on"))
    sentences = ["turn the lamp on", "stop"]
    tokenizer = Tokenizer.load(start, writes=False)
    texts = [t for t, _ in read_texts(tokenizer, [(s, None) for s in sentences], 64)]
    with torch.no_grad():
        logits = encoder.logits(encoder.pack(texts))
    expected = SentenceTransformer(str(tmp_path / "tuned"), device="cpu").encode(
        sentences, convert_to_tensor=True
    )
    torch.testing.assert_close(logits, expected, rtol=1e-3, atol=1e-4)
    again = load(tmp_path / "tuned", answers=2)
    with torch.no_grad():
        torch.testing.assert_close(again.logits(again.pack(texts)), logits, rtol=1e-4, atol=1e-5)
    assert json.loads((tmp_path / "tuned" / "config.json").read_text())["id2label"]["1"] == "on"


def test_prompts_and_length_are_read_and_a_plain_encoder_becomes_a_folder_of_them(
    tmp_path: Path,
) -> None:
    from dataclasses import replace

    from sentence_transformers import SentenceTransformer

    start = write_encoder(tmp_path / "start")
    encoder = load(start)
    assert encoder.pooling.mode == "mean"
    encoder.pooling = replace(
        encoder.pooling, prompts={"query": "what is ", "document": ""}, max_length=32
    )
    save_encoder(encoder, tmp_path / "tuned", start)
    loaded = SentenceTransformer(str(tmp_path / "tuned"), device="cpu")
    assert loaded.prompts["query"] == "what is "
    assert loaded.max_seq_length == 32
    tokenizer = Tokenizer.load(start, writes=False)
    ((text, _),) = read_texts(tokenizer, [("what is the weather", None)], 32)
    with torch.no_grad():
        found = encoder.vectors(encoder.pack([text]))
    expected = loaded.encode(["the weather"], prompt_name="query", convert_to_tensor=True)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)
    assert read_pooling(tmp_path / "tuned").prompts["query"] == "what is "


def test_the_fused_kernel_for_long_texts_computes_what_blocks_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torch.manual_seed(0)
    lengths = [3, 3, 7, 2, 9, 9, 9]
    shapes = (4, sum(lengths), 1, 8), (4, sum(lengths), 8), (4, sum(lengths), 8)
    inputs = [torch.randn(s, dtype=torch.float64, requires_grad=True) for s in shapes]
    grad = torch.randn_like(inputs[0])
    computed, forward = [], whole.Run.forward

    def counted(run: whole.Run, *args: object) -> Tensor:
        computed.append(run.count)
        return forward(run, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(whole.Run, "forward", counted)
    found = []
    for long in (1, 5, 99):
        monkeypatch.setattr(whole, "LONG", long)
        query, key, value = inputs
        mixed = attend(query, key, value, WholeLayout.of(lengths), Scoring(0.3))
        found.append((mixed.detach(), *torch.autograd.grad(mixed, inputs, grad)))
    assert computed == [2, 1, 1, 3, 1, 3], "texts at once: all by the kernel, then the long"
    for one in found[:-1]:
        for ours, plain in zip(one, found[-1], strict=True):
            torch.testing.assert_close(ours, plain, rtol=1e-10, atol=1e-12)


def test_equal_texts_are_computed_once_and_given_to_all_who_asked() -> None:
    texts = [EncodedText([2, 7, 3]), EncodedText([2, 9, 9, 3]), EncodedText([2, 7, 3])]
    batch = pack_texts(texts)
    assert batch.wanted.tolist() == [0, 1, 0]
    assert batch.lengths.tolist() == [3, 4]
    assert batch.num_tokens == 10
    assert len(batch.input_ids) == 7 + batch.num_filler == 32
    ids, mask, _, places = unfold_texts(batch)
    assert ids.tolist() == [[2, 7, 3, 0], [2, 9, 9, 3]]
    assert mask.sum().item() == 7
    assert ids.flatten()[places[:7]].tolist() == [2, 7, 3, 2, 9, 9, 3]


def test_results_come_in_the_order_of_the_texts_whatever_the_budget(tmp_path: Path) -> None:
    encoder = load(write_encoder(tmp_path))
    texts = some_texts(20)
    whole = vectors_of(encoder, texts, 10_000)
    for budget in (1, 50, 200):
        torch.testing.assert_close(vectors_of(encoder, texts, budget), whole, rtol=1e-4, atol=1e-5)


def test_long_texts_are_cut_at_the_end_and_of_two_the_longer_first(tmp_path: Path) -> None:
    write_encoder(tmp_path)
    tokenizer = Tokenizer.load(tmp_path, writes=False)
    asked = [("turn the lamp on now please", None), ("stop", "turn the lamp on now please")]
    (one, was), (two, _) = read_texts(tokenizer, asked, 6)
    decode = tokenizer.decode
    assert was == 8
    assert decode(one.input_ids, keep_special=True) == "[CLS] turn the lamp on [SEP]"
    assert decode(two.input_ids, keep_special=True) == "[CLS] stop [SEP] turn the [SEP]"
    assert decode(two.input_ids[two.second :]) == "turn the"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": True}, "mean and cls"),
        ({"pooling_mode_weightedmean_tokens": True}, "weightedmean"),
        ({"pooling_mode": "mean", "include_prompt": False}, "without the prompt"),
    ],
)
def test_poolings_that_are_not_computed_here_are_refused(
    change: dict[str, object], said: str, tmp_path: Path
) -> None:
    write_encoder(tmp_path)
    write_modules(tmp_path, "mean_tokens")
    (tmp_path / "1_Pooling" / "config.json").write_text(json.dumps(change))
    with pytest.raises(ModelError, match=said):
        read_pooling(tmp_path)


def test_the_tokenizer_reads_as_transformers_does(tmp_path: Path) -> None:
    write_encoder(tmp_path)
    ours = Tokenizer.load(tmp_path, writes=False)
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    for pair in (("turn the lamp on", None), ("good", "what is the weather today")):
        ((found, _),) = read_texts(ours, [pair], 96)
        expected = theirs(*[text for text in pair if text], return_token_type_ids=True)
        assert found.input_ids == expected["input_ids"]
        if pair[1]:
            assert found.second == expected["token_type_ids"].index(1)


@pytest.mark.parametrize("head", ["own", "pooled"])
def test_a_folder_that_lacks_weights_of_its_body_is_refused(
    head: Literal["own", "pooled"], tmp_path: Path
) -> None:
    folder = write_encoder(tmp_path / "model", "bert")
    weights = load_file(folder / "model.safetensors")
    lacking = {name: w for name, w in weights.items() if "layer.1.output" not in name}
    assert len(lacking) < len(weights)
    save_file(lacking, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match=r"lacks weights of its body: .*layer\.1\.output.* 1 more"):
        load_encoder(folder, dtype=torch.float32, device=torch.device("cpu"), answers=2, head=head)
