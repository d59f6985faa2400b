"""A FastAPI service as tutorials show it: POST /orders appends to a stream, and workers in the same process, started
and stopped by its lifespan, handle what is there. Served by uvicorn on a port of its own."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import redis.asyncio
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from redis.exceptions import RedisError, ResponseError

from cases import by_stream

STREAM, GROUP = "orders:stream", "order-workers"
WORKERS = 3


class Order(BaseModel):
    orderId: str
    item: str
    quantity: int = Field(ge=1)


def application(client: redis.asyncio.Redis) -> FastAPI:
    async def work(consumer: str) -> None:
        while True:
            try:
                reply = await client.xreadgroup(GROUP, consumer, {STREAM: ">"}, count=5, block=1000)
                for entries in by_stream(reply).values():
                    await handle(entries)
                # What another worker, or this one, was given by a reply that got lost.
                if not reply:
                    await handle((await client.xautoclaim(STREAM, GROUP, consumer, 1000, "0-0"))[1])
            except RedisError:
                app.state.failures += 1
                await asyncio.sleep(0.1)

    async def handle(entries: list) -> None:
        for entry_id, fields in entries:
            app.state.processed.append(json.loads(fields["data"])["orderId"])
            await client.xack(STREAM, GROUP, entry_id)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        try:
            await client.xgroup_create(STREAM, GROUP, id="0", mkstream=True)
        except ResponseError as error:
            if not str(error).startswith("BUSYGROUP"):
                raise
        tasks = [asyncio.create_task(work(f"worker-{n}")) for n in range(WORKERS)]
        yield
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await client.aclose()

    app = FastAPI(lifespan=lifespan)
    app.state.client = client
    app.state.processed = []
    app.state.failures = 0

    @app.exception_handler(RedisError)
    async def unavailable(_: Request, error: RedisError) -> JSONResponse:
        app.state.failures += 1
        return JSONResponse({"detail": str(error)}, status_code=503)

    @app.post("/orders", status_code=201)
    async def create_order(order: Order) -> dict:
        message_id = await client.xadd(STREAM, {"data": order.model_dump_json()}, maxlen=10_000, approximate=True)
        return {"status": "queued", "messageId": message_id}

    @app.get("/orders/history")
    async def history(count: int = 10, start: str = "-", end: str = "+") -> list[dict]:
        entries = await client.xrange(STREAM, min=start, max=end, count=count)
        return [{"id": entry_id, **json.loads(fields["data"])} for entry_id, fields in entries]

    @app.get("/stream/info")
    async def info() -> dict:
        [group] = await client.xinfo_groups(STREAM)
        return {"length": await client.xlen(STREAM), **group}

    return app


@asynccontextmanager
async def serving(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """Serves the application, and hands out a client of it."""
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="warning"))
    task = asyncio.create_task(server.serve())
    while not server.started:
        # Ends if the server does.
        await asyncio.wait([task], timeout=0.01)
        if task.done():
            raise RuntimeError(f"uvicorn did not start: {task.exception()}")
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30, trust_env=False) as client:
            yield client
    finally:
        server.should_exit = True
        await task
