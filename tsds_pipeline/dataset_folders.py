"""Folders that ``save_to_disk`` of Hugging Face datasets wrote: which of their files are the data.

What else lies there (an earlier, longer set of shards; caches of ``map``) is no part of the dataset. The package
``datasets`` is not needed.
"""

import json
from collections.abc import Callable, Collection

from tsds_pipeline.errors import TsdsError, printable

_STATE = "state.json"
_SPLITS = "dataset_dict.json"


def data_files(folder: str, names: Collection[str], read: Callable[[str], bytes]) -> list[str] | None:
    """The names of the data files of the dataset in ``folder``, which holds ``names``; None where it is no dataset.

    ``read`` gives the bytes of a small file of the folder. Raises :class:`TsdsError` for a folder of splits, which
    are named one by one, for a description that is damaged, and for a file that is missing.
    """
    if _SPLITS in names:
        splits = _described(folder, _SPLITS, read, lambda described: described["splits"])
        raise TsdsError(
            f"{folder}: a dataset with the splits {printable(', '.join(splits))}: name the one that "
            f'counts, as in path = "{folder}{printable(splits[0])}"'
        )
    if _STATE not in names:
        return None
    files = _described(
        folder, _STATE, read, lambda described: [one["filename"] for one in described["_data_files"]]
    )
    if missing := sorted(set(files) - set(names)):
        raise TsdsError(f"{folder}: the dataset's {printable(missing[0])} is missing: save or copy it again")
    return files


def _described(
    folder: str, name: str, read: Callable[[str], bytes], found: Callable[[dict], list[str]]
) -> list[str]:
    try:
        names = found(json.loads(read(name)))
        if names and all(isinstance(one, str) for one in names):
            return names
    except (ValueError, TypeError, KeyError, RecursionError):
        pass
    raise TsdsError(f"{folder}{name}: does not describe a dataset of Hugging Face: save or copy it again")
