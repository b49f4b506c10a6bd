"""Calls a tool over and over with the official Python SDK (1.x or 2.x), one call after the other, whatever fails.

usage: python caller.py URL KEY legacy|modern TOOL ARGUMENTS CALLS

Prints a line of JSON for each call, in milliseconds since 1970: {"began": .., "ended": .., "error": null or text}.
A call that failed is followed by a new session: what the SDK leaves of the old one depends on its version.
"""

import asyncio
import contextlib
import json
import logging
import sys
import time
from datetime import timedelta

logging.disable(logging.CRITICAL)
PATIENCE = 20


@contextlib.asynccontextmanager
async def session_of_1(url, key, _era):
    from mcp import ClientSession
    from mcp.client.streamable_http import streamablehttp_client

    async with streamablehttp_client(url, headers={"Authorization": f"Bearer {key}"}) as (read, write, _):
        async with ClientSession(read, write, read_timeout_seconds=timedelta(seconds=PATIENCE)) as session:
            await session.initialize()
            yield session


@contextlib.asynccontextmanager
async def session_of_2(url, key, era):
    import httpx2
    from mcp.client import Client
    from mcp.client.streamable_http import streamable_http_client

    mode = "2026-07-28" if era == "modern" else "legacy"
    async with httpx2.AsyncClient(headers={"Authorization": f"Bearer {key}"}, timeout=60) as http:
        async with Client(streamable_http_client(url, http_client=http), mode=mode) as client:
            yield client


def session(url, key, era):
    try:
        from mcp.client import Client  # noqa: F401
    except ImportError:
        return session_of_1(url, key, era)
    return session_of_2(url, key, era)


def why(error):
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return f"{type(error).__name__}: {error}"


async def main(url, key, era, tool, arguments, calls):
    arguments, left = json.loads(arguments), int(calls)
    began = time.time()

    def done(error):
        nonlocal left
        left -= 1
        print(json.dumps({"began": int(began * 1000), "ended": int(time.time() * 1000), "error": error}), flush=True)

    while left:
        began = time.time()
        try:
            async with session(url, key, era) as open_session:
                while left:
                    began = time.time()
                    async with asyncio.timeout(PATIENCE):
                        result = await open_session.call_tool(tool, arguments)
                    failed = getattr(result, "is_error", None) or getattr(result, "isError", None)
                    done(str(result.content) if failed else None)
        except (Exception, asyncio.CancelledError) as error:
            if left:
                done(why(error))


asyncio.run(main(*sys.argv[1:]))
