"""The asynchronous client: many chats at once, streams, a wrong request. MODEL"""

import asyncio
import sys

import openai
from openai import AsyncOpenAI


async def main() -> None:
    """Ask."""
    (model,) = sys.argv[1:]
    async with AsyncOpenAI() as client:

        async def ask(number: int) -> str:
            stream = await client.chat.completions.create(
                model=model, max_tokens=8, temperature=0, stream=True,
                messages=[{"role": "user", "content": f"Count to {number}."}],
            )  # fmt: skip
            parts = [chunk.choices[0].delta.content or "" async for chunk in stream]
            return "".join(parts)

        texts = await asyncio.gather(*map(ask, range(2, 18)))
        print(f"openai {openai.__version__}, async: {len(texts)} streams, first {texts[0]!r}")
        print(f"models: {[one.id async for one in client.models.list()]}")
        jobs = [job.status async for job in client.fine_tuning.jobs.list(limit=2)]
        print(f"jobs, page by page: {jobs}")
        try:
            await client.chat.completions.create(model="none", messages=[])
        except openai.BadRequestError as error:
            print(f"a wrong request: {error.status_code} {error.param}")
        except openai.NotFoundError as error:
            print(f"a wrong request: {error.status_code} {error.code}")


asyncio.run(main())
