"""A WebSocket gets through nginx as we set it up, message by message, and not through one that knows nothing of it."""

import asyncio

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus

from tests.contract.runs import Stage, Written
from tests.networks.proxies import nginx
from tests.networks.reading import begun, one_by_one
from tests.serving import DEADLINE_S

pytestmark = pytest.mark.program("nginx")


def connecting(stage: Stage, address: str, run: Written, after: int = 0, **headers: str) -> connect:
    """A connection to be, through the proxy."""
    url = address.replace("http", "ws", 1) + f"/v1/runs/{run.run_id}/ws?after={after}"
    key = {"Authorization": f"Bearer {stage.api.key()}"}
    return connect(url, additional_headers={**key, **headers}, proxy=None)


async def rest_of(connection: ClientConnection) -> list[bytes]:
    return [str(message).encode() async for message in connection]


@pytest.mark.parametrize("way", ["ours", "ours in a compressing nginx"])
async def test_each_message_passes_before_the_next_event_is_stored(stage: Stage, way: str) -> None:
    run, read = await begun(stage), list[bytes]()
    with nginx(way, stage.api.address) as (address, _):
        async with asyncio.timeout(DEADLINE_S), connecting(stage, address, run) as connection:

            async def confirmed(count: int) -> None:
                read.append(str(await connection.recv()).encode())
                assert len(read) == count

            await one_by_one(run, confirmed)
            assert await rest_of(connection) == []
        assert connection.close_code == 1000
        async with connecting(stage, address, run, after=2) as returned:
            assert await rest_of(returned) == read[2:]
    assert read == await stage.expected(run.run_id, "user")


async def test_a_page_of_the_proxys_own_origin_may_connect(stage: Stage) -> None:
    run = await begun(stage)
    with nginx("ours", stage.api.address) as (address, _):
        async with connecting(stage, address, run, Origin=address) as connection:
            await connection.recv()


async def test_nginx_as_it_comes_lets_no_websocket_through(stage: Stage) -> None:
    run = await begun(stage)
    with nginx("bare", stage.api.address) as (address, _), pytest.raises(InvalidStatus) as refused:
        await connecting(stage, address, run)
    assert 400 <= refused.value.response.status_code < 500
