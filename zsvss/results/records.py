"""Finished videos as durable facts: one file a video, written atomically, guarded by the run's fingerprint.

::

    <folder>/run.json            the fingerprint, and what is needed to fold the records without the data
    <folder>/videos/<name>.json  one finished video
    <folder>/failures.json       videos without a result, and why
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import socket
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import IO, Any

from zsvss.results.atomic_files import TEMPORARY, file_stem, write_atomically
from zsvss.results.fingerprint import Fingerprint, differences, digest


class RecordFolder:
    """The records of one run.

    Args:
        folder: where they lie; made by `open`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.videos = folder / "videos"
        self._lock: IO[str] | None = None

    def open(self, fingerprint: Fingerprint, facts: Mapping[str, Any]) -> None:
        """Take the folder for this process and check that its records are of the same run.

        Args:
            fingerprint: of this run.
            facts: plain values to keep beside it.

        Raises:
            ValueError: another process has the folder, or its records are of another run.
        """
        self.videos.mkdir(parents=True, exist_ok=True)
        self._lock = self._locked(self.folder / "lock")
        for left in self.folder.glob("lock-*"):  # of a run whose first process was killed while others went on
            self._locked(left).close()
        for leftover in [*self.folder.glob(f"{TEMPORARY}*"), *self.videos.glob(f"{TEMPORARY}*")]:
            leftover.unlink(missing_ok=True)
        path = self.folder / "run.json"
        if path.exists():
            self._compare(self.run()["fingerprint"], fingerprint)
        write_atomically(path, json.dumps({"fingerprint": fingerprint, "facts": facts}, indent=2) + "\n")

    def join(self, rank: int) -> None:
        """Let nobody else have the folder as long as this further process of the run lives; ``rank`` is above 0."""
        self._lock = self._locked(self.folder / f"lock-{rank}")

    def close(self) -> None:
        """Let other processes have the folder."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def run(self) -> dict[str, Any]:
        """Content of ``run.json``: ``fingerprint`` and ``facts``.

        Raises:
            FileNotFoundError: there is none.
            ValueError: it is damaged.
        """
        path = self.folder / "run.json"
        if not path.is_file():
            raise FileNotFoundError(f"{path} not found; {self.folder.parent} holds no results of a test run")
        try:
            run: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            assert set(run) == {"fingerprint", "facts"}
        except (ValueError, AssertionError) as error:
            raise ValueError(
                f"{path} is damaged, so the run of the records beside it is unknown; delete "
                f"{self.folder} and start again"
            ) from error
        return run

    def write(self, video: str, fingerprint_digest: str, content: Mapping[str, Any]) -> None:
        """Write the record of a finished video; it is there whole or not at all."""
        body = json.dumps({"video": video, "fingerprint": fingerprint_digest, **content})
        write_atomically(self.path(video), f"{hashlib.sha256(body.encode()).hexdigest()}\n{body}\n")

    def read(self) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
        """The records by video, and what is wrong with the others by file name."""
        wanted = digest(self.run()["fingerprint"])
        records, damaged = {}, {}
        for path in sorted(self.videos.glob("*.json")):
            try:
                record = _read_record(path, wanted)
            except ValueError as error:
                damaged[path.name] = str(error)
                continue
            records[record["video"]] = record
        return records, damaged

    def path(self, video: str) -> Path:
        """File of a video; names may hold anything."""
        return self.videos / f"{file_stem(video)}.json"

    def write_failures(self, failures: Mapping[str, str]) -> None:
        """Record the videos without a result, instead of those of an earlier start."""
        path = self.folder / "failures.json"
        if failures or path.exists():
            write_atomically(path, json.dumps(dict(sorted(failures.items())), indent=2) + "\n")

    def read_failures(self) -> dict[str, str]:
        """Videos without a result, and why; a damaged list is no list, it is made anew by the next run."""
        with contextlib.suppress(ValueError, FileNotFoundError):
            failures: dict[str, str] = json.loads((self.folder / "failures.json").read_text(encoding="utf-8"))
            return failures
        return {}

    def _locked(self, path: Path) -> IO[str]:
        # POSIX record locks: the kernel frees them when the process dies, and worker processes do not inherit them.
        lock = path.open("a+", encoding="utf-8")
        try:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = _holder(lock)
            lock.close()
            if error.errno not in (errno.EACCES, errno.EAGAIN):
                raise
            raise ValueError(
                f"{self.folder.parent} is in use by {holder}; wait until that run has ended, or choose another folder "
                "by --output"
            ) from error
        lock.truncate(0)
        since = datetime.now(timezone.utc).isoformat(timespec="seconds")
        lock.write(f"process {os.getpid()} on {socket.gethostname()} since {since}")
        lock.flush()
        return lock

    def _compare(self, theirs: Fingerprint, ours: Fingerprint) -> None:
        differing = differences(theirs, ours)
        if not differing:
            return
        lines = "\n".join(f"  {key}: recorded {there}, now {here}" for key, (there, here) in differing.items())
        raise ValueError(
            f"{self.folder} holds results of another run (fingerprint {digest(theirs)[:12]}, this run's is "
            f"{digest(ours)[:12]}), and results of different runs are never mixed. These keys differ:\n{lines}\n"
            f"Choose another folder by --output, or delete {self.folder}"
        )


def _read_record(path: Path, fingerprint_digest: str) -> dict[str, Any]:
    """Read a record.

    Raises:
        ValueError: it is damaged or not of this run.
    """
    try:
        checksum, _, body = path.read_text(encoding="utf-8").partition("\n")
    except UnicodeDecodeError as error:
        raise ValueError("not text") from error
    body = body.removesuffix("\n")
    if hashlib.sha256(body.encode()).hexdigest() != checksum:
        raise ValueError("damaged or half-written: its checksum is wrong")
    record: dict[str, Any] = json.loads(body)
    if record["fingerprint"] != fingerprint_digest:
        raise ValueError(f"written by another run, of fingerprint {record['fingerprint'][:12]}")
    return record


def _holder(lock: IO[str]) -> str:
    lock.seek(0)
    return lock.read().strip() or "another process"
