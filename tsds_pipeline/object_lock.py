"""The lock on an object store: one machine at a time works on a project whose results are there.

What is kept there is in ``object_storage``. How addresses and errors are treated is in ``remote_files``.
"""

import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any

from tsds_pipeline.addresses import protocol_of
from tsds_pipeline.content_hashes import content_hash
from tsds_pipeline.errors import TsdsError
from tsds_pipeline.project import SETTINGS_FILE
from tsds_pipeline.remote_files import explained, opened
from tsds_pipeline.retries import persistently
from tsds_pipeline.storage import write_atomically

WHERE = f"{SETTINGS_FILE}: [storage] url"
LOCK = "lock.json"
LEASE_SECONDS = 600.0
"""A lock whose machine was not heard of for so long is free. Clocks of machines may differ by less than that."""
SETTLE_SECONDS = 3.0
"""Who replaces a lock that has ended looks after so long whether another has replaced it too."""
_EXCLUSIVE = ("s3", "s3a")


class Lock:
    """The object that says which machine works at ``url``: a lease that its holder, the working copy ``root``, renews.

    A store that creates an object only where there is none (S3 and what keeps to its rules) lets exactly one have it;
    of another, two that ask in the same instant may. Whoever lost it all the same learns so from :meth:`require`,
    before anything is uploaded.
    """

    def __init__(self, url: str, root: Path):
        self._url = url
        with using(url):
            self._path = f"{opened(url)[1]}/{LOCK}"
        self._owner = _this_copy(root)
        self._ended = threading.Event()
        self._renewing = threading.Thread(target=self._renew, daemon=True)

    def take(self, *, wait: bool) -> None:
        """TsdsError while another machine has it, or ``wait``."""
        while (holder := self._try()) is not None:
            if not wait:
                raise self._busy(holder)
            time.sleep(2)
        self._renewing.start()

    def require_free(self) -> None:
        """TsdsError while another machine has it."""
        if (holder := self._other()) is not None:
            raise self._busy(holder)

    def is_free(self) -> bool:
        """Whether no other machine has it. TsdsError where the store does not answer."""
        return self._other() is None

    def release(self) -> None:
        """Let others have it; where that cannot be said, its lease ends by itself."""
        self._ended.set()
        self._renewing.join()  # in the midst of it, it would write the lock again
        with suppress(Exception):
            self.require()
            opened(self._url)[0].rm_file(self._path)

    def require(self) -> None:
        """TsdsError where another machine has taken it, as it may once this one was not heard of for too long."""
        with using(self._url):
            found = persistently(self._read)
            if self._is_ours(found):
                if found["until"] < time.time():  # the machine slept, as others may find at any time
                    persistently(lambda: self._write("overwrite"))
                return
        raise TsdsError(
            f"{self._url}: another machine has taken the place of this one, which has lost its lock"
        )

    def _other(self) -> dict[str, Any] | None:
        with using(self._url):
            found = persistently(self._read)
        return found if self._is_anothers(found) else None

    def _try(self) -> dict[str, Any] | None:
        """Take it, or say who has it."""
        with using(self._url):
            return persistently(self._try_once)

    def _try_once(self) -> dict[str, Any] | None:
        # Servers there are that take no notice of the condition on which an object is created.
        found = self._read()
        if self._is_anothers(found):
            return found
        if found is not None:  # left by a process that is gone
            remove(opened(self._url)[0], [self._path])
        ended = found is not None and found["until"] <= time.time()
        try:
            self._write("create")
        except (OSError, ValueError):  # another was faster, unless there is none
            if (found := self._read()) is None:
                raise
        else:
            if ended:  # another that found it too may still remove what is here now
                time.sleep(SETTLE_SECONDS)
            found = self._read() if ended or protocol_of(self._url) not in _EXCLUSIVE else None
        return found if self._is_anothers(found) else None

    def _busy(self, holder: Mapping[str, Any]) -> TsdsError:
        until = time.strftime("%H:%M:%S", time.localtime(holder["until"]))
        ends = f"its lock ends at {until}"
        if holder["until"] > time.time() + 2 * LEASE_SECONDS:  # as only a clock that is wrong says
            ends = f"delete {self._url}/{LOCK}: it was written by a clock that was ahead"
        return TsdsError(
            f"{self._url}: another refresh is under way ({holder['who']}): wait until it has ended; if it was "
            f"killed, {ends}"
        )

    def _renew(self) -> None:
        while not self._ended.wait(LEASE_SECONDS / 4):
            with suppress(TsdsError), using(self._url):  # told by `require`, once it matters
                if self._is_ours(self._read()) and not self._ended.is_set():
                    self._write("overwrite")

    def _write(self, mode: str) -> None:
        who = f"process {os.getpid()} on {socket.gethostname()}"
        said = {"owner": self._owner, "who": who, "until": time.time() + LEASE_SECONDS}
        opened(self._url)[0].pipe_file(self._path, json.dumps(said).encode(), mode=mode)

    def _read(self) -> dict[str, Any] | None:
        try:
            said = json.loads(opened(self._url)[0].cat_file(self._path))
            return {"owner": str(said["owner"]), "who": str(said["who"]), "until": float(said["until"])}
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError):
            return {"owner": "", "who": "nobody", "until": 0.0}

    def _is_anothers(self, found: Mapping[str, Any] | None) -> bool:
        return found is not None and not self._is_ours(found) and found["until"] > time.time()

    def _is_ours(self, found: Mapping[str, Any] | None) -> bool:
        return found is not None and found["owner"] == self._owner


def holder_at(url: str) -> str | None:
    """Which machine's refresh is under way at ``url``, if any. TsdsError where the store does not answer."""
    with using(url):
        fs, base = opened(url)
        try:
            said = json.loads(fs.cat_file(f"{base}/{LOCK}"))
        except FileNotFoundError:
            # Where nothing is yet, the bucket has to be there.
            if not fs.exists(base) and not fs.exists(base.partition("/")[0]):
                raise
            return None
        return str(said["who"]) if float(said["until"]) > time.time() else None


def using(url: str) -> AbstractContextManager[None]:
    """Turns whatever goes wrong with the store at ``url`` into a :class:`TsdsError`."""
    return explained(WHERE, url, doing="used")


def remove(fs: Any, paths: list[str]) -> None:
    """Delete ``paths``; what is gone already is no error."""
    for path in paths:
        with suppress(FileNotFoundError):
            fs.rm_file(path)


def _this_copy(root: Path) -> str:
    """A name for this working copy: a lock that bears it was left by a process that is gone.

    A number kept in it tells machines of one name apart, name and place a copy of the folder.
    """
    path = root / "storage" / ".machine"
    try:
        number = path.read_text("utf-8")
    except FileNotFoundError:
        number = secrets.token_hex(16)
        write_atomically(path, lambda target: target.write_text(number, "utf-8"))
    return content_hash(number, socket.gethostname(), str(root))
