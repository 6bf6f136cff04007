"""/v1/embeddings, and /v1/classify, which is ours: vectors and labels of texts."""

import base64
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import APIRouter
from pydantic import BaseModel, Field, StringConstraints

from luthier.pipeline.readers import Texts
from luthier.server.access import Asker
from luthier.server.answering import source_of
from luthier.server.errors import ApiError, no_model
from luthier.server.wire import Wire

MOST_TEXTS = 2048

Word = Annotated[str, StringConstraints(min_length=1)]
Ids = Annotated[list[Annotated[int, Field(ge=0, lt=2**31)]], Field(min_length=1)]

router = APIRouter()


class TextRequest(BaseModel):
    """Texts for a model that reads them."""

    model: str
    input: (
        Word
        | Ids
        | Annotated[list[Word], Field(min_length=1, max_length=MOST_TEXTS)]
        | Annotated[list[Ids], Field(min_length=1, max_length=MOST_TEXTS)]
    )

    def texts(self, model: Texts) -> tuple[list[str], int]:
        """Each of them, and their tokens."""
        given: list[Any] = [self.input] if isinstance(self.input, str) else self.input
        if isinstance(given[0], int):
            given = [given]
        ids = [model.ids(one) if isinstance(one, str) else one for one in given]
        texts = [one if isinstance(one, str) else model.text(one) for one in given]
        return texts, sum(map(len, ids))


class EmbeddingRequest(TextRequest):
    """The body of a request for vectors."""

    encoding_format: Literal["float", "base64"] = "float"
    dimensions: Annotated[int, Field(ge=1)] | None = None
    input_type: Literal["query", "passage"] = "query"
    """Ours: whether the texts are asked with, or to be found."""


def _open(caller: Asker, name: str) -> Texts:
    source, kind = source_of(caller, name)
    if caller.readers is None:
        raise no_model(name)
    if kind == "write":
        raise ApiError(400, f"{name} writes answers; ask it by chats.", param="model")
    return caller.readers.open(source)


@router.post("/embeddings")
def embed(body: EmbeddingRequest, caller: Asker) -> Wire:
    """Vectors of texts."""
    model = _open(caller, body.model)
    texts, num_tokens = body.texts(model)
    vectors = model.embed(texts, as_passages=body.input_type == "passage").astype("<f4")
    if body.dimensions is not None:
        if body.dimensions > vectors.shape[1]:
            message = f"The model's vectors have {vectors.shape[1]} dimensions."
            raise ApiError(400, message, param="dimensions")
        vectors = vectors[:, : body.dimensions]
        vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True).clip(1e-12)
    return {
        "object": "list", "model": body.model,
        "data": [
            {"object": "embedding", "index": i, "embedding": _written(vector, body)}
            for i, vector in enumerate(vectors)
        ],
        "usage": {"prompt_tokens": num_tokens, "total_tokens": num_tokens},
    }  # fmt: skip


def _written(vector: Any, body: EmbeddingRequest) -> str | list[float]:
    if body.encoding_format == "base64":
        return base64.b64encode(vector.tobytes()).decode()
    return [float(value) for value in vector]


@router.post("/classify")
def classify(body: TextRequest, caller: Asker) -> Wire:
    """Labels of texts, with the probability of each."""
    model = _open(caller, body.model)
    texts, num_tokens = body.texts(model)
    found = model.label(texts)
    names = model.answering.names if model.answering else ()
    return {
        "object": "list", "model": body.model,
        "data": [
            {
                "object": "classification", "index": i, "labels": list(one.labels),
                "number": one.value,
                "probabilities": dict(zip(names, one.probabilities, strict=False)),
            }
            for i, one in enumerate(found)
        ],
        "usage": {"prompt_tokens": num_tokens, "total_tokens": num_tokens},
    }  # fmt: skip
