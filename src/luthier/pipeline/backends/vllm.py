"""vLLM, as a server that somebody started: adapters are loaded while it runs.

It must have been started with `--enable-lora`, for the ranks that are used, and with
VLLM_ALLOW_RUNTIME_LORA_UPDATING=True in its environment, and must see the adapters' files.
Prompts and answers are token ids, so that only our own tokenizer and templates count.
Source: https://docs.vllm.ai/en/latest/features/lora/ and .../serving/openai_compatible_server/
"""

import os
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from luthier.errors import ConfigError, ModelError
from luthier.models import Asked, End, Piece
from luthier.pipeline.backends.elsewhere import Elsewhere, Stream
from luthier.pipeline.placing import resolve
from luthier.recipe import LoRA, Runtime
from luthier.tokens import Tokenizer

KEY = "VLLM_API_KEY"
"""Variable of the environment that holds the server's key, as vLLM itself calls it."""
MARK = "token_id:"
"""What stands before the ids of tokens where ids are asked for instead of texts."""


@dataclass
class _Stream:
    """An answer as it comes."""

    url: str
    body: dict[str, Any]
    num_logprobs: int | None

    def read(self, event: dict[str, Any]) -> Sequence[Piece | End]:
        """Tokens of an event, and the end where it is the last one."""
        if not event["choices"]:
            return []
        (choice,) = event["choices"]
        ids = choice.get("token_ids") or []
        found: list[Piece | End] = []
        if self.num_logprobs is None:
            found += map(Piece, ids)
        else:
            weighed = choice["logprobs"]
            tops = weighed.get("top_logprobs") or [{}] * len(ids)
            for token, own, top in zip(ids, weighed["token_logprobs"], tops, strict=True):
                found.append(Piece(token, own, _likeliest(top, self.num_logprobs)))
        if choice.get("finish_reason"):
            found.append(End("length" if choice["finish_reason"] == "length" else "stop"))
        return found

    def end(self) -> None:
        """Nothing is left to do."""


class Vllm(Elsewhere):
    """A base in a vLLM server."""

    def __init__(self, source: str, runtime: Runtime, url: str, *, most: int) -> None:
        """`url`: the server's, without /v1; `most` bounds the tokens of a prompt and its answer.

        Raises ConfigError, ModelError.
        """
        super().__init__()
        self.url, self._names = url.rstrip("/").removesuffix("/v1"), dict[str, str]()
        with ExitStack() as on_failure:
            on_failure.callback(self.close)
            folder = resolve(source, runtime, lambda note: None)
            self._base, longest = self._served(source, folder.path)
            self.tokenizer = Tokenizer.load(folder.path)
            on_failure.pop_all()
        self.context = min(most, longest, self.tokenizer.context_length or longest)

    @property
    def headers(self) -> dict[str, str]:
        """With the server's key, where there is one."""
        key = os.environ.get(KEY)
        return {"authorization": f"Bearer {key}"} if key else {}

    @property
    def vocabulary(self) -> int:
        """Tokens that may follow."""
        return self.tokenizer.vocabulary_size

    def has(self, adapter: str) -> bool:
        """Whether it may be asked."""
        return adapter in self._names

    def add(self, adapter: str, folder: Path) -> None:
        """Let the server load a saved adapter, unless it has it. Raises ModelError."""
        path = folder.resolve()
        # By where it lies: a server outlives us, and keeps what it was told to load.
        name = f"luthier-{sha256(str(path).encode()).hexdigest()[:16]}"
        if name not in {card["id"] for card in self._cards()}:
            body = {"lora_name": name, "lora_path": str(path)}
            self.post(f"{self.url}/v1/load_lora_adapter", body)
        self._names[adapter] = name

    def add_trained(self, adapter: str, tuning: LoRA, file: Path) -> None:
        """Refuse: vLLM reads finished adapters only. Raises ModelError."""
        raise ModelError(
            "is a checkpoint, which vLLM does not read", where=file.parent.name,
            accepted="the finished model, or checkpoints by --engine torch",
        )  # fmt: skip

    def forget(self, adapter: str) -> bool:
        """Let the server forget an adapter, unless an answer is being written with it."""
        if self.asked[adapter]:
            return False
        name = self._names.pop(adapter, None)
        if name is not None:
            self.post(f"{self.url}/v1/unload_lora_adapter", {"lora_name": name})
        return True

    def weigh(self, ids: Sequence[int], adapter: str, num_top: int) -> list[Piece]:
        """How likely each of these tokens but the first is after those before it."""
        if len(ids) < 2:
            return []
        body = self._body(Asked(ids, 1, adapter=adapter)) | {"prompt_logprobs": num_top}
        (choice,) = self.post(f"{self.url}/v1/completions", body)["choices"]
        found = []
        for token, weighed in zip(ids[1:], choice["prompt_logprobs"][1:], strict=True):
            by_rank = sorted(weighed.items(), key=lambda item: item[1]["rank"])
            top = tuple((int(other), float(told["logprob"])) for other, told in by_rank)
            found.append(Piece(token, float(weighed[str(token)]["logprob"]), top[:num_top]))
        return found

    def stream(self, asked: Asked) -> Stream:
        """A completion of token ids, in events."""
        body = self._body(asked) | {"stream": True, "return_token_ids": True}
        return _Stream(f"{self.url}/v1/completions", body, asked.num_logprobs)

    def _body(self, asked: Asked) -> dict[str, Any]:
        choosing = asked.choosing
        body: dict[str, Any] = {
            "model": self._names[asked.adapter] if asked.adapter else self._base,
            "prompt": list(asked.ids),
            "add_special_tokens": False,
            "max_tokens": asked.max_new_tokens,
            "temperature": choosing.temperature,
            "top_p": choosing.top_p,
            # A model's own defaults would count otherwise.
            "top_k": 0,
            "min_p": 0.0,
            "repetition_penalty": 1.0,
            "frequency_penalty": choosing.frequency_penalty,
            "presence_penalty": choosing.presence_penalty,
            "stop_token_ids": sorted(asked.stop_ids),
            "return_tokens_as_token_ids": True,
        }
        if choosing.seed is not None:
            body["seed"] = choosing.seed
        if choosing.logit_bias:
            body["logit_bias"] = {str(token): bias for token, bias in choosing.logit_bias.items()}
        if choosing.form:
            body["structured_outputs"] = {"grammar": choosing.form}
        if asked.num_logprobs is not None:
            body["logprobs"] = asked.num_logprobs
        return body

    def _cards(self) -> list[dict[str, Any]]:
        return list(self.get(f"{self.url}/v1/models")["data"])

    def _served(self, source: str, folder: Path) -> tuple[str, int]:
        """Name of the model there, and its context. Raises ConfigError where it is another one."""
        bases = [card for card in self._cards() if not card.get("parent")]
        for card in bases:
            if {card["id"], card.get("root")} & {source, str(folder)}:
                return str(card["id"]), int(card.get("max_model_len") or 2**20)
        served = ", ".join(str(card.get("root") or card["id"]) for card in bases)
        raise ConfigError(
            f"serves {served or 'nothing'}, and not {source}", where=self.url,
            accepted=f"a vLLM that was started as: vllm serve {source} --enable-lora",
        )  # fmt: skip


def _likeliest(top: dict[str, float], count: int) -> tuple[tuple[int, float], ...]:
    ordered = sorted(top.items(), key=lambda item: -item[1])
    return tuple((int(name.removeprefix(MARK)), logprob) for name, logprob in ordered[:count])
