"""Checkpoints in a bucket: put once, locked, found again, and enough to notice a database that was rolled back."""

import asyncio
import datetime
import os
import random
import subprocess
import sys
from collections.abc import AsyncIterator
from itertools import count as numbers
from math import log2
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from botocore.exceptions import ClientError
from pydantic import ValidationError
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from eventstore import bucket, incarnation, sealing
from eventstore.bucket import Bucket
from eventstore.checkpoints import CheckpointStore, Directory, Forked, OutsideAway, OutsideRefuses, Several
from eventstore.settings import SealSettings
from ops import seals
from ops.exits import Complaint
from ops.services import Endpoints
from tests import buckets
from tests.buckets import SECRET, BucketServer
from tests.conftest import new_database
from tests.sealing import NAME, Desk, count, desk
from tests.tampering import backup, restore
from tests.waiting import until

_names = numbers()
KINDS: list[dict[str, Any]] = [
    {},
    {"checkpoint_bucket_lock": "governance", "checkpoint_bucket_lock_days": 3},
    {"checkpoint_bucket_lock": "compliance", "checkpoint_bucket_lock_days": 30},
]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def server() -> AsyncIterator[BucketServer]:
    made = await buckets.start()
    yield made
    buckets.stop(made)


@pytest.fixture
def database_url(services: Endpoints, template: str) -> str:
    """A database for each test: a log is sealed from its beginning."""
    return new_database(services, template)


@pytest_asyncio.fixture(loop_scope="session")
async def d(database_url: str, tmp_path: Path) -> AsyncIterator[Desk]:
    async with desk(database_url, tmp_path) as made:
        yield made


def note(size: int, root: str = "root") -> str:
    return f"log\n{size}\n{root}\n\n— key sig\n"


def new_name() -> str:
    return f"bucket-{next(_names)}"


def new(server: BucketServer, **more: Any) -> tuple[Bucket, SealSettings]:
    settings = server.settings(server.make(new_name(), lock="checkpoint_bucket_lock" in more), **more)
    return Bucket(settings, "log"), settings


@pytest.mark.parametrize("kind", KINDS, ids=["plain", "governance", "compliance"])
def test_notes_and_blocks_are_kept_under_names_that_sort_and_the_largest_is_the_latest(
    server: BucketServer, kind: dict[str, Any]
) -> None:
    store, settings = new(server, checkpoint_bucket_prefix="/a/b/", **kind)
    store.check()
    assert (store.latest(), store.checkpoint(1), store.block(1), list(store.sizes())) == (None, None, None, [])
    assert store.whole_to() == 0
    sizes = [1, 2, 999, 1000, 1_000_000]
    for size in sizes:
        store.keep_blocks({size: bytes([size % 251]), 10_000_000 + size: b"x" * 300_000})
        store.publish(size, note(size))
        assert (store.latest(), store.whole_to()) == (note(size), size)
    again = Bucket(settings, "log")
    assert list(again.sizes()) == sizes
    assert list(again.notes()) == [note(size) for size in sizes]
    assert [store.block(size) for size in (1, 999, 10_000_999)] == [b"\1", bytes([999 % 251]), b"x" * 300_000]
    keys = [each["Key"] for each in server.admin().list_objects_v2(Bucket=settings.checkpoint_bucket)["Contents"]]
    assert "a/b/log/checkpoints/000000000001000" in keys
    assert Bucket(settings, "another").latest() is None


@pytest.mark.parametrize("kind", KINDS, ids=["plain", "governance", "compliance"])
def test_the_same_again_changes_nothing_and_anything_else_is_refused(
    server: BucketServer, kind: dict[str, Any]
) -> None:
    store, settings = new(server, **kind)
    for _ in range(2):
        store.keep_blocks({1: b"a", 2: b"b"})
        store.publish(2, note(2))
    with pytest.raises(Forked, match=f"checkpoints/000000000000002 in the bucket {settings.checkpoint_bucket} holds"):
        store.publish(2, note(2, "another"))
    for conflict in ({2: b"x"}, {3: b"c", 2: b"x"}):
        with pytest.raises(Forked):
            store.keep_blocks(conflict)
    assert (store.latest(), store.block(2)) == (note(2), b"b")


def test_the_latest_is_found_in_few_questions_whatever_sizes_were_signed(
    server: BucketServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = random.Random(7)
    _, settings = new(server)
    asked: list[object] = []
    first_after = Bucket._first_after

    def counted(self: Bucket, kind: str, number: int | None) -> int | None:
        asked.append(number)
        return first_after(self, kind, number)

    monkeypatch.setattr(Bucket, "_first_after", counted)
    for case in range(12):
        store = Bucket(settings, f"log-{case}")
        sizes = sorted({chance.randint(1, 10 ** chance.randint(1, 7)) for _ in range(chance.randint(1, 25))})
        for size in sizes:
            store.publish(size, note(size))
        asked.clear()
        assert store.latest() == note(sizes[-1])
        assert len(asked) <= 2 * log2(sizes[-1]) + 6


@pytest.mark.parametrize("kind", KINDS[1:], ids=["governance", "compliance"])
def test_a_locked_object_cannot_be_removed_and_says_until_when(server: BucketServer, kind: dict[str, Any]) -> None:
    store, settings = new(server, **kind)
    store.keep_blocks({1: b"a"})
    store.publish(1, note(1))
    admin, name = server.admin(), settings.checkpoint_bucket
    found = admin.list_object_versions(Bucket=name)["Versions"]
    assert len(found) == 2
    for each in found:
        place = {"Bucket": name, "Key": each["Key"], "VersionId": each["VersionId"]}
        told = admin.head_object(**place)
        assert told["ObjectLockMode"] == kind["checkpoint_bucket_lock"].upper()
        left = told["ObjectLockRetainUntilDate"] - datetime.datetime.now(datetime.UTC)
        days = kind["checkpoint_bucket_lock_days"]
        assert datetime.timedelta(days=days) - left < datetime.timedelta(minutes=5)
        with pytest.raises(ClientError, match="AccessDenied"):
            admin.delete_object(**place)
        if kind["checkpoint_bucket_lock"] == "compliance":
            with pytest.raises(ClientError, match="AccessDenied"):
                admin.delete_object(**place, BypassGovernanceRetention=True)


def test_a_hidden_or_covered_object_counts_as_what_was_put_first(server: BucketServer) -> None:
    store, settings = new(server, **KINDS[2])
    for size in (1, 2, 3):
        store.keep_blocks({size: b"%d" % size})
        store.publish(size, note(size))
    admin, name = server.admin(), settings.checkpoint_bucket

    def key(kind: str, number: int) -> str:
        return f"log/{kind}/{number:015d}"

    for size in (2, 3):  # a delete marker each: the objects are gone from every list
        admin.delete_object(Bucket=name, Key=key("checkpoints", size))
    admin.put_object(Bucket=name, Key=key("blocks", 1), Body=b"forged")  # over it: a newer version
    again = Bucket(settings, "log")
    assert again.latest() == note(3)
    assert (list(again.sizes()), again.block(1)) == ([1, 2, 3], b"1")
    with pytest.raises(Forked, match="before it was hidden"):
        again.publish(3, note(3, "another"))
    assert again.checkpoint(3) == note(3)
    admin.delete_object(Bucket=name, Key=key("checkpoints", 1))  # now nothing is to be seen at all
    assert Bucket(settings, "log").latest() == note(3)


def test_what_is_wrong_with_a_bucket_is_told_at_the_start_in_one_line(
    server: BucketServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = server.make(new_name())
    with pytest.raises(OutsideRefuses, match=f"{plain} has no object lock, and RUNWIRE_CHECKPOINT_BUCKET_LOCK asks"):
        Bucket(server.settings(plain, **KINDS[1]), "log").check()
    with pytest.raises(OutsideRefuses, match="404 NoSuchBucket: make it, or correct RUNWIRE_CHECKPOINT_BUCKET"):
        Bucket(server.settings("not-there"), "log").check()
    nowhere = server.settings(plain, checkpoint_bucket_endpoint="http://127.0.0.1:1")
    with pytest.raises(OutsideAway, match="cannot be reached"):
        Bucket(nowhere, "log").check()

    made = bucket.client_of

    def forgetful(settings: SealSettings) -> Any:
        """As if the server did not know the condition."""
        client = made(settings)
        client.meta.events.register(
            "before-sign.s3.PutObject", lambda request, **_: request.headers.__delitem__("If-None-Match")
        )
        return client

    monkeypatch.setattr(bucket, "client_of", forgetful)
    with pytest.raises(OutsideRefuses, match="takes a second object under a name"):
        Bucket(server.settings(plain), "log").check()


def test_only_the_settings_say_who_asks(server: BucketServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    settings = server.settings(server.make(new_name()))
    (tmp_path / "config").write_text("[profile other]\nregion = nowhere\n")
    for name, value in {
        "AWS_PROFILE": "missing", "AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x", "AWS_REGION": "nowhere",
        "AWS_ENDPOINT_URL": "http://127.0.0.1:1", "AWS_CONFIG_FILE": str(tmp_path / "config"),
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    Bucket(settings, "log").check()


async def test_wrong_credentials_end_the_start_with_one_line_that_holds_no_secret(
    server: BucketServer, d: Desk, database_url: str
) -> None:
    name = server.make(new_name())
    d.keys()
    environ = {
        **os.environ, **server.environ(name), "RUNWIRE_DATABASE_URL": database_url,
        "RUNWIRE_SEAL_KEY_FILE": str(d.key_file),
    }  # fmt: skip

    def started(**more: str) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-P", "-m", "eventstore.sealing"]
        return subprocess.run(argv, env={**environ, **more}, capture_output=True, text=True, timeout=60)

    with server.guarded(name) as (key, secret):
        right = {"checkpoint_bucket_access_key": key, "checkpoint_bucket_secret_key": secret}
        Bucket(server.settings(name, **right), "log").check()
        wrong_key = await asyncio.to_thread(started)
        wrong_secret = await asyncio.to_thread(lambda: started(RUNWIRE_CHECKPOINT_BUCKET_ACCESS_KEY=key))
    assert [wrong_key.returncode, wrong_secret.returncode] == [1, 1]
    for told, code in ((wrong_key, "InvalidAccessKeyId"), (wrong_secret, "SignatureDoesNotMatch")):
        [line] = told.stderr.splitlines()
        assert line == (
            f"sealer: the bucket {name} was asked for its objects and says 403 {code}: "
            "see RUNWIRE_CHECKPOINT_BUCKET_ACCESS_KEY, _SECRET_KEY and what they are allowed to do"
        )
    missing = await asyncio.to_thread(lambda: started(RUNWIRE_CHECKPOINT_BUCKET_SECRET_KEY=""))
    assert missing.stderr == (
        "sealer: checkpoint_bucket needs checkpoint_bucket_access_key and checkpoint_bucket_secret_key\n"
    )


def test_settings_that_do_not_fit_are_refused_and_never_shown() -> None:
    told = {"database_url": "postgresql://ada:hunter2@/", "seal_key_file": "k"}
    bucket_ = {"checkpoint_bucket": "b", "checkpoint_bucket_access_key": "a", "checkpoint_bucket_secret_key": SECRET}
    SealSettings.model_validate(told | {"checkpoint_dir": "c"})
    SealSettings.model_validate(told | bucket_)
    cases: list[tuple[dict[str, Any], str]] = [
        ({}, "must say where checkpoints are kept"),
        ({"checkpoint_bucket": "b"}, "needs checkpoint_bucket_access_key"),
        (bucket_ | {"checkpoint_bucket_lock": "compliance"}, "given together"),
        (bucket_ | {"checkpoint_bucket_lock_days": 3}, "given together"),
        (bucket_ | {"checkpoint_bucket_endpoint": "http://ada:hunter2@host"}, "should match pattern"),
    ]
    for wrong, why in cases:
        with pytest.raises(ValidationError, match=why) as caught:
            SealSettings.model_validate(told | wrong)
        assert "hunter2" not in str(caught.value)
        assert SECRET not in str(caught.value)
    assert SECRET not in repr(SealSettings.model_validate(told | bucket_))


async def log_bucket(d: Desk, server: BucketServer, **more: Any) -> tuple[Bucket, SealSettings]:
    """This log's bucket, as the sealer's process would have it."""
    settings = server.settings(server.make(new_name(), lock="checkpoint_bucket_lock" in more), **more)
    return Bucket(settings, (await d.origin()).rpartition("/")[2]), settings


async def test_a_bucket_that_is_away_leaves_blocks_unsigned_and_they_are_signed_when_it_is_back(
    server: BucketServer, d: Desk
) -> None:
    store, _ = await log_bucket(d, server, checkpoint_bucket_timeout_s=0.2)
    run = await d.run("a")
    sealer = d.sealer(store=store)
    assert (await sealer.tick()).signed == 1
    assert sealer.outage is None
    with server.stopped():
        for number in range(2, 4):
            assert await d.add(run, number, "x") == "ok"
            tick = await sealer.tick()
            assert (tick.leading, tick.blocks, tick.signed, tick.fault) == (True, 1, 1, "unsigned")
        assert sealer.outage is not None
        assert "ReadTimeoutError" in sealer.outage.why
        async with d.api.connect() as connection:
            state = await incarnation.seal_state(connection)
        assert (state.blocks, state.signed, state.shut, state.why) == (3, 1, False, None)
    tick = await sealer.tick()
    assert (tick.size, tick.signed, tick.fault, sealer.outage) == (3, 3, None, None)
    assert list(store.sizes()) == [1, 3]
    assert all(store.block(number) is not None for number in (1, 2, 3))
    assert (await d.verify(list(store.notes()))).ok


async def test_a_rolled_back_database_is_noticed_from_the_bucket_alone_and_an_operator_goes_on(
    server: BucketServer, d: Desk, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, settings = await log_bucket(d, server, **KINDS[2])
    place = seals.ensure(d.folder)  # the key; the folder beside it stays empty
    monkeypatch.setattr(Desk, "key_file", property(lambda self: place.key))
    monkeypatch.setenv("RUNWIRE_SEAL_ORIGIN", NAME)
    assert settings.checkpoint_bucket is not None
    for name, value in server.environ(settings.checkpoint_bucket).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("RUNWIRE_CHECKPOINT_BUCKET_LOCK", "compliance")
    monkeypatch.setenv("RUNWIRE_CHECKPOINT_BUCKET_LOCK_DAYS", "30")
    run = await d.run("a")
    sealer = d.sealer(store=store)
    await sealer.tick()
    copy = await backup(d)
    await d.add(run, 2, "b")
    assert (await sealer.tick()).signed == 2
    await restore(d, copy)

    assert (await d.sealer("b", store=store).tick()).fault == "shut"
    with pytest.raises(OperationalError, match="until an operator acknowledges"):
        await d.add(run, 2, "c")
    with server.stopped():
        monkeypatch.setenv("RUNWIRE_CHECKPOINT_BUCKET_TIMEOUT_S", "0.2")
        with pytest.raises(Complaint, match="what is kept outside: the bucket"):
            await asyncio.to_thread(seals.verify, database_url, d.folder)
        monkeypatch.delenv("RUNWIRE_CHECKPOINT_BUCKET_TIMEOUT_S")
    standing = await asyncio.to_thread(seals.acknowledge, database_url, d.folder, "restored")
    assert (standing.fault, [str(each) for each in standing.damaged]) == (
        "behind",
        [f"{run}: events 4 to 4 are missing"],
    )
    assert await d.add(run, 2, "c") == "ok"
    assert (await d.sealer("c", store=store).tick()).signed == 4
    report = await asyncio.to_thread(seals.verify, database_url, d.folder)
    assert (report.ok, report.checkpoints) == (True, [1, 2, 4]), report.findings


async def test_of_a_folder_and_a_bucket_that_disagree_the_furthest_counts(server: BucketServer, d: Desk) -> None:
    one, _ = await log_bucket(d, server)
    both = Several({"the folder": d.store, "the bucket": one})
    run = await d.run("a")
    sealer = d.sealer("a", store=both)
    assert (await sealer.tick()).signed == 1
    assert d.store.latest() == one.latest() == both.latest()
    copy = await backup(d)
    await d.add(run, 2, "b")
    assert (await sealer.tick()).signed == 2
    older = Directory(d.folder / "older")
    older.keep_blocks({1: d.store.block(1) or b""})
    older.publish(1, d.store.checkpoint(1) or "")
    await restore(d, copy)
    for places in (Several({"older": older, "bucket": one}), Several({"bucket": one, "older": older})):
        standing = await _standing(d, places)
        assert (standing.fault, standing.outside and standing.outside.size) == ("behind", 2)
    assert (await _standing(d, older)).fault is None  # the folder alone fits the restored database


async def test_a_place_that_is_added_later_gets_everything_from_the_first_block(server: BucketServer, d: Desk) -> None:
    run = await d.run("a")
    sealer = d.sealer("a", lease_s=0.001)
    for number in range(2, 5):
        await sealer.tick()
        await d.add(run, number, "x")
    one, _ = await log_bucket(d, server)
    both = Several({"the folder": d.store, "the bucket": one})
    async with d.owner.begin() as connection:
        await connection.execute(text("UPDATE runwire.sealer SET lease_until = NULL"))
    tick = await d.sealer("b", store=both).tick()
    assert (tick.signed, tick.fault) == (4, None)
    assert [one.block(number) == d.store.block(number) is not None for number in range(1, 5)] == [True] * 4
    assert one.latest() == d.store.latest()


async def test_a_place_that_was_away_at_the_start_is_asked_before_anything_is_signed_on(
    server: BucketServer, d: Desk
) -> None:
    """The folder was restored together with the database; the bucket, which knows more, is cut off meanwhile."""
    one, _ = await log_bucket(d, server, checkpoint_bucket_timeout_s=0.2)
    older = Directory(d.folder / "older")
    run = await d.run("a")
    sealer = d.sealer("a", store=Several({"the folder": d.store, "the bucket": one}))
    assert (await sealer.tick()).signed == 1
    older.keep_blocks({1: d.store.block(1) or b""})
    older.publish(1, d.store.checkpoint(1) or "")
    copy = await backup(d)
    await d.add(run, 2, "b")
    assert (await sealer.tick()).signed == 2
    await restore(d, copy)
    async with d.owner.begin() as connection:
        await connection.execute(text("UPDATE runwire.sealer SET lease_until = NULL"))
    both = Several({"the folder": older, "the bucket": one})
    late = d.sealer("b", store=both)
    with server.stopped():
        await d.add(run, 2, "another")
        tick = await late.tick()
        assert (tick.blocks, tick.fault, both.away) == (1, "unsigned", ("the bucket",))
    tick = await late.tick()
    assert tick.fault == "shut"
    assert both.away == ()
    assert older.block(2) is None  # nothing was signed or copied on top of what the bucket did not know


async def test_with_a_place_away_nobody_concludes_that_checkpoints_were_withdrawn(
    server: BucketServer, d: Desk
) -> None:
    one, _ = await log_bucket(d, server, checkpoint_bucket_timeout_s=0.2)
    await d.run("a")
    assert (await d.sealer("a", store=one).tick()).signed == 1
    both = Several({"the folder": d.store, "the bucket": one})
    with server.stopped():
        with pytest.raises(OutsideAway, match="the bucket: away, and the others do not have checkpoint 1"):
            await d.sealer("b", store=both).tick()
        with pytest.raises(OutsideAway):
            await d.sealer("c", store=one).tick()
    async with d.api.connect() as connection:
        assert await incarnation.is_shut(connection) is None


async def test_a_bucket_that_is_away_at_the_start_holds_up_nothing_but_signatures(
    server: BucketServer, d: Desk, database_url: str, tmp_path: Path
) -> None:
    store, settings = await log_bucket(d, server)
    assert settings.checkpoint_bucket is not None
    d.keys()
    environ = {
        **os.environ, **server.environ(settings.checkpoint_bucket), "RUNWIRE_DATABASE_URL": database_url,
        "RUNWIRE_SEAL_KEY_FILE": str(d.key_file), "RUNWIRE_SEAL_ORIGIN": NAME, "RUNWIRE_SEAL_START_S": "1",
        "RUNWIRE_SEAL_TICK_S": "0.05", "RUNWIRE_SEAL_RETRY_S": "0.05", "RUNWIRE_CHECKPOINT_BUCKET_TIMEOUT_S": "0.2",
    }  # fmt: skip
    told = tmp_path / "told"
    run = await d.run("a")
    with told.open("wb") as out, server.stopped():
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-P", "-m", "eventstore.sealing", env=environ, stderr=out
        )
        try:
            await until(lambda: "sealer ready" in told.read_text(), 30)
            assert await d.add(run, 2, "b") == "ok"
            assert await count(d, "block") == 0  # what was not compared is not sealed on
        except BaseException:
            process.kill()
            raise
    try:
        await until(lambda: _signed(d), 30)
    finally:
        process.terminate()
        await process.wait()
    assert process.returncode == 0
    lines = told.read_text()
    assert "compared" in next(line for line in lines.splitlines() if "sealer ready" in line)
    assert SECRET not in lines
    assert (await d.verify(list(store.notes()))).ok


async def _signed(d: Desk) -> bool:
    return await count(d, "checkpoint") > 0


async def test_the_sealers_process_keeps_checkpoints_in_a_bucket_alone(
    server: BucketServer, d: Desk, database_url: str
) -> None:
    store, settings = await log_bucket(d, server)
    d.keys()
    told = settings.model_copy(update={"database_url": database_url, "seal_key_file": d.key_file, "seal_origin": NAME})
    found = await sealing.store_of(d.sealers, told)
    assert isinstance(found, Bucket)
    await d.run("a")
    assert (await sealing.build(d.sealers, told, found).tick()).signed == 1
    assert (await d.verify(list(store.notes()))).ok


async def _standing(d: Desk, store: CheckpointStore) -> incarnation.Standing:
    async with d.sealers.connect() as connection:
        return await incarnation.check_incarnation(connection, store, d.keys().public, await d.origin())
