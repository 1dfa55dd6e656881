"""Answers in gzip: for whom asks for it, and where it is worth it."""

import gzip

import pytest
from starlette.requests import Request

from api.pressing import ASIDE_BYTES, pressed, takes_gzip


@pytest.mark.parametrize(
    ("accepted", "takes"),
    [
        ("gzip", True),
        ("gzip, deflate, br", True),
        ("br;q=1.0, GZIP;q=0.5", True),
        ("*", True),
        ("", False),
        ("identity", False),
        ("gzip;q=0", False),
        ("gzip;q=0.000, *", False),
        ("*;q=0, gzip", True),
        ("br, *;q=0", False),
        ("notgzip", False),
        ("gzip;q=many", False),
    ],
)
def test_who_takes_gzip(accepted: str, takes: bool) -> None:
    assert takes_gzip(accepted) is takes


def asking(accepted: str) -> Request:
    return Request({"type": "http", "headers": [(b"accept-encoding", accepted.encode())]})


@pytest.mark.parametrize("size", [4_096, ASIDE_BYTES + 1])
async def test_a_large_answer_is_smaller_and_the_same(size: int) -> None:
    body = b"x" * size
    answer = await pressed(asking("gzip"), body, {"ETag": "e"}, 4_096)
    assert (answer.headers["content-encoding"], answer.headers["etag"]) == ("gzip", "e")
    assert gzip.decompress(bytes(answer.body)) == body
    assert int(answer.headers["content-length"]) == len(answer.body) < size


@pytest.mark.parametrize(("accepted", "size", "least"), [("gzip", 4_095, 4_096), ("br", 9_999, 1), ("gzip", 9_999, 0)])
async def test_otherwise_it_is_left_as_it_is(accepted: str, size: int, least: int) -> None:
    answer = await pressed(asking(accepted), b"x" * size, {}, least)
    assert "content-encoding" not in answer.headers
    assert answer.body == b"x" * size


async def test_what_does_not_get_smaller_is_left_as_it_is() -> None:
    answer = await pressed(asking("gzip"), b"{}", {}, 1)
    assert ("content-encoding" in answer.headers, answer.body) == (False, b"{}")
