"""The official Python SDK 2.x in the era asked for; prints what it saw as JSON.

usage: python python-2.py URL KEY legacy|modern TOOL ARGUMENTS
"""

import asyncio
import json
import sys

import httpx2
from mcp.client import Client
from mcp.client.streamable_http import streamable_http_client


async def main(url: str, key: str, era: str, tool: str, arguments: str) -> None:
    mode = "2026-07-28" if era == "modern" else "legacy"
    async with httpx2.AsyncClient(headers={"Authorization": f"Bearer {key}"}, timeout=60) as http:
        async with Client(streamable_http_client(url, http_client=http), mode=mode) as client:
            tools = [t.name for t in (await client.list_tools()).tools]
            result = await client.call_tool(tool, json.loads(arguments))
            content = [block.model_dump(mode="json") for block in result.content]
    print(json.dumps({"tools": tools, "content": content}))


asyncio.run(main(*sys.argv[1:]))
