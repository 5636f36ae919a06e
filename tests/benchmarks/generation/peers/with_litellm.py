"""The workload with litellm and nothing around it: asyncio, a semaphore, litellm's own retries.

Keeps nothing, so a killed run begins anew.
"""

import asyncio

import litellm
from workload import DOCUMENT, IDEA, MODEL, SYSTEM, TOKENS, TRAITS, fill, read_workload, tell

RETRIES = 10


async def main() -> None:
    work = read_workload()
    slots = asyncio.Semaphore(work.concurrency)

    async def ask(system: str, prompt: str) -> str:
        async with slots:
            answer = await litellm.acompletion(
                model=f"openai/{MODEL}",
                api_base=work.url,
                messages=[{"role": "system", "content": system}, {"role": "user", "content": prompt}],
                max_tokens=TOKENS,
                num_retries=RETRIES,
            )
            return str(answer.choices[0].message.content)

    async def row(topic: str) -> str:
        idea = await ask(SYSTEM, fill(IDEA, topic=topic))
        document = await ask(SYSTEM, fill(DOCUMENT, idea=idea))
        return await ask(TRAITS, fill(work.response, document=document))

    texts = await asyncio.gather(*map(row, work.topics), return_exceptions=True)
    tell(sum(isinstance(text, str) and bool(text) for text in texts))


asyncio.run(main())
