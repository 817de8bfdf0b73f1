"""The sweep of alpha: its figures are those of the solver, and held-back queries decide."""

import numpy as np
import pytest

from tsds_pipeline.calibration import alpha as module
from tsds_pipeline.calibration.advice import TaskFindings, alpha_in_words, scale_in_words
from tsds_pipeline.calibration.alpha import DRAWS, FOLDS, GRID, sweep_alpha
from tsds_pipeline.calibration.scale import find_scale
from tsds_pipeline.core.arrays import all_distances
from tsds_pipeline.core.metrics import energy_distance
from tsds_pipeline.core.transport import by_unit, effective_sample_size, solve
from tsds_pipeline.graph import observe, stored
from tsds_pipeline.project import Project
from tsds_pipeline.settings import Settings
from tsds_pipeline.stages import holdout
from tsds_pipeline.stages.holdout import folds
from tsds_pipeline.stages.pool import read_pool


def made(root, task="many", seed=0, **selection):
    observed = observe(Project.load(root))
    pool = read_pool(observed, task)
    settings = Settings.model_validate({"selection": {"size": 12, **selection}}).resolved_task(task)
    ids = stored(observed.project.storage, f"query_embeddings|{task}").frame["content_id"].to_list()
    return sweep_alpha(task, settings, pool, ids, seed), pool, ids


def test_the_rows_are_what_solving_gives(text_project):
    sweep, pool, _ = made(text_project, alpha=0.55)
    assert {row.alpha for row in sweep.rows} == {*GRID, 0.55, sweep.automatic}
    assert [row.alpha for row in sweep.rows if row.in_use] == [0.55]
    for row in sweep.rows:
        solution = solve(pool, len(pool.queries), alpha=row.alpha)
        p = by_unit(solution.probabilities, pool.units)
        assert row.neighbors == np.median(solution.neighborhood_sizes)
        assert row.effective_size == pytest.approx(effective_sample_size(p))
        assert row.with_mass == np.count_nonzero(p)
        assert (row.certain is None) == (row.with_mass < 12)
        assert len(row.energy) == (0 if row.certain is None else FOLDS * DRAWS)


def test_the_automatic_alpha_is_in_use_unless_another_is_set(text_project):
    sweep, _, _ = made(text_project)
    assert sweep.is_automatic
    assert sweep.used.alpha == sweep.automatic
    assert sweep.used.effective_size >= 12 * (1 - 1e-9)


def test_what_is_near_to_queries_that_were_held_back_wins(text_project):
    sweep, _, _ = made(text_project)
    assert sweep.telling
    assert sweep.best.energy.mean() < sweep.random_energy
    assert sweep.best in sweep.as_good
    assert sweep.rows[0].energy.mean() == pytest.approx(sweep.random_energy, rel=0.1), (
        "alpha 0 is nearly random"
    )
    again, _, _ = made(text_project)
    assert np.array_equal(again.best.energy, sweep.best.energy)
    other, _, _ = made(text_project, seed=1)
    assert not np.array_equal(other.best.energy, sweep.best.energy)


def test_alpha_one_picks_the_nearest_of_the_others(text_project, monkeypatch):
    # Where as many are drawn as have mass, the sample is known.
    monkeypatch.setattr(module, "GRID", (1.0,))
    sweep, pool, ids = made(text_project, size=1, alpha=1.0)
    row = sweep.used
    assert row.with_mass >= 1
    solution = solve(pool, len(pool.queries), alpha=1.0)
    size = int(np.count_nonzero(solution.probabilities))
    sweep, _, _ = made(text_project, size=size, alpha=1.0)
    fold = folds(ids, FOLDS, "tsds calibrate 0 many")
    for number in range(FOLDS):
        kept, held = pool.queries[fold != number], pool.queries[fold == number]
        nearest = np.unique(all_distances(kept, pool.vectors(np.arange(pool.size))).argmin(axis=1))
        wanted = max(1, round(size * len(kept) / len(pool.queries)))
        if wanted >= len(nearest):
            expected = energy_distance(pool.vectors(nearest), held)
            got = sweep.used.energy[number * DRAWS : (number + 1) * DRAWS]
            np.testing.assert_allclose(got, expected, rtol=1e-6)


def test_one_query_cannot_be_held_back(text_project):
    sweep, _, _ = made(text_project, "one", size=3)
    assert sweep.folds == 1
    assert sweep.best is None
    assert np.isnan(sweep.random_energy)
    assert "none can be held back" in alpha_in_words(sweep)[0]


def test_a_size_beyond_the_effective_size_is_warned_of(text_project):
    sweep, _, _ = made(text_project, alpha=0.9, size=60)
    assert sweep.used.effective_size < 60
    said = " ".join(alpha_in_words(sweep))
    assert "is below the 60 examples" in said or "fewer than the 60" in said


@pytest.mark.parametrize("selection", [{"size": 1000}, {"size": 1000, "alpha": 0.3}])
def test_more_than_there_are(text_project, selection):
    sweep, _, _ = made(text_project, **selection)
    assert sweep.automatic is None
    assert sweep.best is None
    said = " ".join(alpha_in_words(sweep))
    assert ("There are fewer than 1,000 examples" in said) == (sweep.chosen is None)
    assert ("fewer than the 1,000 asked for" in said) == (sweep.chosen is not None)


@pytest.mark.parametrize(
    "selection", [{"size": "auto"}, {"with_replacement": True, "size": 400}, {"algorithm": "knn_tv"}]
)
def test_other_settings(text_project, selection):
    sweep, _, _ = made(text_project, **selection)
    assert sweep.best is not None
    assert sweep.size >= 1


@pytest.mark.parametrize("alpha", ["auto", 0.05])
def test_large_neighbourhoods_are_left_out(text_project, monkeypatch, alpha):
    everything, _, _ = made(text_project, alpha=alpha)
    monkeypatch.setattr(module, "_MOST_PAIRS", 100)
    sweep, _, _ = made(text_project, alpha=alpha)
    assert [row.alpha for row in sweep.rows][:2] == [0.0, sweep.left_out]
    assert {row.alpha for row in sweep.rows} < {row.alpha for row in everything.rows}
    said = " ".join(alpha_in_words(sweep))
    assert "too large to be looked at" in said
    assert "fewer than" not in said
    if alpha == 0.05:
        assert sweep.used is None
        assert "Alpha 0.05, in use, gives neighbourhoods that are too large" in said


def test_what_is_too_large_is_not_solved_first(text_project, monkeypatch):
    monkeypatch.setattr(module, "_MOST_PAIRS", 0)
    monkeypatch.setattr(module, "_ESTIMATED_FROM", 2)
    solved, solve_all = [], module.sweep

    def noted(pool, queries, alphas, **options):
        for swept in solve_all(pool, queries, alphas, **options):
            solved.append((queries, swept.alpha))
            yield swept

    monkeypatch.setattr(module, "sweep", noted)
    sweep, pool, _ = made(text_project, alpha=0.3)
    assert [row.alpha for row in sweep.rows] == [0.0]
    assert sweep.left_out == 1.0
    assert [alpha for queries, alpha in solved if queries == len(pool.queries)] == [0.0]
    assert "Alpha 0.3, in use" in " ".join(alpha_in_words(sweep))


def test_neighbours_that_were_not_kept_are_searched_again(text_project, monkeypatch):
    expected, _, _ = made(text_project)
    monkeypatch.setattr(holdout, "_REMEMBERED", 30)
    found, _, _ = made(text_project)
    for one, other in zip(expected.rows, found.rows, strict=True):
        np.testing.assert_allclose(one.energy, other.energy, rtol=1e-9)


def test_the_distance_scale_is_looked_at_in_blocks(text_project, monkeypatch):
    from tsds_pipeline.calibration import scale

    sweep, pool, _ = made(text_project)
    settings = Settings.model_validate({"selection": {"distance_scale": 500.0}}).resolved_task("many")
    whole = find_scale(settings, pool)
    monkeypatch.setattr(scale, "_BLOCK", 8 * pool.size * 2)
    parts = find_scale(settings, pool)
    assert parts.fitting == pytest.approx(whole.fitting)
    assert not whole.fits
    said = scale_in_words([TaskFindings(sweep, whole, "knn_kde")], Settings())
    assert "times larger than what fits" in said[0]
    assert 'alpha = "auto"' in said[-1]
