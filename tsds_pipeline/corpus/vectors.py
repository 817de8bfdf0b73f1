"""Precomputed vectors given with the records. Vectors that an encoder makes are not here."""

from typing import Any

import numpy as np

from tsds_pipeline.corpus.quarantine import BadRecord
from tsds_pipeline.corpus.raw import json_name


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
    if vector.ndim != 1 or len(vector) == 0 or vector.dtype.kind not in "fiu":
        raise BadRecord(f'the vector field "{name}" is not a list of numbers')
    with np.errstate(over="ignore"):  # what is too large becomes infinite, and is reported
        # Adding zero turns -0.0 into 0.0: equal vectors have equal bytes.
        vector = vector.astype(np.float32) + np.float32(0)
    if not np.isfinite(vector).all():
        raise BadRecord(f'the vector field "{name}" holds a number that is not finite in float32')
    return vector
