"""Intervals against scipy, closed forms and measured coverage."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats as scipy_stats

from jaxrl_seq.run.stats import Interval, bootstrap_band, bootstrap_ci, iqm, probability_of_improvement, stratified_ci


def test_agrees_with_scipy_percentile_bootstrap():
    values = np.random.default_rng(1).gamma(2.0, 1.0, 25)
    ours = bootstrap_ci(values, resamples=20_000)
    theirs = scipy_stats.bootstrap(
        (values,), np.mean, method="percentile", n_resamples=20_000, rng=np.random.default_rng(2)
    ).confidence_interval
    assert ours.mean == pytest.approx(values.mean())
    assert (ours.lo, ours.hi) == pytest.approx((theirs.low, theirs.high), abs=0.02 * values.std())


def test_intervals_are_shown_as_tables_want_them():
    interval = Interval(1.0, 0.123456, 2.0)
    assert f"{interval}" == str(interval) == "1.00 [0.12, 2.00]"
    assert f"{interval:.3f}" == "1.000 [0.123, 2.000]"


def test_width_is_that_of_the_normal_approximation():
    values = np.random.default_rng(3).normal(size=400)
    ci = bootstrap_ci(values, level=0.9, resamples=20_000)
    expected = 2 * scipy_stats.norm.ppf(0.95) * values.std() / np.sqrt(values.size)
    assert ci.hi - ci.lo == pytest.approx(expected, rel=0.03)


@pytest.mark.parametrize(("seeds", "low", "high"), [(5, 0.78, 0.90), (30, 0.90, 0.97)])
def test_coverage_is_what_the_docstring_says(seeds, low, high):
    rng = np.random.default_rng(4)
    cis = [bootstrap_ci(rng.normal(2.0, 1.0, seeds), resamples=500, seed=i) for i in range(600)]
    assert low < np.mean([ci.lo <= 2.0 <= ci.hi for ci in cis]) < high


def test_one_seed_collapses_and_the_same_seed_repeats():
    assert bootstrap_ci([0.7]) == (0.7, 0.7, 0.7)
    values = [0.1, 0.5, 0.9]
    assert bootstrap_ci(values) == bootstrap_ci(values)
    assert bootstrap_ci(values, seed=1) != bootstrap_ci(np.array(values) + 1e-3, seed=2)


def test_nan_in_values_is_kept_and_in_curves_passed_over():
    assert np.isnan(bootstrap_ci([1.0, np.nan])).all()
    band = bootstrap_band([[np.nan, 1.0, np.nan], [3.0, 3.0, np.nan]])
    np.testing.assert_array_equal(band.mean, [3.0, 2.0, np.nan])
    assert band.lo[0] == band.hi[0] == 3.0 and np.isnan(band.lo[2])
    assert 1.0 <= band.lo[1] < band.hi[1] <= 3.0


def test_band_is_the_interval_at_each_point():
    curves = np.random.default_rng(5).normal(size=(6, 300))  # more columns than one chunk
    band = bootstrap_band(curves)
    for x in (0, 255, 256, 299):
        assert (band.mean[x], band.lo[x], band.hi[x]) == pytest.approx(bootstrap_ci(curves[:, x]))


def test_iqm_is_a_trimmed_mean():
    values = np.random.default_rng(6).normal(size=(10, 7))
    assert iqm(values) == pytest.approx(scipy_stats.trim_mean(values.ravel(), 0.25))
    assert iqm([5.0]) == 5.0
    assert iqm([0, 1, 3, 1000]) == 2.0


def test_stratified_interval():
    rng = np.random.default_rng(7)
    scores = rng.normal(size=(8, 5)) * 0.1 + np.arange(5)  # tasks differ far more than seeds
    ci = stratified_ci(scores, resamples=500)
    assert ci.lo <= ci.mean == iqm(scores) <= ci.hi
    assert ci.hi - ci.lo < 0.5  # resampling over tasks too would give about 3
    one = stratified_ci(scores[:1])
    assert one.lo == one.mean == one.hi


def test_probability_of_improvement():
    assert probability_of_improvement([2, 3], [0, 1]) == 1.0
    assert probability_of_improvement([1], [1]) == 0.5
    a, b = np.random.default_rng(8).normal(size=(2, 20))
    expected = scipy_stats.mannwhitneyu(a, b).statistic / 400
    assert probability_of_improvement(a, b) == pytest.approx(expected)


@pytest.mark.parametrize("bad", [[], 3.0, [[1.0]]])
def test_bad_shapes(bad):
    with pytest.raises(ValueError, match=r"\[S\]"):
        bootstrap_ci(bad)
    with pytest.raises(ValueError, match="level is 95"):
        bootstrap_ci([1.0, 2.0], level=95)
    for call in (bootstrap_band, stratified_ci):
        with pytest.raises(ValueError, match="must be"):
            call([1.0, 2.0])
    with pytest.raises(ValueError, match="no values"):
        iqm([])
