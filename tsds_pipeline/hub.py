"""Files of models on the Hugging Face hub: from the local cache where they are there, else downloaded once."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tsds_pipeline.errors import TsdsError
from tsds_pipeline.retries import persistently


@contextmanager
def offline() -> Iterator[None]:
    """Inside, the hub is not asked: only what is in the local cache is found."""
    from huggingface_hub import constants

    before, constants.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE, True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def model_files(
    repository: str,
    said: str,
    remedy: str,
    *,
    needed: str | None = None,
    only: Sequence[str] | None = None,
    ignored: Sequence[str] | None = None,
) -> Path:
    """The folder with the files of ``repository``: those like the patterns ``only``, and none like ``ignored``.

    A folder in the cache without the file ``needed`` does not do. Raises :class:`TsdsError`, which begins with what
    was ``said`` and names the ``remedy``.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    patterns = {"allow_patterns": only and list(only), "ignore_patterns": ignored and list(ignored)}
    try:
        try:
            # Without the patterns a folder lacks what was never wanted, and the hub is asked, at every look.
            folder = Path(snapshot_download(repository, local_files_only=True, **patterns))
            if needed is None or (folder / needed).exists():
                return folder
        except LocalEntryNotFoundError:
            pass
        return Path(persistently(lambda: snapshot_download(repository, **patterns)))
    except Exception as error:  # beside the hub's own those of whatever connects to it
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise TsdsError(f"{said} cannot be found: {remedy} ({reason})") from None
