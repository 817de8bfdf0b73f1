"""Whether the distance scale suits the distances of a task; the criterion is in ``core.calibration``."""

import numpy as np

from tsds_pipeline.core.arrays import row_blocks, spread_sample
from tsds_pipeline.core.calibration import DistanceScale, distance_scale
from tsds_pipeline.core.transport import DEFAULT_DISTANCE_SCALES
from tsds_pipeline.settings import ResolvedTask
from tsds_pipeline.stages.pool import StoredPool

# Queries that are looked at, each with its distance to every candidate.
_QUERIES = 64
_BLOCK = 2**28


def scale_in_use(settings: ResolvedTask) -> float:
    """C, as set or by default."""
    chosen = settings.distance_scale
    return DEFAULT_DISTANCE_SCALES[settings.algorithm] if chosen is None else chosen


def find_scale(settings: ResolvedTask, pool: StoredPool) -> DistanceScale:
    """The scale that ``settings`` give, against the distances of ``pool``."""
    rows = spread_sample(len(pool.queries), _QUERIES)
    weights = pool.weights(np.arange(pool.size))
    parts = [
        distance_scale(
            pool.distances(rows[start:stop]),
            weights,
            scale_in_use(settings),
            threshold=settings.algorithm == "knn_tv",
        )
        for start, stop in row_blocks(len(rows), 8 * pool.size, _BLOCK)
    ]
    shares = np.array([stop - start for start, stop in row_blocks(len(rows), 8 * pool.size, _BLOCK)])
    costs = np.average([(one.least, one.fitting, one.most) for one in parts], axis=0, weights=shares)
    return DistanceScale(parts[0].scale, parts[0].reference, *(float(cost) for cost in costs))
