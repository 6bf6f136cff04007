"""The engine's answers are those of `generate`, whoever else asks, with whichever adapter."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from queue import SimpleQueue
from typing import Any, NamedTuple

import pytest
import torch
from safetensors.torch import save_file

from luthier.errors import ModelError
from luthier.models import (
    LanguageModel,
    Sampling,
    generate,
    load_adapter,
    load_model,
    make_trainable,
    save_adapter,
    trained_parameters,
)
from luthier.models.engine import Answer, Asked, Choosing, End, Engine, Piece
from luthier.recipe import LoRA
from tiny import FAMILIES, write_model

GREEDY = Choosing(temperature=0)
PROMPTS = [
    [9, 8, 7, 6, 5, 20],
    [9, 8, 7, 6, 5, 20, 21, 22, 23],
    [30, 31],
    [9, 8, 7, 6, 5, 40, 41, 42, 43, 44, 45],
    [50],
    [9, 8, 7, 6, 5, 20, 21, 22, 23, 24],
]


def loaded(folder: Path) -> LanguageModel:
    return load_model(folder, dtype=torch.float32, device=torch.device("cpu"))


@pytest.fixture(scope="module", params=FAMILIES)
def model(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> LanguageModel:
    return loaded(write_model(tmp_path_factory.mktemp(request.param), request.param, seed=3))


@pytest.fixture
def llama(tmp_path: Path) -> LanguageModel:
    return loaded(write_model(tmp_path / "llama", seed=3))


@contextmanager
def running(model: LanguageModel, **settings: Any) -> Iterator[Engine]:
    # On a model of its own: while it runs, nobody else may use it.
    engine = Engine(
        deepcopy(model), **{"num_slots": 3, "context": 64, "hold_to": FORMS.get, **settings}
    )
    try:
        yield engine
    finally:
        engine.close()


Told = SimpleQueue[Any]


def submit(engine: Engine, asked: Asked) -> "Asking":
    told: Told = SimpleQueue()
    return Asking(engine.submit(asked, told.put), told)


class Asking(NamedTuple):
    answer: Answer
    told: Told


def said(asking: Asking) -> tuple[list[Piece], End]:
    pieces = []
    while isinstance(told := asking.told.get(timeout=60), Piece):
        pieces.append(told)
    if isinstance(told, Exception):
        raise told
    return pieces, told


def ids_of(asking: Asking) -> list[int]:
    return [piece.id for piece in said(asking)[0]]


def plain(model: LanguageModel, prompt: list[int], most: int, stop_ids: Any = ()) -> list[int]:
    (answer,) = generate(
        model, [prompt], max_new_tokens=most, stop_ids=stop_ids, num_slots=1, most_ahead=0
    )
    return answer.ids


def test_answers_are_those_of_generate(model: LanguageModel) -> None:
    stop = plain(model, PROMPTS[0], 12)[5]
    wanted = [plain(model, prompt, 12, {stop}) for prompt in PROMPTS]
    with running(model) as engine:
        for _ in range(2):  # the second time their beginnings are known
            asked = [Asked(prompt, 12, frozenset({stop}), choosing=GREEDY) for prompt in PROMPTS]
            answers = [submit(engine, one) for one in asked]
            for answer, ids in zip(answers, wanted, strict=True):
                pieces, end = said(answer)
                assert [piece.id for piece in pieces] == ids
                assert end.reason == ("stop" if len(ids) < 12 else "length")


def test_what_begins_alike_is_computed_once(model: LanguageModel) -> None:
    prompt = list(range(10, 40))
    answer = plain(model, prompt, 6)
    further = [*prompt, *answer, 7, 8]
    with running(model) as engine:
        assert said(submit(engine, Asked(prompt, 6, choosing=GREEDY)))[1].num_cached == 0
        pieces, end = said(submit(engine, Asked(further, 6, choosing=GREEDY)))
        assert end.num_cached == len(prompt) + 5, "the answer's last token was never computed"
        assert [piece.id for piece in pieces] == plain(model, further, 6)
        # Of one that is being answered, what it has so far.
        slow = submit(engine, Asked(prompt, 30, choosing=GREEDY))
        assert isinstance(slow.told.get(timeout=60), Piece)
        other = [*prompt[:20], 5, 6]
        pieces, end = said(submit(engine, Asked(other, 6, choosing=GREEDY)))
        assert end.num_cached == 20
        assert [piece.id for piece in pieces] == plain(model, other, 6)


def write_adapter(base: Path, folder: Path, seed: int, **settings: Any) -> Path:
    model = loaded(base)
    make_trainable(model, LoRA.model_validate({"rank": 4, **settings}), seed=seed)
    generator = torch.Generator().manual_seed(seed)
    for parameter in trained_parameters(model.network).values():
        parameter.data += 0.3 * torch.randn(parameter.shape, generator=generator)
    folder.mkdir()
    save_adapter(model, folder)
    return folder


def tuned(base: Path, adapter: Path) -> LanguageModel:
    model = loaded(base)
    model.network = load_adapter(model.base, adapter)
    return model


@pytest.fixture
def adapters(tmp_path: Path, llama: LanguageModel) -> dict[str, Path]:
    return {
        "a": write_adapter(tmp_path / "llama", tmp_path / "a", 1),
        "b": write_adapter(tmp_path / "llama", tmp_path / "b", 2, targets=["q_proj", "down_proj"]),
    }


def test_rows_of_a_batch_have_adapters_of_their_own(
    tmp_path: Path, llama: LanguageModel, adapters: dict[str, Path]
) -> None:
    models = {"": llama} | {
        name: tuned(tmp_path / "llama", place) for name, place in adapters.items()
    }
    wanted = {(name, i): plain(model, prompt, 10)
              for name, model in models.items() for i, prompt in enumerate(PROMPTS)}  # fmt: skip
    assert len({tuple(ids) for ids in wanted.values()}) > len(PROMPTS) * 2
    with running(loaded(tmp_path / "llama"), num_slots=8) as engine:
        for name, place in adapters.items():
            engine.do(lambda name=name, place=place: engine.adapters.add(name, place))  # type: ignore[misc]
        assert engine.adapters.names == {"a", "b"}
        for _ in range(2):
            answers = {
                (name, i): submit(engine, Asked(PROMPTS[i], 10, adapter=name, choosing=GREEDY))
                for name, i in wanted
            }
            assert {key: ids_of(answer) for key, answer in answers.items()} == wanted


def test_adapters_that_cannot_be_mixed_are_refused(
    tmp_path: Path, llama: LanguageModel, adapters: dict[str, Path]
) -> None:
    other = write_adapter(tmp_path / "llama", tmp_path / "c", 3, variants=["dora"])
    with running(llama) as engine:
        for wrong in (tmp_path / "nothing", other):
            with pytest.raises(ModelError):
                engine.do(lambda wrong=wrong: engine.adapters.add("x", wrong))  # type: ignore[misc]
        assert not engine.adapters.names
        assert ids_of(submit(engine, Asked(PROMPTS[0], 5, choosing=GREEDY))) == plain(
            llama, PROMPTS[0], 5
        )


def test_a_seed_makes_an_answer_again_whoever_else_asks(llama: LanguageModel) -> None:
    drawn = Choosing(temperature=1.0, seed=5)
    with running(llama) as engine:
        alone = ids_of(submit(engine, Asked(PROMPTS[1], 12, choosing=drawn)))
        others = [submit(engine, Asked(prompt, 12)) for prompt in PROMPTS]
        again = submit(engine, Asked(PROMPTS[1], 12, choosing=drawn))
        assert ids_of(again) == alone
        assert len({tuple(ids_of(other)) for other in others}) == len(PROMPTS)
        unseeded = [ids_of(submit(engine, Asked(PROMPTS[1], 12))) for _ in range(2)]
        assert unseeded[0] != unseeded[1]


def test_without_guesses_the_same_is_drawn(llama: LanguageModel) -> None:
    asked = [Asked(p, 20, choosing=Choosing(temperature=0.7, top_p=0.8, seed=3)) for p in PROMPTS]
    found = []
    for most_ahead in (0, 8):
        with running(llama, most_ahead=most_ahead) as engine:
            found.append([ids_of(answer) for answer in [submit(engine, one) for one in asked]])
    assert found[0] == found[1]


def test_log_likelihoods_are_the_models_own(llama: LanguageModel) -> None:
    with running(llama) as engine:
        choosing = Choosing(temperature=2.0, seed=1)
        pieces, _ = said(submit(engine, Asked(PROMPTS[0], 6, choosing=choosing, num_logprobs=3)))
        none, _ = said(submit(engine, Asked(PROMPTS[0], 2, choosing=GREEDY)))
        assert none[0].logprob is None
        ids = [*PROMPTS[0], *(piece.id for piece in pieces)]
        weighed = engine.weigh(ids, "", 2)
        assert [piece.id for piece in weighed] == ids[1:]
        assert [p.logprob for p in weighed[-6:]] == pytest.approx(
            [p.logprob for p in pieces], abs=1e-4
        )
        assert dict(weighed[-1].top) == pytest.approx(dict(pieces[-1].top[:2]), abs=1e-4)
        assert engine.weigh(ids[:1], "", 2) == []
    llama.base.set_attn_implementation("eager")
    with torch.inference_mode():
        hidden = llama.base(input_ids=torch.tensor([ids])).logits[0].float()
    expected = hidden.log_softmax(-1)[len(PROMPTS[0]) - 1 : -1]
    for piece, own in zip(pieces, expected, strict=True):
        assert piece.logprob == pytest.approx(float(own[piece.id]), abs=1e-4)
        top = own.topk(3)
        assert [token for token, _ in piece.top] == top.indices.tolist()
        assert [logprob for _, logprob in piece.top] == pytest.approx(top.values.tolist(), abs=1e-4)


def only(*ids: int) -> torch.Tensor:
    allowed = torch.zeros(200, dtype=torch.bool)
    allowed[list(ids)] = True
    return allowed


FORMS = {
    "3 or 4": lambda ids: only(3, 4),
    "counted": lambda ids: only(len(ids)),
    "none": lambda ids: only(),
}


@pytest.mark.parametrize(
    ("choosing", "holds"),
    [
        (Choosing(temperature=0, logit_bias={77: 100.0}), lambda ids: set(ids) == {77}),
        (Choosing(temperature=0, frequency_penalty=1e3), lambda ids: len(set(ids)) == len(ids)),
        (Choosing(temperature=0, presence_penalty=1e3), lambda ids: len(set(ids)) == len(ids)),
        (Choosing(temperature=1.5, form="3 or 4"), lambda ids: set(ids) <= {3, 4}),
        (
            Choosing(temperature=0, form="counted"),
            lambda ids: ids == list(range(20)),
        ),
    ],
)
def test_tokens_are_chosen_as_asked(
    llama: LanguageModel, choosing: Choosing, holds: Callable[[list[int]], bool]
) -> None:
    with running(llama) as engine:
        ids = ids_of(submit(engine, Asked(PROMPTS[0], 20, choosing=choosing)))
    assert len(ids) == 20
    assert holds(ids)


def test_a_small_top_p_leaves_the_likeliest(llama: LanguageModel) -> None:
    with running(llama) as engine:
        drawn = Choosing(temperature=1.0, top_p=1e-6, seed=1)
        ids = ids_of(submit(engine, Asked(PROMPTS[0], 12, choosing=drawn)))
    assert ids == plain(llama, PROMPTS[0], 12)


def test_who_does_not_wait_frees_the_slot(llama: LanguageModel) -> None:
    with running(llama, num_slots=1, context=4000) as engine:
        endless = submit(engine, Asked(PROMPTS[0], 3000, choosing=GREEDY))
        given_up = submit(engine, Asked(PROMPTS[2], 3000, choosing=GREEDY))
        waiting = submit(engine, Asked(PROMPTS[1], 4, choosing=GREEDY))
        endless.told.get(timeout=60)
        assert (engine.num_active, engine.num_waiting) == (1, 2)
        given_up.answer.cancel()
        endless.answer.cancel()
        assert ids_of(waiting) == plain(llama, PROMPTS[1], 4)
        assert said(endless)[1].reason == "cancelled"
        assert said(given_up) == ([], End("cancelled"))


def test_an_engine_that_ends_tells_who_waits(llama: LanguageModel) -> None:
    engine = Engine(llama, num_slots=1, context=4000)
    answers = [submit(engine, Asked(PROMPTS[0], 3000, choosing=GREEDY)) for _ in range(3)]
    answers[0].told.get(timeout=60)
    engine.close()
    answers.append(submit(engine, Asked(PROMPTS[0], 4)))
    assert [said(answer)[1].reason for answer in answers] == ["cancelled"] * 4
    with pytest.raises(ModelError, match="put away"):
        engine.weigh(PROMPTS[0], "", 1)


def test_an_error_reaches_who_asked_and_nobody_else(
    llama: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(llama) as engine:
        run = engine.model.run

        def failing(*given: Any, **more: Any) -> torch.Tensor:
            monkeypatch.setattr(engine.model, "run", run)
            raise RuntimeError("out of memory")

        monkeypatch.setattr(engine.model, "run", failing)
        with pytest.raises(RuntimeError, match="out of memory"):
            said(submit(engine, Asked(PROMPTS[0], 4, choosing=GREEDY)))
        assert ids_of(submit(engine, Asked(PROMPTS[0], 4, choosing=GREEDY))) == plain(
            llama, PROMPTS[0], 4
        )


def test_one_that_cannot_go_on_disturbs_no_other(llama: LanguageModel) -> None:
    nothing = Choosing(temperature=1.0, form="none")
    wanted = plain(llama, PROMPTS[1], 12)
    with running(llama) as engine:
        fine = submit(engine, Asked(PROMPTS[1], 12, choosing=GREEDY))
        wrong = submit(engine, Asked(PROMPTS[0], 12, choosing=nothing))
        with pytest.raises(RuntimeError):
            said(wrong)
        assert ids_of(fine) == wanted
        with pytest.raises(IndexError):
            said(submit(engine, Asked([10**6], 12, choosing=GREEDY)))
        again = submit(engine, Asked(PROMPTS[1], 12, choosing=GREEDY))
        assert ids_of(again) == wanted


def test_nothing_to_do_takes_no_time(llama: LanguageModel) -> None:
    with running(llama) as engine:
        said(submit(engine, Asked(PROMPTS[0], 4)))
        before = os.times()
        time.sleep(1)
        after = os.times()
    assert after.user + after.system - before.user - before.system < 0.1


def test_draws_follow_the_probabilities(llama: LanguageModel) -> None:
    with running(llama, num_slots=8) as engine:
        answers = [
            submit(engine, Asked(PROMPTS[0], 1, choosing=Choosing(2.0, seed=n))) for n in range(400)
        ]
        counts = torch.bincount(torch.tensor([ids_of(a)[0] for a in answers]), minlength=259)
    (other,) = [generate(llama, [PROMPTS[0]] * 400, max_new_tokens=1, stop_ids=(),
                         sampling=Sampling(2.0))]  # fmt: skip
    expected = torch.bincount(torch.tensor([a.ids[0] for a in other]), minlength=259)
    # Both are draws of 400 from the same distribution: their total variation is what chance makes.
    assert (counts - expected).abs().sum() / 800 < 0.5


def test_a_checkpoints_adapter_answers_as_the_one_saved_of_it(
    tmp_path: Path, llama: LanguageModel
) -> None:
    tuning = LoRA.model_validate({"rank": 4})
    model = loaded(tmp_path / "llama")
    make_trainable(model, tuning, seed=1)
    for parameter in trained_parameters(model.network).values():
        parameter.data += 0.3 * torch.randn(parameter.shape)
    file = tmp_path / "trained.safetensors"
    save_file({n: w.data for n, w in trained_parameters(model.network).items()}, file)
    with running(llama) as engine:
        engine.do(lambda: engine.adapters.add_trained("a", tuning, file))
        found = [ids_of(submit(engine, Asked(p, 8, adapter="a", choosing=GREEDY))) for p in PROMPTS]
        other = LoRA.model_validate({"rank": 8})
        with pytest.raises(ModelError, match="no adapter of this model"):
            engine.do(lambda: engine.adapters.add_trained("b", other, file))
        base = ids_of(submit(engine, Asked(PROMPTS[0], 8, choosing=GREEDY)))
    assert found == [plain(model, prompt, 8) for prompt in PROMPTS]
    assert base == plain(llama, PROMPTS[0], 8)
