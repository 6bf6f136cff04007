"""Clients of OpenAI's protocol, each in an environment of its own, against one server.

    python -m benchmarks.clients [--environments FOLDER] [--only NAME ...]

The server has SmolLM2 and MiniLM as its models, and a worker; clients know its address and key by
OPENAI_BASE_URL and OPENAI_API_KEY. What they print is stored and told; exits with 1 if one fails.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import httpx

from benchmarks.environments import python_of
from benchmarks.run import RESULTS
from benchmarks.workloads import ROOT, model_folder

HERE = Path(__file__).parent
OPENAI = ("openai-1.109", "openai-2.54", "openai-3.52")
ROWS = 80
START = 120.0


@dataclass(frozen=True, slots=True)
class Scene:
    """A server, and what clients are given."""

    folder: Path
    address: str
    key: str
    environments: Path

    def commands(self) -> dict[str, tuple[str, list[str]]]:
        """Name -> environment, and command there."""
        file = str(self.folder / "rows.jsonl")
        found: dict[str, tuple[str, list[str]]] = {}
        for version in OPENAI:
            found[version] = (version, ["python", str(HERE / "stock.py"), file, "smollm2"])
            found[f"{version}, async"] = (
                version, ["python", str(HERE / "stock_async.py"), "smollm2"]
            )  # fmt: skip
        found["langchain"] = (
            "langchain", ["python", str(HERE / "chain.py"), "smollm2", "minilm"]
        )  # fmt: skip
        found["llm"] = (
            "llm",
            [
                "llm",
                "-m",
                "tuned",
                "--key",
                self.key,
                "Turn on the light.",
                "-o",
                "max_tokens",
                "16",
            ],
        )
        found["lm-eval"] = (
            "lm-eval",
            ["python", "-m", "lm_eval", "--model", "local-completions", "--model_args",
             f"model=smollm2,base_url={self.address}/completions,tokenizer={model_folder('lora')},"
             "tokenizer_backend=huggingface,num_concurrent=4,max_retries=1",
             "--include_path", str(self.folder / "tasks"), "--tasks", "letters"],
        )  # fmt: skip
        return found

    def run(self, environment: str, command: list[str]) -> tuple[int, str]:
        """What a client says."""
        beside = python_of(environment, self.environments).parent
        done = subprocess.run(
            [str(beside / command[0]), *command[1:]], capture_output=True, text=True, timeout=900,
            check=False, cwd=self.folder,
            env={**os.environ, "OPENAI_BASE_URL": self.address, "OPENAI_API_KEY": self.key,
                 "LLM_USER_PATH": str(self.folder / "llm"), "HF_HUB_OFFLINE": "1"},
        )  # fmt: skip
        return done.returncode, done.stdout + (done.stderr[-2000:] if done.returncode else "")


def main() -> None:
    """Try all clients."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--environments", type=Path, default=ROOT / ".benchmarks")
    parser.add_argument("--only", nargs="+", default=[])
    given = parser.parse_args()
    told, failed = {}, []
    with tempfile.TemporaryDirectory() as name:
        scene = Scene(Path(name), "http://127.0.0.1:8437/v1", _key(Path(name)), given.environments)
        _write(scene)
        process = _serve(scene)
        try:
            for client, (environment, command) in scene.commands().items():
                if given.only and client not in given.only:
                    continue
                began = time.perf_counter()
                code, text = scene.run(environment, command)
                told[client] = {"exit": code, "seconds": time.perf_counter() - began, "said": text}
                failed += [client] if code else []
                print(f"== {client}: exit {code}\n{text}", flush=True)
        finally:
            process.send_signal(signal.SIGINT)
            process.wait()
    if not given.only:
        (RESULTS / "clients.json").write_text(json.dumps(told, indent=1) + "\n")
    raise SystemExit(f"failed: {', '.join(failed)}" if failed else 0)


def _key(folder: Path) -> str:
    from luthier.jobs import Service

    return Service.at(folder, "", "").keys.create("clients", ["read", "tune", "infer"])[1]


def _write(scene: Scene) -> None:
    """Rows to learn, a model for `llm`, and a task for lm-eval."""
    source = ROOT / "examples" / "smart-home" / "train.jsonl"
    rows = source.read_text().splitlines(keepends=True)[:ROWS]
    (scene.folder / "rows.jsonl").write_text("".join(rows))
    (scene.folder / "llm").mkdir()
    (scene.folder / "llm" / "extra-openai-models.yaml").write_text(
        f"- model_id: tuned\n  model_name: smollm2\n  api_base: {scene.address}\n"
        "  api_key_name: luthier\n"
    )
    (scene.folder / "tasks").mkdir()
    asked = [{"text": "The first letters of the alphabet are A, B,", "right": " C", "wrong": " X"},
             {"text": "One, two, three,", "right": " four", "wrong": " nine"}]  # fmt: skip
    data = scene.folder / "letters.json"
    data.write_text("".join(json.dumps(row) + "\n" for row in asked))
    (scene.folder / "tasks" / "letters.yaml").write_text(
        "task: letters\ndataset_path: json\n"
        f"dataset_kwargs: {{data_files: {{test: {data}}}}}\n"
        "output_type: multiple_choice\ntest_split: test\ndoc_to_text: '{{text}}'\n"
        "doc_to_choice: '{{[right, wrong]}}'\ndoc_to_target: 0\ntarget_delimiter: ''\n"
        "metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]\n"
    )


def _serve(scene: Scene) -> "subprocess.Popen[bytes]":
    models = {"smollm2": model_folder("lora"), "minilm": model_folder("classify")}
    named = [word for name, place in models.items() for word in ("--model", f"{name}={place}")]
    with (scene.folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "luthier.cli", "serve", "--port", "8437",
             "--workspace", str(scene.folder), *named],
            stdout=log, stderr=log,
        )  # fmt: skip
    deadline = time.monotonic() + START
    while time.monotonic() < deadline and process.poll() is None:
        try:
            httpx.get(f"{scene.address.removesuffix('/v1')}/ready").raise_for_status()
        except httpx.HTTPError:
            time.sleep(0.2)
        else:
            return process
    raise SystemExit((scene.folder / "log").read_text()[-2000:])


if __name__ == "__main__":
    main()
