"""One run of this project on arrays in files, as a process that ``compare`` and ``scaling`` start."""

import numpy as np

import measured
from tsds_pipeline.core import array_pool, selection
from tsds_pipeline.core.config import SelectionConfig

# What a stage is made of; what remains of `select` is `other`: checking, scaling and copying.
STAGES = [
    (array_pool.ExactSearch, "__init__", "search"),
    (array_pool.ExactSearch, "search", "search"),
    (array_pool.KernelDensity, "__init__", "densities"),
    (array_pool.KernelDensity, "__call__", "densities"),
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
        prepare = _prepare()
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


def _prepare():
    """To be an ordinary import once ``prepare`` is there."""
    try:
        from tsds_pipeline import prepare
    except ImportError:
        measured.report({"skipped": "tsds_pipeline has no `prepare` yet"})
        raise SystemExit(0) from None
    return prepare


if __name__ == "__main__":
    main()
