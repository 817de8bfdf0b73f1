"""Vectors that come with the records: nothing is encoded and nothing is cached."""

from dataclasses import dataclass

import numpy as np
import polars as pl

from tsds_pipeline.core.arrays import LONGEST
from tsds_pipeline.encoders.base import as_fingerprint, check_vectors, describe, unit_rows
from tsds_pipeline.errors import UnusableVectorError


@dataclass(frozen=True)
class PrecomputedVectors:
    """The ``vector`` column of the records, which the corpus read from the field ``field``."""

    field: str
    normalize: bool

    @property
    def fingerprint(self) -> str:
        return as_fingerprint(kind="precomputed", field=self.field, normalize=self.normalize)

    def vectors(self, records: pl.DataFrame, name: str) -> np.ndarray:
        """The vectors (n, dim) float32; a missing, zero or not finite one is a :class:`UnusableVectorError`."""
        if "vector" not in records.columns:
            raise UnusableVectorError(
                f'{name}: its records have no vectors: [encoder] kind = "precomputed" reads the field '
                f'"{self.field}" of each record; name another with [encoder] field = "..."'
            )
        column = records["vector"]
        if column.null_count():
            record = describe(records.row(int(column.is_null().arg_max() or 0), named=True))
            raise UnusableVectorError(f'{name}: {record} has no "{self.field}": give each record its vector')
        vectors = np.ascontiguousarray(column.to_numpy(), dtype=np.float32)
        remedy = f'repair the field "{self.field}" or remove the record'
        check_vectors(vectors, records, name, remedy, np.inf if self.normalize else LONGEST)
        return unit_rows(vectors) if self.normalize else vectors
