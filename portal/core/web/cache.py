"""The cache in files. Not for: CACHE_URL, by which a Redis has it."""

from pickle import UnpicklingError

from django.core.cache.backends.filebased import FileBasedCache


class FileCache(FileBasedCache):
    """Django's, which never looks for what is over, and makes room by chance alone.

    Here what is over goes first: what still counts, such as wrong passwords, is thrown away only when that
    alone fills the cache.
    """

    # The stubs know nothing of what Django's own class is made of; the tests do.

    def _cull(self) -> None:
        names = self._list_cache_files()  # type: ignore[attr-defined]
        if len(names) < self._max_entries:  # type: ignore[attr-defined]
            return
        for name in names:
            self._drop_if_over(name)
        super()._cull()  # type: ignore[misc]

    def _drop_if_over(self, name: str) -> None:
        """Delete the entry in the file `name` if its time is over, or if it is none (a disk's fault)."""
        try:
            with open(name, "rb") as file:
                self._is_expired(file)  # type: ignore[attr-defined]
        except FileNotFoundError:
            # Another process was faster.
            return
        except (UnpicklingError, AttributeError, ImportError, IndexError, TypeError, ValueError):
            self._delete(name)  # type: ignore[attr-defined]
