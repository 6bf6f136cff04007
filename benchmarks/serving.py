"""Chats over HTTP beside `transformers serve` and llama.cpp: tokens a second, time to the first.

    python -m benchmarks.serving [--streams 1 8 32] [--repeats 3] [--environments FOLDER]

Each contender is a fresh process on this machine with SmolLM2 in float32; contenders take turns.
So many clients at once stream greedy answers of up to 48 tokens to prompts of mixed length (the
smart-home example's held-out rows, alone and after four solved examples), each as soon as its last
one has ended. Tokens are counted by Luthier's tokenizer from the texts, alike for all; how many
texts are equal to Luthier's is told. A first round warms up and does not count.
"""

import argparse
import asyncio
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.environments import python_of
from benchmarks.run import RESULTS
from benchmarks.workloads import ROOT, model_folder

EXAMPLE = ROOT / "examples" / "smart-home"
TOKENS = 48
CHATS = {1: 12, 8: 64, 32: 96}
"""Streams at once -> chats in all."""
START = 180.0
"""Seconds a server may take to answer for the first time."""

Message = dict[str, str]


def main() -> None:
    """Measure, and store what was measured after each repeat."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--streams", type=int, nargs="+", default=list(CHATS))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--environments", type=Path, default=Path("environments"))
    given = parser.parse_args()
    from luthier.runs import capture_environment

    model, chats = model_folder("lora"), _chats()
    runs: dict[str, list[dict[str, Any]]] = {}
    found = {"machine": dict(capture_environment()), "tokens": TOKENS, "runs": runs}
    for repeat in range(given.repeats):
        for name, command in _contenders(model, given.environments).items():
            with _serving(command) as address:
                asked = "bench" if name == "luthier" else str(model)
                measured = {
                    str(streams): asyncio.run(_measure(address, asked, chats, streams))
                    for streams in given.streams
                }
            runs.setdefault(name, []).append(measured)
            told = {n: (round(m["tokens_per_second"], 1), round(m["first_p95"], 2))
                    for n, m in measured.items()}  # fmt: skip
            print(f"{repeat + 1}: {name}: {told}", file=sys.stderr, flush=True)
        (RESULTS / "serving.json").write_text(json.dumps(found, indent=1) + "\n")
    print(table(found))


def _chats() -> list[list[Message]]:
    """Conversations of mixed length, in an order that mixes them."""
    from luthier.data import as_chat, read_dataset
    from luthier.evaluation import choose_shots, with_shots
    from luthier.recipe import Data

    rows = read_dataset(
        Data(train=EXAMPLE / "train.jsonl", test=EXAMPLE / "test.jsonl", validation_share=0)
    ).dataset
    shots = choose_shots(rows.train, 4, 0)
    found = []
    for number, example in enumerate(rows.test[: max(CHATS.values()) + 8]):
        chat = as_chat(example)
        chat = with_shots(chat, shots) if number % 2 else chat
        found.append([{"role": m.role, "content": m.content} for m in chat.prompt])
    return found


def _contenders(model: Path, environments: Path) -> dict[str, list[str]]:
    """Name -> command, with {port} and {folder} to fill in."""
    serve = str(python_of("serve", environments).with_name("transformers"))
    theirs = [serve, "serve", "--port", "{port}", "--device", "cpu", "--dtype", "float32"]
    return {
        "luthier": [
            sys.executable, "-m", "luthier.cli", "serve", "--no-key", "--workers", "0",
            "--port", "{port}", "--workspace", "{folder}", "--model", f"bench={model}",
        ],
        "llama.cpp": [
            sys.executable, "-m", "benchmarks.peers.llama_cpp", str(_gguf()), "{port}", "16"
        ],
        "transformers": theirs,
        "transformers, continuous": [*theirs, "--continuous-batching"],
    }  # fmt: skip


def _gguf() -> Path:
    """The file that the model's folder was made of."""
    from luthier.models import default_cache, resolve_source
    from luthier.recipe import read_recipe

    model = read_recipe(EXAMPLE / "recipe.yaml").recipe.model
    cache = Path(os.environ.get("LUTHIER_BENCHMARK_CACHE", default_cache()))
    file = resolve_source(model, cache).gguf
    assert file is not None
    return file


@contextmanager
def _serving(command: list[str]) -> Iterator[str]:
    """Within, a server answers at this address."""
    with tempfile.TemporaryDirectory() as folder, socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        filled = [word.format(port=port, folder=folder) for word in command]
        with Path(folder, "log").open("wb") as log:
            process = subprocess.Popen(
                filled, stdout=log, stderr=log, start_new_session=True,
                env={**os.environ, "HF_HUB_OFFLINE": "1"},
            )  # fmt: skip
        try:
            _wait(port, process, Path(folder, "log"))
            yield f"http://127.0.0.1:{port}/v1/chat/completions"
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _wait(port: int, process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + START
    while time.monotonic() < deadline and process.poll() is None:
        with socket.socket() as trying:
            if trying.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.2)
    raise SystemExit(f"a server did not start: {log.read_text(errors='replace')[-2000:]}")


async def _measure(
    address: str, model: str, chats: list[list[Message]], streams: int
) -> dict[str, Any]:
    """So many streams at once, until all chats are answered."""
    import httpx

    count = CHATS[streams]
    # llama.cpp closes connections that were used for a while, which others would take for an error.
    limits = httpx.Limits(max_connections=64, max_keepalive_connections=0)
    async with httpx.AsyncClient(timeout=600, limits=limits) as client:
        await _loaded(client, address, model, chats[-1])
        warming = [_ask(client, address, model, chat) for chat in chats[-min(streams, 8) :]]
        await asyncio.gather(*warming)
        left = iter(chats[:count])
        answered: list[tuple[str, float, float]] = []

        async def stream() -> None:
            for chat in left:
                answered.append(await _ask(client, address, model, chat))

        started = time.perf_counter()
        await asyncio.gather(*(stream() for _ in range(streams)))
        seconds = time.perf_counter() - started
    texts, first, _ = zip(*answered, strict=True)
    tokens = _tokens(texts)
    firsts = sorted(first)
    return {
        "seconds": seconds, "tokens": tokens, "tokens_per_second": tokens / seconds,
        "first_median": statistics.median(firsts),
        "first_p95": firsts[min(len(firsts) - 1, int(0.95 * len(firsts)))],
        "texts": sorted(texts),
    }  # fmt: skip


async def _loaded(client: Any, address: str, model: str, chat: list[Message]) -> None:
    """Ask until the model is loaded, as a server may say that it is not yet."""
    import httpx

    deadline = time.monotonic() + START
    while True:
        try:
            await _ask(client, address, model, chat)
        except httpx.HTTPStatusError as error:
            if error.response.status_code != 503 or time.monotonic() > deadline:
                raise
            await asyncio.sleep(1)
        else:
            return


async def _ask(
    client: Any, address: str, model: str, chat: list[Message]
) -> tuple[str, float, float]:
    """A text, the seconds until it began, and until it ended."""
    body = {"model": model, "messages": chat, "stream": True, "temperature": 0.0,
            "max_tokens": TOKENS, "max_completion_tokens": TOKENS}  # fmt: skip
    started, first, text = time.perf_counter(), 0.0, ""
    async with client.stream("POST", address, json=body) as answer:
        answer.raise_for_status()
        async for line in answer.aiter_lines():
            if not line.startswith("data: ") or line == "data: [DONE]":
                continue
            for choice in json.loads(line[6:]).get("choices", ()):
                piece = choice["delta"].get("content") or ""
                if piece and not first:
                    first = time.perf_counter() - started
                text += piece
    return text, first or time.perf_counter() - started, time.perf_counter() - started


def _tokens(texts: tuple[str, ...]) -> int:
    from luthier.tokens import Tokenizer

    tokenizer = Tokenizer.load(model_folder("lora"))
    return sum(len(tokenizer.encode(text).ids) for text in texts)


def table(found: dict[str, Any]) -> str:
    """What was measured, as Markdown."""
    lines = ["| streams | | tokens/s | first token, median and p95 | Luthier is | equal texts |",
             "|---|---|---|---|---|---|"]  # fmt: skip
    ours = found["runs"]["luthier"]
    for streams in ours[0]:
        for name, runs in found["runs"].items():
            rates = [run[streams]["tokens_per_second"] for run in runs]
            ratios = [a[streams]["tokens_per_second"] / rate
                      for a, rate in zip(ours, rates, strict=False)]  # fmt: skip
            first = statistics.median(run[streams]["first_median"] for run in runs)
            late = statistics.median(run[streams]["first_p95"] for run in runs)
            texts = set(ours[0][streams]["texts"])
            equal = sum(text in texts for text in runs[0][streams]["texts"])
            lines.append(
                f"| {streams} | {name} | {statistics.median(rates):.0f} "
                f"| {first:.2f} s, {late:.2f} s | {statistics.median(ratios):.1f}x "
                f"({min(ratios):.1f} to {max(ratios):.1f}) "
                f"| {equal} of {len(runs[0][streams]['texts'])} |"
            )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
