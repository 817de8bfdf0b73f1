"""One run of this project on arrays in files, as a process that ``compare`` and ``scaling`` start."""

import numpy as np

import measured
from tsds_pipeline.core import cells, density, neighbors, selection
from tsds_pipeline.core.config import SelectionConfig
from tsds_pipeline.core.prepared import prepare

# What a stage is made of; what remains of `select` is `other`: checking, scaling and copying.
STAGES = [
    (cells.Cells, "__init__", "index"),
    (neighbors.ExactSearch, "search", "search"),
    (neighbors.CellSearch, "search", "search"),
    (density.KernelDensity, "__call__", "densities"),
    (selection, "solve", "transport"),
    (selection, "draw", "draw"),
]


def main() -> None:
    import faiss  # noqa: F401  (in no stage)

    spec = measured.spec()
    candidates = np.load(spec["candidates"], mmap_mode="r" if spec["mapped"] else None)[: spec["rows"]]
    queries, size = np.load(spec["queries"]), spec["size"]
    config = SelectionConfig(**spec["config"])
    clock = measured.StageClock()
    for owner, function, stage in STAGES:
        clock.watch(owner, function, stage)
    preparing = {}
    if spec["earlier_queries"]:
        with clock.stage("other"):
            candidates = prepare(candidates, config)
        preparing = clock.take()
        selection.select(np.load(spec["earlier_queries"]), candidates, size, config, 0)
        clock.take()
    with clock.stage("other"):
        selected = selection.select(queries, candidates, size, config, 0)
    result = {"stages": clock.take(), "preparing": preparing, "peak": measured.peak()}
    keep_plan(spec["plan"], selected)
    measured.report(result)


def keep_plan(path: str, selected: selection.Selection) -> None:
    """Write the plan, entry by entry."""
    plan = selected.plan
    if plan.background:
        raise SystemExit("the plan reaches the whole pool, which the comparison does not handle: raise alpha")
    density = selected.densities[plan.candidate]
    np.savez(path, query=plan.query, candidate=plan.candidate, mass=plan.mass, density=density)


if __name__ == "__main__":
    main()
