"""The official Python SDK 1.x (legacy era) against an MCP URL; prints what it saw as JSON.

usage: python python-1.py URL KEY ERA TOOL ARGUMENTS
"""

import asyncio
import json
import sys

from mcp import ClientSession
from mcp.client.streamable_http import streamablehttp_client


async def main(url: str, key: str, _era: str, tool: str, arguments: str) -> None:
    headers = {"Authorization": f"Bearer {key}"}
    async with streamablehttp_client(url, headers=headers) as (read, write, _):
        async with ClientSession(read, write) as session:
            await session.initialize()
            tools = [t.name for t in (await session.list_tools()).tools]
            result = await session.call_tool(tool, json.loads(arguments))
            content = [block.model_dump(mode="json") for block in result.content]
    print(json.dumps({"tools": tools, "content": content}))


asyncio.run(main(*sys.argv[1:]))
