"""The data sets: shapes, the correlations and signal-to-noise ratios they promise, and the tables' groups."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import scipy.sparse

from sparseopt.datasets import breast_cancer, diabetes_additive, digits_rows, simulated
from sparseopt.losses import LOSSES, get_loss


@pytest.mark.parametrize("density", [None, 0.2])
@pytest.mark.parametrize("n_outputs", [1, 3])
@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss_takes_its_simulated_response(loss, n_outputs, density):
    n_outputs = max(2, n_outputs) if loss == "multinomial" else n_outputs
    X, y, groups, w = simulated(200, 30, (1, 5), active=4, loss=loss, n_outputs=n_outputs, density=density, seed=3)
    p = len(groups)
    assert X.shape == (200, p)
    assert X.dtype == np.float64
    assert w.shape == ((p,) if n_outputs == 1 else (p, n_outputs))
    assert y.shape == ((200,) if n_outputs == 1 or loss == "multinomial" else (200, n_outputs))
    truth = w.reshape(p, -1)
    active = np.unique(groups[(truth != 0.0).any(axis=1)])
    assert len(active) == 4
    assert (truth[np.isin(groups, active)] != 0.0).all()
    if density is None:
        assert X.flags.f_contiguous
    else:
        assert X.format == "csc"
        assert X.has_canonical_format
    built = get_loss(loss, y)
    z = (X @ w).reshape(200, -1)
    # The truth explains the response better than any constant does.
    assert built.value(z) < built.value(np.tile(built.null_intercept(), (200, 1)))


def test_groups_are_consecutive_and_sizes_cover_the_range():
    _, _, groups, _ = simulated(5, 300, (2, 4), active=0)
    sizes = np.bincount(groups)
    assert (np.diff(groups) >= 0).all()
    assert len(sizes) == 300
    assert set(sizes) == {2, 3, 4}
    assert (np.bincount(simulated(5, 7, 3, active=1).groups) == 3).all()


@pytest.mark.parametrize("rho", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("density", [None, 0.05, 1.0])
def test_columns_have_the_promised_correlations(rho, density):
    n, p = 40_000, 6
    X = simulated(n, 2, p // 2, active=1, rho=rho, density=density, seed=5).X
    dense = X if density is None else X.toarray()
    expected = rho ** np.abs(np.subtract.outer(np.arange(p), np.arange(p)))
    # Six standard errors; a sparse product has the kurtosis 3 / density.
    error = 6.0 * np.sqrt(3.0 / (density or 1.0) / n)
    assert np.corrcoef(dense.T) == pytest.approx(expected, abs=error)
    assert dense.mean(axis=0) == pytest.approx(np.zeros(p), abs=6.0 / np.sqrt(n))
    assert dense.var(axis=0) == pytest.approx(np.full(p, density or 1.0), abs=error)
    share = (dense != 0.0).mean(axis=0)
    assert share == pytest.approx(np.full(p, density or 1.0), abs=6.0 * np.sqrt((density or 0.0) / n) + 1e-12)


def test_negative_correlation_of_dense_columns():
    X = simulated(40_000, 1, 3, active=1, rho=-0.7).X
    assert np.corrcoef(X.T)[0] == pytest.approx([1.0, -0.7, 0.49], abs=0.03)


@pytest.mark.parametrize("snr", [0.5, 3.0])
def test_snr_means_what_the_module_says(snr):
    def problem(loss, n_outputs=1):
        X, y, _, w = simulated(60_000, 4, 3, active=2, snr=snr, loss=loss, n_outputs=n_outputs, seed=11)
        return X @ w, y

    z, y = problem("squares")
    assert z.var() / (y - z).var() == pytest.approx(snr, rel=0.03)
    z, y = problem("squares", 2)
    assert z.var(axis=0) / (y - z).var(axis=0) == pytest.approx(snr, rel=0.03)
    z, y = problem("huber")
    noise = (y - z) / z.std() * np.sqrt(snr)
    # Student's t with 3 degrees of freedom, over sqrt(3): its quartiles are at 0.7649 / sqrt(3).
    assert np.quantile(noise, [0.25, 0.75]) == pytest.approx([-0.4416, 0.4416], abs=0.015)
    assert np.abs(noise).max() > 8.0
    z, y = problem("logistic")
    assert z.var() == pytest.approx(snr * np.pi**2 / 3.0, rel=1e-9)
    z, y = problem("multinomial", 3)
    assert z.var(axis=0) == pytest.approx(np.full(3, snr * np.pi**2 / 6.0), rel=1e-9)
    z, y = problem("poisson")
    assert np.exp(z).var() / np.exp(z).mean() == pytest.approx(snr, rel=0.15)
    assert y.var() == pytest.approx(np.exp(z).var() + np.exp(z).mean(), rel=0.1)


@pytest.mark.parametrize("loss", ["logistic", "poisson", "multinomial"])
def test_the_response_is_calibrated(loss):
    """Where the mean of the loss predicts m, the response averages m."""
    n_outputs = 3 if loss == "multinomial" else 1
    X, y, _, w = simulated(40_000, 4, 3, active=3, loss=loss, n_outputs=n_outputs, seed=2)
    built = get_loss(loss, y)
    z = (X @ w).reshape(len(y), -1)
    mean = built.mean(z)[:, 0]
    middle = (mean > 0.3) & (mean < 0.7)
    error = 6.0 / np.sqrt(middle.sum())
    assert (built.y[middle, 0] - mean[middle]).mean() == pytest.approx(0.0, abs=error)


def test_seeds():
    first, again, other = (simulated(20, 4, active=2, density=0.5, seed=seed) for seed in (1, 1, 2))
    assert (first.X != again.X).nnz == 0
    assert (first.y == again.y).all()
    assert (first.y != other.y).any()
    assert (simulated(20, 4, active=2, seed=1).X == simulated(20, 4, active=2, seed=1).X).all()


def test_no_signal_is_a_problem_too():
    for loss in LOSSES:
        _, y, _, w = simulated(30, 5, active=0, loss=loss, n_outputs=2)
        assert not w.any()
        assert np.isfinite(y).all()


def test_very_sparse_columns_may_be_empty():
    X = simulated(20, 50, active=1, density=0.01, seed=0).X
    assert scipy.sparse.issparse(X)
    assert (np.diff(X.indptr) == 0).any()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n": 0}, r"^n is 0: pass an integer >= 1\.$"),
        ({"n_groups": 0}, r"^n_groups is 0: pass an integer >= 1\.$"),
        ({"size": 0}, r"^size is 0: pass an integer >= 1 or \(low, high\)"),
        ({"size": (4, 2)}, r"^size is \(4, 2\): pass an integer >= 1 or \(low, high\)"),
        ({"active": 21}, r"^active is 21: pass an integer from 0 to n_groups=20\.$"),
        ({"rho": 1.0}, r"^rho is 1.0: pass a correlation in \(-1, 1\)\.$"),
        ({"rho": -0.5, "density": 0.1}, r"^rho is -0.5: pass a correlation in \[0, 1\) for sparse columns\.$"),
        ({"snr": 0.0}, r"^snr is 0.0: pass a positive number\.$"),
        ({"loss": "square"}, r"^loss is 'square': pass one of squares, huber, logistic, poisson, multinomial\.$"),
        ({"loss": "multinomial"}, r"^n_outputs is 1: pass an integer >= 2 for multinomial\.$"),
        ({"n_outputs": 0}, r"^n_outputs is 0: pass an integer >= 1 for squares\.$"),
        ({"density": 0.0}, r"^density is 0.0: pass a share in \(0, 1\], or None"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        simulated(**{"n": 10, "n_groups": 20, **arguments})


@pytest.mark.parametrize(
    ("table", "shape", "n_groups"),
    [(breast_cancer, (569, 30), 10), (diabetes_additive, (442, 55), 10), (digits_rows, (1797, 64), 8)],
)
def test_tables(table, shape, n_groups):
    data = table()
    assert data.X.shape == shape
    assert data.X.flags.f_contiguous
    assert data.X.dtype == np.float64
    assert np.isfinite(data.X).all()
    assert data.groups.shape == (shape[1],)
    assert (np.unique(data.groups) == np.arange(n_groups)).all()
    assert len(data.group_names) == len(set(data.group_names)) == n_groups
    assert len(data.feature_names) == len(set(data.feature_names)) == shape[1]
    loss = get_loss(data.loss, data.y)
    assert loss.n_samples == shape[0]
    if table is not digits_rows:
        assert data.X.mean(axis=0) == pytest.approx(np.zeros(shape[1]), abs=1e-12)
        assert data.X.std(axis=0) == pytest.approx(np.ones(shape[1]), rel=1e-12)


def test_breast_cancer_groups_hold_three_statistics_of_one_measurement():
    data = breast_cancer()
    assert (np.bincount(data.groups) == 3).all()
    for g, kind in enumerate(data.group_names):
        names = {data.feature_names[j] for j in np.flatnonzero(data.groups == g)}
        assert names == {f"mean {kind}", f"{kind} error", f"worst {kind}"}


def test_diabetes_splines_hold_each_variable():
    from sklearn.datasets import load_diabetes

    raw = load_diabetes()
    for n_knots in (2, 5, 8):
        data = diabetes_additive(n_knots)
        sizes = np.bincount(data.groups)
        assert sizes[1] == 1  # sex
        assert (np.delete(sizes, 1) == n_knots + 1).all()
        for g in range(10):
            # Splines contain the straight line: with a constant they reproduce the variable.
            block = np.column_stack([np.ones(442), data.X[:, data.groups == g]])
            assert np.linalg.matrix_rank(block) == block.shape[1]
            fitted = block @ np.linalg.lstsq(block, raw.data[:, g], rcond=None)[0]
            assert fitted == pytest.approx(raw.data[:, g], abs=1e-10)
    with pytest.raises(ValueError, match="n_knots is 1: pass an integer >= 2"):
        diabetes_additive(1)


def test_digits_rows_are_rows_of_the_image():
    from sklearn.datasets import load_digits

    data, images = digits_rows(), load_digits().images
    for row in range(8):
        assert (data.X[:, data.groups == row] == images[:, row, :] / 16.0).all()
    assert data.X.min() == 0.0
    assert data.X.max() == 1.0


def test_importing_the_data_sets_imports_neither_scipy_nor_scikit_learn():
    code = "import sys, numpy; import sparseopt.datasets; print(sorted({'scipy', 'sklearn'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
