"""The WebSocket front: who is let in, what is said upstream and answered, and how a connection ends."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
import structlog
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from eventstore.domain.disclosure import Role
from eventstore.domain.events import Escalation, new_event
from tests.contract.runs import ENDS, Stage, Written
from tests.serving import DEADLINE_S, until
from tests.writing import NOW_US, started, token

RUN = [new_event(body, NOW_US) for body in (started(), token("a"), token("b"))]
END = [new_event(ENDS["result"], NOW_US)]
NO_KEY = "rw_0123456789abcdef_" + "0" * 64


def address(stage: Stage, run_id: object, after: object = None) -> str:
    own = stage.api.address.replace("http", "ws", 1) + f"/v1/runs/{run_id}/ws"
    return own if after is None else f"{own}?after={after}"


@asynccontextmanager
async def talking(
    stage: Stage, run_id: object, after: object = None, role: Role = "user", **more: Any
) -> AsyncIterator[ClientConnection]:
    headers = {"Authorization": f"Bearer {stage.api.key(role)}", **more.pop("headers", {})}
    async with (
        asyncio.timeout(DEADLINE_S),
        connect(address(stage, run_id, after), additional_headers=headers, compression=None, **more) as connection,
    ):
        yield connection


async def asked(connection: ClientConnection, message: object) -> Any:
    """What the server says for itself after this; events on the way are passed over."""
    await connection.send(message if isinstance(message, str | bytes) else json.dumps(message))
    return await own(connection)


async def own(connection: ClientConnection) -> Any:
    while "seq" in (told := json.loads(await connection.recv())):
        pass
    return told


async def closed(connection: ClientConnection) -> tuple[int | None, Any]:
    """How it ends, and the problem that was told last."""
    last = None
    try:
        while True:
            told = json.loads(await connection.recv())
            last = told if "seq" not in told else last
    except ConnectionClosed:
        return connection.close_code, last


async def running(stage: Stage) -> Written:
    run = await stage.begin(RUN + END)
    await run.write(3)
    return run


async def ended(stage: Stage) -> Written:
    run = await stage.begin(RUN + END)
    await run.write()
    return run


# --- beginning and end


async def test_a_socket_closes_with_1000_after_the_terminal_event_and_at_once_for_whoever_has_it(stage: Stage) -> None:
    run = await ended(stage)
    async with talking(stage, run.run_id) as connection:
        assert [json.loads(message)["seq"] async for message in connection] == [1, 2, 3, 4, 5]
        assert connection.close_code == 1000
    async with talking(stage, run.run_id, after=5) as connection:
        assert await closed(connection) == (1000, None)


async def test_another_implementation_reads_the_same_bytes(stage: Stage) -> None:
    run = await ended(stage)
    headers = {"Authorization": f"Bearer {stage.api.key()}"}
    async with (
        asyncio.timeout(DEADLINE_S),
        aiohttp.ClientSession() as session,
        session.ws_connect(address(stage, run.run_id), headers=headers, compress=15) as connection,
    ):
        assert connection.compress == 0, "drafts and secrets must not be compressed together"
        assert [message.data.encode() async for message in connection] == await stage.expected(run.run_id, "user")
        assert connection.close_code == 1000


async def test_a_page_sends_its_key_as_the_first_message(stage: Stage) -> None:
    run = await ended(stage)
    async with asyncio.timeout(DEADLINE_S), connect(address(stage, run.run_id, 3)) as connection:
        await connection.send(json.dumps({"type": "auth", "key": stage.api.key()}))
        assert [json.loads(message)["seq"] async for message in connection] == [4, 5]


@pytest.mark.parametrize(
    "first",
    [
        {"type": "auth", "key": NO_KEY},
        {"type": "auth", "key": 5},
        {"type": "auth"},
        {"type": "ping"},
        {"type": "auth", "key": NO_KEY, "more": 1},
    ],
)
async def test_without_a_good_key_the_socket_closes_with_4401_and_says_why(stage: Stage, first: object) -> None:
    run = await ended(stage)
    async with asyncio.timeout(DEADLINE_S), connect(address(stage, run.run_id)) as connection:
        await connection.send(json.dumps(first))
        code, told = await closed(connection)
    assert (code, told["type"], told["problem"]["code"]) == (4401, "problem", "not-authenticated")
    async with talking(stage, run.run_id, headers={"Authorization": f"Bearer {NO_KEY}"}) as connection:
        assert (await closed(connection))[0] == 4401


async def test_a_key_in_the_address_is_no_key(stage: Stage) -> None:
    run = await ended(stage)
    with_key = address(stage, run.run_id) + f"?key={stage.api.key()}&access_token={stage.api.key()}"
    async with asyncio.timeout(DEADLINE_S), connect(with_key) as connection:
        await connection.send("{}")
        assert (await closed(connection))[0] == 4401


@pytest.mark.parametrize(
    ("after", "problem"),
    [("x", "bad-request"), ("-1", "bad-request"), ("6", "bad-cursor"), ("9" * 30, "bad-request"), ("", "bad-request")],
)
async def test_a_cursor_that_is_no_place_in_the_log_closes_with_4400(stage: Stage, after: str, problem: str) -> None:
    run = await ended(stage)
    async with talking(stage, run.run_id, after) as connection:
        closing, told = await closed(connection)
    assert (closing, told["problem"]["code"]) == (4400, problem)


async def test_somebody_elses_run_and_none_at_all_close_alike(stage: Stage) -> None:
    run = await ended(stage)
    ends = []
    for key, run_id in (
        (stage.api.key("user", "eve"), run.run_id),
        (stage.api.key("officer", "eve", "other"), run.run_id),
        (stage.api.key(), "00000000-0000-7000-8000-000000000000"),
        (stage.api.key(), "nonsense"),
    ):
        async with talking(stage, run_id, headers={"Authorization": f"Bearer {key}"}) as connection:
            code, told = await closed(connection)
        ends.append((code, told["problem"]["code"], told["problem"]["detail"]))
    assert set(ends) == {(4404, "run-not-found", ends[0][2])}


async def test_pages_of_other_origins_are_not_let_in_and_our_own_are(stage: Stage) -> None:
    run = await ended(stage)
    host = stage.api.address.removeprefix("http://")
    for origin in (f"http://{host}", f"https://{host}", None):
        async with talking(stage, run.run_id, origin=origin) as connection:
            assert await closed(connection) == (1000, None)
    for origin in ("http://example.com", f"http://{host}.example.com", "null", f"ftp://{host}", host, f"x{host}", ""):
        with pytest.raises(InvalidStatus) as refused:
            async with talking(stage, run.run_id, headers={"Origin": origin}):
                pass
        assert refused.value.response.status_code == 403
        assert json.loads(refused.value.response.body or b"")["code"] == "foreign-origin"


async def test_a_client_that_names_our_protocol_gets_it(stage: Stage) -> None:
    run = await ended(stage)
    async with talking(stage, run.run_id, subprotocols=["other", "runwire.v1"]) as connection:
        assert connection.subprotocol == "runwire.v1"


async def test_where_no_socket_is_served_the_handshake_is_answered_with_a_problem(stage: Stage) -> None:
    for path in ("/v1/runs", "/v1/nothing", "/"):
        with pytest.raises(InvalidStatus) as refused:
            async with connect(stage.api.address.replace("http", "ws", 1) + path):
                pass
        assert refused.value.response.status_code == 404
        assert json.loads(refused.value.response.body or b"")["code"] == "not-found"


async def test_a_plain_request_is_told_that_this_address_speaks_websocket(stage: Stage) -> None:
    async with stage.api.client() as client:
        answer = await client.get("/v1/runs/x/ws")
        broken = await client.get("/v1/runs/x/ws", headers={"Connection": "Upgrade", "Upgrade": "websocket"})
        posted = await client.post("/v1/runs/x/ws", headers={"Connection": "Upgrade", "Upgrade": "websocket"})
    assert (answer.status_code, answer.headers["upgrade"], answer.json()["code"]) == (
        426,
        "websocket",
        "upgrade-required",
    )
    assert (broken.status_code, broken.json()["code"]) == (400, "bad-request")
    assert (posted.status_code, posted.json()["code"]) == (400, "bad-request")


async def test_when_the_process_stops_sockets_close_with_1012_on_an_event_boundary(stage: Stage) -> None:
    run = await running(stage)
    async with talking(stage, run.run_id) as connection:
        assert [json.loads(await connection.recv())["seq"] for _ in range(4)] == [1, 2, 3, 4]
        stage.api.service.waits.drain()
        assert await closed(connection) == (1012, None)
        stage.api.service.waits.draining = False
    await run.write()
    async with talking(stage, run.run_id, after=4) as connection:
        assert [json.loads(message)["seq"] async for message in connection] == [5]


async def test_a_reader_who_leaves_is_forgotten(stage: Stage) -> None:
    run = await running(stage)
    before = len(stage.api.service.waits)
    for politely in (True, False):
        async with talking(stage, run.run_id) as connection:
            await connection.recv()
            assert len(stage.api.service.waits) == before + 1
            if not politely:
                connection.transport.abort()
        await until(lambda: len(stage.api.service.waits) == before)


# --- upstream


async def test_a_ping_is_answered_with_its_name(stage: Stage) -> None:
    run = await running(stage)
    async with talking(stage, run.run_id) as connection:
        assert await asked(connection, {"type": "ping"}) == {"type": "pong"}
        assert await asked(connection, {"type": "ping", "id": "é1"}) == {"type": "pong", "id": "é1"}


@pytest.mark.parametrize(
    "message",
    [
        "", "x", "[]", "5", "null", '"ping"', "{", "[" * 100_000, '{"type":"ping","type":"ping"}',
        '{"type":"ping","a":NaN}',
        "{}", '{"type":5}', '{"type":"PING"}', '{"type":"auth","key":"x"}', '{"type":"result","final":true}',
        '{"type":"ping","more":1}', '{"type":"ping","id":5}', '{"type":"ping","id":"' + "x" * 65 + '"}',
        '{"type":["cancel"]}', '{"type":"ping","id":"\\ud800"}', '{"type":"ping","id":"\\u0000"}',
        '{"type":"cancel","reason":5}', '{"type":"cancel","reason":"' + "x" * 501 + '"}', '{"type":"cancel","why":"x"}',
        '{"type":"decision"}', '{"type":"decision","escalation":1,"seen":{}}', b"\x00\xff", b'{"type":"ping"}',
    ],
)  # fmt: skip
async def test_a_bad_message_is_told_what_is_wrong_and_ends_nothing(stage: Stage, message: str | bytes) -> None:
    run = await running(stage)
    async with talking(stage, run.run_id) as connection:
        told = await asked(connection, message)
        assert told["type"] == "problem"
        assert 400 <= told["problem"]["status"] < 500, told
        assert {"errors", "allowed"} & set(told["problem"]) or told["problem"]["detail"]
        assert await asked(connection, {"type": "ping", "id": "still here"}) == {"type": "pong", "id": "still here"}


async def test_a_message_of_no_known_type_is_told_the_types(stage: Stage) -> None:
    run = await running(stage)
    async with talking(stage, run.run_id) as connection:
        told = await asked(connection, {"type": "resume", "id": "a"})
    assert told["id"] == "a"
    assert told["problem"]["allowed"] == ["ping", "cancel", "decision"]


async def test_a_run_is_cancelled_as_by_its_route(stage: Stage) -> None:
    run = await running(stage)
    async with talking(stage, run.run_id) as connection, stage.api.client() as client:
        told = await asked(connection, {"type": "cancel", "id": "c1", "reason": "enough"})
        assert (told["type"], told["to"], told["id"], told["status"]) == ("answer", "cancel", "c1", 202)
        assert told["body"]["status"] == "stopping"
        same = await client.post(f"/v1/runs/{run.run_id}/cancel", json={"reason": "enough"})
        assert (same.status_code, same.json()) == (202, told["body"])
        envelopes = (await client.get(f"/v1/runs/{run.run_id}/events", headers={"Accept": "application/json"})).json()
    [requested] = [one for one in envelopes["events"] if one["type"] == "cancel_requested"]
    assert requested["data"]["reason"] == "enough"


async def test_who_may_not_stop_a_run_may_not_stop_it_here(stage: Stage) -> None:
    run = await running(stage)
    async with talking(stage, run.run_id, role="officer") as connection:
        told = await asked(connection, {"type": "cancel"})
        assert (told["to"], told["problem"]["code"]) == ("cancel", "not-allowed")
        assert await asked(connection, {"type": "ping"}) == {"type": "pong"}


async def test_a_question_is_answered_as_by_its_route(stage: Stage) -> None:
    question = Escalation(
        name="risk", question="Go on?", choices=["yes", "no"], to="reviewer", wait_s=60.0, key="k", place=0, args="00"
    )
    run = await stage.begin([*RUN, new_event(question, NOW_US)])
    await run.write()
    async with talking(stage, run.run_id) as connection, stage.api.client() as client:
        seen = (await client.get(f"/v1/runs/{run.run_id}")).json()["seen"]
        said = {"escalation": 5, "choice": "yes", "seen": seen}
        wrong = await asked(connection, {"type": "decision", "id": "d0", **said, "choice": "perhaps"})
        assert (wrong["to"], wrong["id"]) == ("decision", "d0")
        assert wrong["problem"]["errors"][0]["pointer"] == "/choice"
        told = await asked(connection, {"type": "decision", "id": "d1", **said})
        assert (told["type"], told["id"], told["status"]) == ("answer", "d1", 202)
        again = await client.post(f"/v1/runs/{run.run_id}/decisions", json=said)
        assert (again.status_code, again.json()["decision"]) == (200, told["body"]["decision"])
        late = await asked(connection, {"type": "decision", **said, "choice": "no"})
        assert (late["problem"]["status"], late["problem"]["code"]) == (409, "moved-on")


async def test_a_message_that_is_too_large_or_no_text_closes_the_socket(stage: Stage) -> None:
    run = await running(stage)
    most = stage.api.service.settings.request_bytes_max
    async with talking(stage, run.run_id) as connection:
        await connection.send("x" * (most + 1))
        assert (await closed(connection))[0] == 1009
    async with talking(stage, run.run_id) as connection:
        await connection.send([b"x" * 100_000] * 5)  # in pieces
        assert (await closed(connection))[0] == 1009
    async with talking(stage, run.run_id) as connection:
        await connection.send(b"\xff\xfe", text=True)
        assert (await closed(connection))[0] == 1007
    async with talking(stage, run.run_id) as connection:
        assert await asked(connection, "x" * most) is not None


async def test_pongs_that_nobody_takes_do_not_pile_up(stage: Stage) -> None:
    run = await running(stage)
    handshake = (
        f"GET /v1/runs/{run.run_id}/ws HTTP/1.1\r\nHost: x\r\nX-API-Key: {stage.api.key()}\r\nConnection: Upgrade\r\n"
        "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    )
    host, port = stage.api.address.removeprefix("http://").split(":")
    plain = socket.socket()
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    plain.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(plain, (host, int(port)))
    await loop.sock_sendall(plain, handshake.encode())
    sockets = stage.api.server.server_state.connections
    await until(lambda: any(hasattr(one, "hold") for one in sockets))
    [own] = [one for one in sockets if hasattr(one, "hold")]
    ping, largest = b"\x89\xfd\0\0\0\0" + b"p" * 125, 0
    async with asyncio.timeout(DEADLINE_S):
        for _ in range(120):  # 16 MB of them
            await loop.sock_sendall(plain, ping * 1_000)
            largest = max(largest, own.transport.get_write_buffer_size())
    plain.close()
    assert 0 < largest < 1_000_000


async def test_silence_is_filled_with_pings(stage: Stage) -> None:
    run = await running(stage)
    async with talking(stage, run.run_id, after=4, ping_interval=None) as connection:
        heard: list[bytes] = []
        received = connection.protocol.recv_frame

        def watched(frame: Any) -> None:
            if frame.opcode.name == "PING":
                heard.append(bytes(frame.data))
            received(frame)

        connection.protocol.recv_frame = watched  # type: ignore[method-assign]
        await until(lambda: len(heard) >= 2)
        assert await asked(connection, {"type": "ping"}) == {"type": "pong"}


async def test_a_socket_is_counted_and_leaves_a_line_without_key_or_query(stage: Stage) -> None:
    run = await ended(stage)
    with structlog.testing.capture_logs() as logs:
        async with asyncio.timeout(DEADLINE_S), connect(address(stage, run.run_id, 3)) as connection:
            await connection.send(json.dumps({"type": "auth", "key": stage.api.key()}))
            await closed(connection)
        await until(lambda: logs)
    [line] = [line for line in logs if line["event"] == "websocket"]
    assert (line["path"], line["close"]) == (f"/v1/runs/{run.run_id}/ws", 1000)
    assert line["key_id"] == stage.api.key().split("_")[1]
    assert stage.api.key().rpartition("_")[2] not in str(logs)
    assert "after" not in str(logs)
    async with stage.api.client() as client:
        figures = (await client.get("/metrics")).text.splitlines()
    [count] = [one for one in figures if 'front="ws"' in one and 'outcome="ended"' in one]
    assert float(count.split()[-1]) >= 1
