"""Precomputed vectors: given in a field of each record. Those in files beside the records are in ``vector_files``.

Vectors that an encoder makes are not here.
"""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from tsds_pipeline.corpus.quarantine import BadRecord
from tsds_pipeline.corpus.raw import json_name


class Vectors(Protocol):
    """Where the vector of a record is found."""

    field: str
    """The field that is no part of the record, as it holds its vector."""

    def of(self, fields: dict[str, Any], record_id: str | None) -> np.ndarray:
        """The vector, float32 (dim,), of the record with these ``fields``, whose own id is ``record_id``.

        Raises :class:`BadRecord` where it has none that can be used.
        """
        ...


@dataclass(frozen=True)
class FieldVectors:
    """Vectors in the field ``field`` of the records."""

    field: str

    def of(self, fields: dict[str, Any], record_id: str | None) -> np.ndarray:
        """See :class:`Vectors`."""
        return given_vector(fields, self.field)


def given_vector(fields: dict[str, Any], name: str) -> np.ndarray:
    """The vector in the field ``name`` as float32 (dim,); :class:`BadRecord` where it is no finite vector."""
    if name not in fields:
        raise BadRecord(f'the vector field "{name}" is missing')
    value = fields[name]
    if not isinstance(value, list):
        raise BadRecord(f'the vector field "{name}" holds {json_name(value)}, expected a list of numbers')
    try:
        vector = np.array(value)
    except ValueError:  # lists of different lengths
        vector = np.array(None)
    # Among numbers NumPy takes true and false for 1 and 0.
    if (
        vector.ndim != 1
        or len(vector) == 0
        or vector.dtype.kind not in "fiu"
        or bool in set(map(type, value))
    ):
        raise BadRecord(f'the vector field "{name}" is not a list of numbers')
    return finite(vector, f'the vector field "{name}"')


def finite(vector: np.ndarray, name: str) -> np.ndarray:
    """``vector`` as float32; :class:`BadRecord`, which calls it ``name``, where that is not finite."""
    with np.errstate(over="ignore"):  # what is too large becomes infinite, and is reported
        # Adding zero turns -0.0 into 0.0: equal vectors have equal bytes.
        vector = vector.astype(np.float32) + np.float32(0)
    if not np.isfinite(vector).all():
        raise BadRecord(f"{name} holds a number that is not finite in float32")
    return vector
