"""Checkpoints and blocks in an S3-compatible bucket: each object put once, locked for as long as the settings say.

`If-None-Match: *` makes the server refuse a second object under a name. With object lock the bucket is versioned, and
there a name can be hidden by a delete marker and taken again, but no locked version can go away: so of a name the
oldest version counts, hidden or not. Names sort by number. A bucket can only be listed forwards, so the last name is
found by doubling steps and halving, in some tens of questions however many objects there are.
"""

import datetime
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Final

import botocore.config
import botocore.session
from botocore.exceptions import BotoCoreError, ClientError, ConnectTimeoutError, EndpointConnectionError

from eventstore.checkpoints import NAME_DIGITS, NOTE_BYTES_MAX, Forked, OutsideAway, OutsideRefuses, size_of
from eventstore.settings import SealSettings

ATTEMPTS: Final = 2
PUTS_AT_ONCE: Final = 8
PROBE: Final = "nothing-is-put-twice"
_GONE: Final = {"NoSuchKey", "NoSuchVersion"}
_TAKEN: Final = {"PreconditionFailed"}
# What is read from files and the instance's own service otherwise; here the settings alone say who we are.
_NO_FILES: Final = {
    "profile": (None, None, None, None),
    "config_file": (None, None, os.devnull, None),
    "credentials_file": (None, None, os.devnull, None),
}


class Bucket:
    """One log's objects in a bucket: `PREFIX/LOG/checkpoints/NUMBER` and `PREFIX/LOG/blocks/NUMBER`."""

    away: tuple[str, ...] = ()

    def __init__(self, settings: SealSettings, log_id: str) -> None:
        assert settings.checkpoint_bucket is not None
        self._name = settings.checkpoint_bucket
        self._lock = settings.checkpoint_bucket_lock
        self._lock_days = settings.checkpoint_bucket_lock_days
        self._root = f"{settings.checkpoint_bucket_prefix.strip('/')}/{log_id}/".removeprefix("/")
        self._client = client_of(settings)

    def __str__(self) -> str:
        return f"the bucket {self._name}"

    def check(self) -> None:
        """Asks what would otherwise be noticed when it is too late: the credentials, that locked means locked, and
        that nothing can be put over something else."""
        self._first_after("checkpoints", None)
        if self._lock is None:
            return self._check_puts()
        try:
            with self._asking("its object lock"):
                found = self._client.get_object_lock_configuration(Bucket=self._name)["ObjectLockConfiguration"]
        except _Said as said:
            if said.code != "ObjectLockConfigurationNotFoundError":
                raise
            found = {}
        if found.get("ObjectLockEnabled") != "Enabled":
            raise OutsideRefuses(
                f"{self} has no object lock, and RUNWIRE_CHECKPOINT_BUCKET_LOCK asks for {self._lock}: "
                "make a bucket with object lock, most servers cannot add it later"
            )
        return None

    def latest(self) -> str | None:
        """The note with the largest name, also when it is hidden."""
        newest = self._newest("checkpoints")
        return None if newest is None else self.checkpoint(newest)

    def whole_to(self) -> int:
        """The size of the latest note: its blocks were there before it."""
        return size_of(self.latest()) or 0

    def checkpoint(self, size: int) -> str | None:
        """The note for this size."""
        raw = self._read(self._place("checkpoints", size))
        return None if raw is None else raw[:NOTE_BYTES_MAX].decode("utf-8", "replace")

    def sizes(self) -> Iterator[int]:
        """The sizes that notes are kept for, hidden ones too."""
        folder = self._folder("checkpoints")
        with self._asking("the list of checkpoints"):
            if self._lock is None:
                pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._name, Prefix=folder)
                keys = {each["Key"] for page in pages for each in page.get("Contents", ())}
            else:
                pages = self._client.get_paginator("list_object_versions").paginate(Bucket=self._name, Prefix=folder)
                keys = {each["Key"] for page in pages for each in page.get("Versions", ())}
        yield from sorted(number for key in keys if (number := _number(key, folder)) is not None)

    def notes(self) -> Iterator[str]:
        """Every note that is kept."""
        for size in self.sizes():
            if (note := self.checkpoint(size)) is not None:
                yield note

    def block(self, block_no: int) -> bytes | None:
        """A block's bytes."""
        return self._read(self._place("blocks", block_no))

    def keep_blocks(self, blocks: Mapping[int, bytes]) -> None:
        """Keep these blocks, some at once."""
        places = [(self._place("blocks", block_no), raw) for block_no, raw in blocks.items()]
        if len(places) == 1:
            self._keep(*places[0])
            return
        with ThreadPoolExecutor(min(PUTS_AT_ONCE, len(places) or 1)) as pool:
            list(pool.map(lambda place: self._keep(*place), places))

    def publish(self, size: int, note: str) -> None:
        """Keep the note. In a versioned bucket its name may have been freed by a delete marker: then what was there
        first still counts."""
        place, raw = self._place("checkpoints", size), note.encode()
        self._keep(place, raw)
        if self._lock is not None and self._read(place) != raw:
            raise Forked(f"{place} in {self} held something else before it was hidden")

    def _check_puts(self) -> None:
        """Puts the same twice. A server that does not know the condition would let a second one through, in silence."""
        self._put(self._root + PROBE, b"")
        if self._put(self._root + PROBE, b""):
            raise OutsideRefuses(
                f"{self} takes a second object under a name (If-None-Match is not kept there): without that or object "
                "lock it is no place for checkpoints"
            )

    def _keep(self, place: str, raw: bytes) -> None:
        if not self._put(place, raw) and self._read(place) != raw:
            raise Forked(f"{place} in {self} holds something else")

    def _put(self, place: str, raw: bytes) -> bool:
        """False when something is there."""
        lock: dict[str, Any] = {}
        if self._lock is not None:
            until = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=self._lock_days)
            lock = {"ObjectLockMode": self._lock.upper(), "ObjectLockRetainUntilDate": until}
        try:
            with self._asking("to keep an object"):
                self._client.put_object(
                    Bucket=self._name, Key=place, Body=raw, IfNoneMatch="*", ChecksumAlgorithm="SHA256", **lock
                )
        except _Said as said:
            if said.code in _TAKEN:
                return False
            raise
        return True

    def _read(self, place: str) -> bytes | None:
        version = {}
        if self._lock is not None:
            if (oldest := self._oldest(place)) is None:
                return None
            version = {"VersionId": oldest}
        try:
            with self._asking("for an object"):
                answer = self._client.get_object(Bucket=self._name, Key=place, **version)
                return bytes(answer["Body"].read())
        except _Said as said:
            if said.code in _GONE:
                return None
            raise

    def _oldest(self, place: str) -> str | None:
        """The first version that was put under this name; versions are listed newest first."""
        found = None
        with self._asking("for the versions of an object"):
            pages = self._client.get_paginator("list_object_versions").paginate(Bucket=self._name, Prefix=place)
            for page in pages:
                for each in page.get("Versions", ()):
                    found = each["VersionId"] if each["Key"] == place else found
        return found

    def _newest(self, kind: str) -> int | None:
        seen = self._first_after(kind, None)
        if seen is not None:
            step = 1
            while (further := self._first_after(kind, seen + step - 1)) is not None:
                seen, step = further, step * 2
            bound = seen + step - 1  # nothing is past it
            while seen < bound:
                middle = (seen + bound) // 2
                further = self._first_after(kind, middle)
                seen, bound = (seen, middle) if further is None else (further, bound)
        return self._hidden_after(kind, seen) or seen

    def _first_after(self, kind: str, number: int | None) -> int | None:
        """The first number after this one that a visible object is named by."""
        folder = self._folder(kind)
        after = folder if number is None else self._place(kind, number)
        while True:
            with self._asking("for its objects"):
                page = self._client.list_objects_v2(Bucket=self._name, Prefix=folder, StartAfter=after, MaxKeys=1)
            if not (found := page.get("Contents")):
                return None
            after = found[0]["Key"]
            if (number := _number(after, folder)) is not None:
                return number

    def _hidden_after(self, kind: str, number: int | None) -> int | None:
        """The last number after this one that a version is kept of, although no visible object has it."""
        if self._lock is None:
            return None
        folder, last = self._folder(kind), number
        marker = {} if number is None else {"KeyMarker": self._place(kind, number)}
        with self._asking("for its versions"):
            pages = self._client.get_paginator("list_object_versions").paginate(
                Bucket=self._name, Prefix=folder, **marker
            )
            for page in pages:
                for each in page.get("Versions", ()):
                    found = _number(each["Key"], folder)
                    last = found if found is not None and (last is None or found > last) else last
        return last

    def _folder(self, kind: str) -> str:
        return f"{self._root}{kind}/"

    def _place(self, kind: str, number: int) -> str:
        return f"{self._folder(kind)}{number:0{NAME_DIGITS}d}"

    @contextmanager
    def _asking(self, what: str) -> Iterator[None]:
        """What goes wrong becomes one line that holds neither a key nor an address with one."""
        try:
            yield
        except ClientError as fault:
            raise self._said(fault, what) from None
        except (ConnectTimeoutError, EndpointConnectionError) as fault:
            raise OutsideAway(f"{self} cannot be reached ({type(fault).__name__})") from None
        except BotoCoreError as fault:
            raise OutsideAway(f"{self} was asked {what} and did not answer ({type(fault).__name__})") from None

    def _said(self, fault: ClientError, what: str) -> OSError:
        code = str(fault.response.get("Error", {}).get("Code", "?"))
        status = int(fault.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
        if code in _GONE | _TAKEN or code == "ObjectLockConfigurationNotFoundError":
            return _Said(code, f"{self} was asked {what} and says {code}")
        if status >= 500 or status in (408, 409, 429) or code in ("SlowDown", "RequestTimeTooSkewed"):
            return OutsideAway(f"{self} was asked {what} and says {status} {code}")
        hint = {
            "NoSuchBucket": "make it, or correct RUNWIRE_CHECKPOINT_BUCKET",
            "InvalidRequest": "has it object lock, as RUNWIRE_CHECKPOINT_BUCKET_LOCK asks for?",
        }.get(code, "see RUNWIRE_CHECKPOINT_BUCKET_ACCESS_KEY, _SECRET_KEY and what they are allowed to do")
        return OutsideRefuses(f"{self} was asked {what} and says {status} {code}: {hint}")


class _Said(OutsideRefuses):
    """An answer that the caller may have expected."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


def client_of(settings: SealSettings) -> Any:
    """A client that knows what the settings say and nothing else: no files, no profile, no service of the machine."""
    assert settings.checkpoint_bucket_access_key is not None
    assert settings.checkpoint_bucket_secret_key is not None
    token = settings.checkpoint_bucket_session_token
    endpoint = settings.checkpoint_bucket_endpoint
    path_style = settings.checkpoint_bucket_path_style
    if path_style is None:
        path_style = endpoint is not None
    wait_s = settings.checkpoint_bucket_timeout_s
    return botocore.session.Session(session_vars=_NO_FILES).create_client(
        "s3",
        region_name=settings.checkpoint_bucket_region,
        endpoint_url=endpoint,
        aws_access_key_id=settings.checkpoint_bucket_access_key.get_secret_value(),
        aws_secret_access_key=settings.checkpoint_bucket_secret_key.get_secret_value(),
        aws_session_token=None if token is None else token.get_secret_value(),
        config=botocore.config.Config(
            connect_timeout=wait_s,
            read_timeout=wait_s,
            retries={"total_max_attempts": ATTEMPTS, "mode": "standard"},
            max_pool_connections=PUTS_AT_ONCE,
            s3={"addressing_style": "path" if path_style else "virtual"},
            ignore_configured_endpoint_urls=True,
            request_checksum_calculation="when_required",  # other servers than the first know no newer ones
            response_checksum_validation="when_required",
        ),
    )


def _number(key: str, folder: str) -> int | None:
    name = key.removeprefix(folder)
    return int(name) if len(name) == NAME_DIGITS and name.isascii() and name.isdigit() else None
