"""The name that a file gets once it is whole, and the one at which it is made until then.

What is written lies beside its target, at ``.<name>.epochal-partial``, locked by whoever writes it.
A writer that was killed leaves it there without a lock, so the next one to the same target takes it
over: cleans it away, or goes on with it. It gets the target's name by one `rename`, after its bytes
have reached the disk.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import stat
from pathlib import Path

from epochal.errors import TargetError, TargetExistsError
from epochal.stores.manifest import sidecar_of
from epochal.writing.disk import NOT_KNOWN, is_at, remove, sync, writing_to
from epochal.writing.replaceable import check_replaceable

__all__ = ["InPlace", "Lock", "Target", "is_partial", "partial_of"]

AT_FDCWD = -100
RENAME_NOREPLACE, RENAME_EXCHANGE = 1, 2


def partial_of(path: str | os.PathLike[str]) -> str:
    """Where the file for `path` is made.

    >>> partial_of("/data/out.h5")
    '/data/.out.h5.epochal-partial'
    """
    folder, name = os.path.split(os.fspath(path))
    return os.path.join(folder, f".{name}.epochal-partial")


def is_partial(name: str) -> bool:
    """Whether a file of that name is still being made, or lies beside one.

    >>> is_partial(".out.h5.epochal-partial-job"), is_partial("out.h5")
    (True, False)
    """
    return name.startswith(".") and ".epochal-partial" in name


class Lock:
    """What one writer at a time has of a target: a locked file beside it, since the partial one may
    be a folder, and comes and goes.
    """

    def __init__(self, path: str) -> None:
        self._file = partial_of(path) + "-lock"
        self._fd: int | None = None
        with writing_to(path):
            while self._fd is None:
                fd = os.open(self._file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
                try:
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    os.close(fd)
                    raise TargetError(
                        f"{path}: another process is writing it: wait, or give another name"
                    ) from None
                if is_at(fd, self._file):
                    self._fd = fd
                else:
                    os.close(fd)  # whoever had it has removed it since

    @property
    def held(self) -> bool:
        """Whether it is still ours."""
        return self._fd is not None

    def release(self) -> None:
        """Let others write."""
        if self._fd is not None:
            fd, self._fd = self._fd, None
            # Removed while it is locked: whoever opened it meanwhile sees that it is gone.
            Path(self._file).unlink(missing_ok=True)
            os.close(fd)


class InPlace:
    """A file that is changed where it lies (`epochal.writing.writer.Ending`)."""

    def __init__(self, path: str) -> None:
        self._lock = Lock(path)

    def publish(self) -> None:
        """Its container has made the change."""
        self._lock.release()

    def give_up(self, *, keep: bool = False) -> None:
        """Its container has left it as it was."""
        self._lock.release()


class Target:
    """One target, locked: until it is published or given up, no other writer gets it.

    Parameters
    ----------
    path
        The final name; a link is followed, so that what it points to is replaced.
    overwrite
        Whether something may be there: it stays as it is until it is replaced in one step. Of
        folders only those that epochal or Zarr could have written are replaced.

    Raises
    ------
    TargetExistsError
        Something is there, and `overwrite` is False; or a folder of other things.
    TargetError
        No name, no folder to write to, or another process writes to the same target.
    """

    def __init__(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        if not os.fspath(path):
            raise TargetError("'' is no name to write to: give a path")
        self.path = os.path.realpath(os.fspath(path))
        self.partial = partial_of(self.path)
        self._overwrite = overwrite
        folder = os.path.dirname(self.path)
        if not os.path.isdir(folder):
            raise TargetError(f"{self.path}: there is no folder {folder} to write it to: make it")
        if not os.access(folder, os.W_OK | os.X_OK):
            self._check_free()
            raise TargetError(f"{self.path}: its folder {folder} may not be written to")
        self._lock = Lock(self.path)
        try:
            if not self.leftover:
                self.clean()  # of notes that a writer left which was killed as it ended
            self._check_free()
        except BaseException:
            self.release()
            raise

    def _check_free(self) -> None:
        check_replaceable(self.path)
        if not self._overwrite and os.path.lexists(self.path):
            raise TargetExistsError(
                f"{self.path} is there already: give overwrite=True (--overwrite) to replace it, "
                "or another name"
            )

    @property
    def leftover(self) -> bool:
        """Whether a writer before left something to go on with."""
        return os.path.lexists(self.partial)

    def clean(self) -> None:
        """Remove what is at the partial name, and beside it."""
        with writing_to(self.path):
            remove(self.partial)
            folder, name = os.path.split(self.partial)
            for each in os.listdir(folder):
                # A journal beside the partial file has another dot before the name.
                if each.startswith((name, f".{name}")) and each != name + "-lock":
                    remove(os.path.join(folder, each))

    def publish(self) -> None:
        """Give it its name: the whole new file from then on, also after a power cut.

        Its bytes have been brought to the disk by whoever wrote them (`Container.save`).
        """
        with writing_to(self.path):
            check_replaceable(self.path)  # others may have put files there meanwhile
            if not stat.S_ISDIR(os.lstat(self.partial).st_mode):
                self._keep_mode()
            # Checksums of what will be there no more; the new ones come after what they are of.
            if self._overwrite:
                remove(sidecar_of(self.path))
            # Of changes to a file that will be there no more (`recover_all` has seen to them).
            folder, name = os.path.split(self.path)
            for journal in (".epochal-journal", ".epochal-journal.json"):
                remove(os.path.join(folder, f".{name}{journal}"))
            if not self._overwrite:
                self._publish_new()
            elif os.path.isdir(self.path) or os.path.isdir(self.partial):
                self._exchange()
            else:
                os.rename(self.partial, self.path)
            if os.path.exists(sidecar_of(self.partial)):
                os.replace(sidecar_of(self.partial), sidecar_of(self.path))
            sync(os.path.dirname(self.path))
            self.clean()
        self.release()

    def _keep_mode(self) -> None:
        """A replaced file's permissions are its successor's."""
        if os.path.isfile(self.path):
            os.chmod(self.partial, stat.S_IMODE(os.stat(self.path).st_mode))

    def _publish_new(self) -> None:
        try:
            if _renameat2(self.partial, self.path, RENAME_NOREPLACE):
                return
        except FileExistsError:
            self._check_free()
            raise
        self._check_free()
        os.rename(self.partial, self.path)

    def _exchange(self) -> None:
        """Replace where `rename` cannot: folders that are not empty, a file by a folder."""
        if not os.path.lexists(self.path):
            os.rename(self.partial, self.path)
            return
        if not _renameat2(self.partial, self.path, RENAME_EXCHANGE):
            old = self.partial + "-old"
            remove(old)
            os.rename(self.path, old)
            os.rename(self.partial, self.path)

    def release(self) -> None:
        """Let others write to it."""
        self._lock.release()

    def give_up(self, *, keep: bool = False) -> None:
        """Leave the target as it was; `keep` what is there for another run to go on with."""
        if self._lock.held:
            if not keep:
                self.clean()
            self.release()


def _renameat2(old: str, new: str, flags: int) -> bool:
    """Linux's ``renameat2``; False where this system or file system has none."""
    try:
        call = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):
        return False
    if call(AT_FDCWD, os.fsencode(old), AT_FDCWD, os.fsencode(new), flags) == 0:
        return True
    number = ctypes.get_errno()
    if number in NOT_KNOWN:
        return False
    raise OSError(number, os.strerror(number), new)
