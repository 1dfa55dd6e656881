"""A server that speaks S3 over HTTP, in a process of its own, and what an administrator of its buckets can do.

The server is moto's. It keeps `If-None-Match: *`, versions, delete markers and object lock as the real thing does, with
these exceptions, which the tests do not rely on: anybody may shorten a governance lock, and a list of versions that
begins between two names leaves one out.
"""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import botocore.config
import botocore.session
import httpx
from pydantic import SecretStr

from eventstore.settings import SealSettings
from tests.waiting import until

SECRET = "the-secret-of-the-bucket"


@dataclass
class BucketServer:
    """A running server. Everybody may do everything, until `guarded`."""

    url: str
    process: subprocess.Popen[bytes]

    def admin(self) -> Any:
        """A client that is not Runwire's."""
        return self._client("s3")

    def make(self, name: str, *, lock: bool = False) -> str:
        self.admin().create_bucket(Bucket=name, ObjectLockEnabledForBucket=lock)
        return name

    def settings(self, bucket: str, **more: Any) -> SealSettings:
        return SealSettings.model_validate(
            {
                "database_url": "postgresql:///",
                "seal_key_file": "unused",
                "checkpoint_bucket": bucket,
                "checkpoint_bucket_endpoint": self.url,
                "checkpoint_bucket_access_key": "a-key",
                "checkpoint_bucket_secret_key": SecretStr(SECRET),
            }
            | more
        )

    def environ(self, bucket: str) -> dict[str, str]:
        return {
            "RUNWIRE_CHECKPOINT_BUCKET": bucket,
            "RUNWIRE_CHECKPOINT_BUCKET_ENDPOINT": self.url,
            "RUNWIRE_CHECKPOINT_BUCKET_ACCESS_KEY": "a-key",
            "RUNWIRE_CHECKPOINT_BUCKET_SECRET_KEY": SECRET,
        }

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Connections are taken and nothing is answered."""
        self.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)

    @contextmanager
    def guarded(self, name: str) -> Iterator[tuple[str, str]]:
        """Signatures are checked from here on; the keys of somebody who may use buckets."""
        iam = self._client("iam")
        iam.create_user(UserName=name)
        key = iam.create_access_key(UserName=name)["AccessKey"]
        policy = '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"s3:*","Resource":"*"}]}'
        iam.put_user_policy(UserName=name, PolicyName="s3", PolicyDocument=policy)
        httpx.post(f"{self.url}/moto-api/reset-auth", content=b"0").raise_for_status()
        try:
            yield key["AccessKeyId"], key["SecretAccessKey"]
        finally:
            httpx.post(f"{self.url}/moto-api/reset-auth", content=b"inf").raise_for_status()

    def _client(self, service: str) -> Any:
        return botocore.session.get_session().create_client(
            service,
            region_name="us-east-1",
            endpoint_url=self.url,
            aws_access_key_id="admin",
            aws_secret_access_key="admin",
            config=botocore.config.Config(s3={"addressing_style": "path"}, retries={"total_max_attempts": 1}),
        )


def _launch() -> BucketServer:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        env={**os.environ, "PYTHONWARNINGS": ""}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    return BucketServer(f"http://127.0.0.1:{port}", process)


async def start() -> BucketServer:
    """On a free port, in memory."""
    server = _launch()

    def answers() -> bool:
        assert server.process.poll() is None, "the bucket server ended"
        with suppress(httpx.HTTPError):
            return httpx.get(f"{server.url}/moto-api/data.json").status_code == 200
        return False

    await until(answers, 60)
    return server


def stop(server: BucketServer) -> None:
    server.process.send_signal(signal.SIGCONT)
    server.process.kill()
    server.process.wait()
