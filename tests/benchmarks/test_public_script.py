"""`tsds select --compat` against the public script itself, on arrays so small that its index is exact.

TSDS_REFERENCE names a clone of the script, ZifanL/TSDS.
"""

import os
from pathlib import Path

import numpy as np
import pytest

import measured
from tests.commands import tsds

# Of up to 483 rows the script's index has ten lists at most, and it looks at ten.
CASES = {
    "as shipped": {},
    "uniform": {"sigma": 0.0},
    "wide": {"sigma": 2.5, "alpha": 0.4},
    "few count": {"sigma": 1.5, "kde_K": 3},
    # With more than there are in sight, and sigma below 1, the script's densities are not numbers.
    "cut short": {"max_K": 4, "kde_K": 3, "alpha": 0.1},
    "all diverse": {"alpha": 0.0, "sigma": 0.5},
    "stops": {"alpha": 0.9999, "sigma": 2.0},
}
DEFAULTS = {"sample_size": 50, "alpha": 0.5, "C": 5.0, "sigma": 0.75, "max_K": 5000, "kde_K": 1000}
OPTIONS = {
    "alpha": "--alpha",
    "C": "--distance-scale",
    "sigma": "--kernel-radius",
    "max_K": "--max-neighbors",
    "kde_K": "--kde-neighbors",
}


@pytest.mark.parametrize("name", CASES)
def test_the_same_probabilities(name: str, tmp_path: Path):
    clone = os.environ.get("TSDS_REFERENCE")
    if not clone:
        pytest.skip("TSDS_REFERENCE names no clone of the public script")
    settings = DEFAULTS | CASES[name]
    arrays = write_arrays(tmp_path)
    script = measured.run(
        "run_reference.py",
        {
            "clone": str(Path(clone).resolve()),
            "plan": str(tmp_path / "plan.npz"),
            "settings": settings
            | {
                "query_embedding_path": str(arrays[0]),
                "candidate_embedding_path": str(arrays[1]),
                "output_folder": str(tmp_path / "output"),
            },
        },
        tmp_path / "run",
    )
    given = [part for key, option in OPTIONS.items() for part in (option, settings[key])]
    files = ["--queries", arrays[0], "--candidates", arrays[1], "--out", tmp_path / "o.npy"]
    done = tsds("select", "--compat", *files, "--size", 50, "--probabilities-out", tmp_path / "p.npy", *given)
    if name == "stops":
        assert script["failed"].startswith("AssertionError")
        assert "failed assertion" in done.stderr
        return
    assert "failed" not in script, script
    assert done.exit_code == 0, done.stderr
    if name == "cut short":
        assert "7 of 7 queries ran out of the 4 candidates" in done.stderr
    plan = np.load(tmp_path / "plan.npz")
    expected = np.bincount(plan["candidate"], weights=plan["mass"], minlength=400)
    # The script's distances are float32.
    assert np.abs(np.load(tmp_path / "p.npy") - expected).sum() / 2 < 1e-5


def write_arrays(folder: Path) -> tuple[Path, Path]:
    """Seven queries, 400 candidates, a quarter of them copies of four."""
    rng = np.random.default_rng(5)
    candidates, queries = rng.normal(size=(400, 5)), rng.normal(size=(7, 5))
    candidates[300:] = candidates[rng.integers(0, 4, 100)]
    queries[0] = candidates[0] + 0.01
    np.save(folder / "q.npy", queries.astype(np.float32))
    np.save(folder / "c.npy", candidates.astype(np.float32))
    return folder / "q.npy", folder / "c.npy"
