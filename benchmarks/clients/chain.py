"""LangChain's chat and vectors: an answer, a stream, a tool, an object. MODEL VECTORS"""

import sys
from importlib.metadata import version

from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from pydantic import BaseModel


class Light(BaseModel):
    """A light."""

    room: str
    on: bool


@tool
def switch(room: str, on: bool) -> str:
    """Switch a light."""
    return f"{room}: {on}"


model, vectors = sys.argv[1:]
chat = ChatOpenAI(model=model, temperature=0, max_tokens=64)
asked = "Turn on the light in the kitchen."
whole = chat.invoke(asked)
print(f"langchain-openai {version('langchain-openai')}: {whole.content[:40]!r}, "
      f"{whole.usage_metadata['total_tokens']} tokens")  # fmt: skip
streamed = "".join(part.content for part in chat.stream(asked))
print(f"streamed alike: {streamed == whole.content}")
print(f"call: {chat.bind_tools([switch], tool_choice='any').invoke(asked).tool_calls[0]['args']}")
print(f"object: {chat.with_structured_output(Light, method='json_schema').invoke(asked)!r}")
# Else it sends ids of OpenAI's tokens, which no other model knows.
reads = OpenAIEmbeddings(model=vectors, check_embedding_ctx_length=False)
found = reads.embed_documents(["a lamp", "a light", "the weather"])
alike = [sum(a * b for a, b in zip(found[0], one, strict=True)) for one in found]
print(f"vectors: {len(found)} of {len(found[0])}, alike {[round(one, 2) for one in alike]}")
