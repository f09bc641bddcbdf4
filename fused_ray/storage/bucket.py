"""Objects below a prefix of an S3 bucket, by s3fs. It is the only module that knows S3.

What is asked of the service: reads see the last write, and PUT honours `If-None-Match: *` and `If-Match` atomically.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, NamedTuple

from fused_ray.errors import NotWrittenError, RunDirectoryError

_LOST_RACE = {"PreconditionFailed", "ConditionalRequestConflict", "412", "409"}
_ABSENT = "NoSuchKey"
_AT_ONCE = 1000
"""Objects that one request removes at most."""
_READERS = 16
"""Small objects that are read at a time."""


class Content(NamedTuple):
    """An object as it was read."""

    body: bytes
    etag: str
    age: float
    """Seconds since it was written, both times by the service's clock."""


class File(NamedTuple):
    """A file or object that is there."""

    bytes: int
    changed: float
    """When it was last written, seconds since 1970."""


class Bucket:
    """The objects below `uri`, by their names from there. Methods raise NotWrittenError where the service fails."""

    def __init__(self, uri: str) -> None:
        self.uri = uri.rstrip("/")
        self._bucket, _, self._prefix = self.uri.removeprefix("s3://").partition("/")
        if not self._bucket or not self._prefix:
            raise RunDirectoryError(f"{uri}: name a bucket and a folder in it, s3://BUCKET/FOLDER")
        try:
            from s3fs import S3FileSystem
        except ImportError:
            raise RunDirectoryError(f"{uri}: s3fs is not installed: pip install 'fused-ray[s3]'") from None
        patience = {"connect_timeout": 5, "read_timeout": 60, "retries": {"max_attempts": 3, "mode": "standard"}}
        S3FileSystem.retries = 3
        self._files = S3FileSystem(use_listings_cache=False, skip_instance_cache=True, config_kwargs=patience)

    def read(self, name: str) -> Content | None:
        """An object; None if there is none."""
        with self._told():
            try:
                found = self._files.call_s3("get_object", Bucket=self._bucket, Key=self._key(name))
            except FileNotFoundError as error:
                if _code(error) == _ABSENT:
                    return None
                raise
            if "LastModified" not in found:
                raise OSError("its answer is not one of S3")
            body = self._body(found["Body"])
        now = found["ResponseMetadata"]["HTTPHeaders"].get("date")
        age = (parsedate_to_datetime(now) - found["LastModified"]).total_seconds() if now else 0.0
        return Content(body, found["ETag"], max(0.0, age))

    def swap(self, name: str, body: bytes, etag: str | None) -> str | None:
        """Write an object if it is still the one of that ETag, or for None if there is none; the new ETag.

        None: another writer was first.
        """
        condition = {"IfNoneMatch": "*"} if etag is None else {"IfMatch": etag}
        with self._told():
            try:
                put = self._files.call_s3(
                    "put_object", Bucket=self._bucket, Key=self._key(name), Body=body, **condition
                )
            except OSError as error:
                if _code(error) in _LOST_RACE | {_ABSENT}:
                    return None
                raise
        return str(put["ETag"])

    def put(self, files: Mapping[str, Path]) -> None:
        """Write objects from files, several at a time, large ones in parts."""
        if files:
            with self._told():
                self._files.put([str(path) for path in files.values()], [self._path(name) for name in files])

    def get(self, files: Mapping[str, Path]) -> bool:
        """Read objects into files; False where one is not there any more."""
        with self._told():
            try:
                if files:
                    self._files.get([self._path(name) for name in files], [str(path) for path in files.values()])
                return True
            except FileNotFoundError as error:
                if _code(error) == "NoSuchBucket":
                    raise
                return False

    def names(self) -> list[str]:
        """All objects."""
        with self._told():
            start = f"{self._bucket}/{self._prefix}/"
            return [path.removeprefix(start) for path in self._files.find(start)]

    def listed(self) -> dict[str, File]:
        """All objects, each with its bytes and when it was written."""
        with self._told():
            start = f"{self._bucket}/{self._prefix}/"
            found = self._files.find(start, detail=True)
            return {
                path.removeprefix(start): File(about["size"], about["LastModified"].timestamp())
                for path, about in found.items()
            }

    def read_all(self, names: Sequence[str]) -> dict[str, Content]:
        """Objects by their names, several at a time; those that are not there any more are left out."""
        with ThreadPoolExecutor(_READERS) as readers:
            found = zip(names, readers.map(self.read, names), strict=True)
            return {name: content for name, content in found if content is not None}

    def remove(self, names: Sequence[str]) -> None:
        """Remove objects, whether they are there or not."""
        for some in (names[at : at + _AT_ONCE] for at in range(0, len(names), _AT_ONCE)):
            objects = {"Objects": [{"Key": self._key(name)} for name in some], "Quiet": True}
            with self._told():
                self._files.call_s3("delete_objects", Bucket=self._bucket, Delete=objects)

    def _key(self, name: str) -> str:
        return f"{self._prefix}/{name}"

    def _path(self, name: str) -> str:
        return f"{self._bucket}/{self._key(name)}"

    def _body(self, stream: Any) -> bytes:
        from fsspec.asyn import sync

        body: bytes = sync(self._files.loop, stream.read)
        return body

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Inside, whatever the service or the way to it raises is one line."""
        from botocore.exceptions import BotoCoreError, NoCredentialsError, ParamValidationError, ProfileNotFound

        try:
            yield
        except NoCredentialsError:
            reason = "there are no credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile"
        except ProfileNotFound as error:
            reason = f"{str(error).rstrip('.')}; set AWS_PROFILE to one that is in ~/.aws"
        except ParamValidationError as error:
            reason = f"{self._bucket} or the folder's name is not one that S3 takes ({_one_line(error)})"
        except PermissionError as error:
            reason = f"access is denied ({_code(error) or error}); are the credentials right, and may they write there?"
        except FileNotFoundError as error:
            reason = f"there is no bucket {self._bucket}" if _code(error) == "NoSuchBucket" else _failure(error)
        except (OSError, BotoCoreError, ValueError) as error:  # ValueError: an endpoint that is no URL
            reason = _failure(error)
        else:
            return
        raise NotWrittenError(f"{self.uri}: {reason}")


def _failure(error: Exception) -> str:
    if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
        return f"its folder here, in TMPDIR, cannot be written: {os.strerror(error.errno)}"  # type: ignore[attr-defined]
    return f"the service fails ({str(error).rstrip('.')}); is AWS_ENDPOINT_URL right, and can it be reached?"


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _code(error: BaseException) -> str:
    """What S3 calls an error."""
    response = getattr(error.__cause__, "response", None) or getattr(error, "response", None) or {}
    return str(response.get("Error", {}).get("Code", ""))
