"""The distributed PCA equals scikit-learn's, to 1e-5."""

import io
import pickle

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler

from fruits_assets.core.errors import PcaError
from fruits_assets.core.pca import Moments, PcaModel, check_n_components, fit

MANY_ROWS, MANY_FEATURES = (300, 20), (15, 40)


def _features(shape: tuple[int, int], *, mean: float = 0.0) -> np.ndarray:
    """(n, d) float32: correlated features whose variances differ widely."""
    random = np.random.default_rng(0)
    rows, features = shape
    spread = np.geomspace(10, 0.01, features)
    mixing = np.linalg.qr(random.normal(size=(features, features)))[0]
    data = random.normal(size=(rows, features)) * spread @ mixing + mean
    return data.astype(np.float32)


def _fit(
    data: np.ndarray, n_components: float = 0.95, *, standardize: bool = False, parts: int = 3
) -> PcaModel:
    """As the pipeline fits: moments of parts about the first row, added up."""
    pivot = data[0].astype(np.float64)
    moments = Moments.zero(data.shape[1])
    for part in np.array_split(data, parts):
        moments += Moments.of(part, pivot)
    return fit(moments, pivot, n_components=n_components, standardize=standardize)


def _assert_equal(model: PcaModel, data: np.ndarray, n_components: float) -> None:
    """`data` are the features as scikit-learn is to see them: scaled already."""
    reference = PCA(n_components=n_components, svd_solver="full").fit(data)
    expected = np.asarray(reference.components_)
    largest = expected[np.arange(len(expected)), np.abs(expected).argmax(axis=1)]
    expected = expected * np.sign(largest)[:, np.newaxis]
    np.testing.assert_equal(model.components.shape, expected.shape)
    np.testing.assert_allclose(model.components, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(model.explained_variance, reference.explained_variance_, rtol=1e-5)
    np.testing.assert_allclose(
        model.explained_variance_ratio, reference.explained_variance_ratio_, rtol=1e-5
    )


@pytest.mark.parametrize("shape", [MANY_ROWS, MANY_FEATURES])
@pytest.mark.parametrize("n_components", [1, 7, 14, 0.5, 0.95, 0.999])
def test_it_equals_scikit_learn(shape: tuple[int, int], n_components: float) -> None:
    data = _features(shape, mean=3.0)
    model = _fit(data, n_components)
    exact = data.astype(np.float64)
    _assert_equal(model, exact, n_components)
    np.testing.assert_allclose(model.mean, exact.mean(axis=0), rtol=1e-12)
    np.testing.assert_array_equal(model.scale, np.ones(shape[1]))
    projected = PCA(n_components=n_components, svd_solver="full").fit_transform(exact)
    signs = np.sign((projected * model.transform(data)).sum(axis=0))
    np.testing.assert_allclose(model.transform(data), projected * signs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shape", [MANY_ROWS, MANY_FEATURES])
@pytest.mark.parametrize("n_components", [5, 0.95])
def test_standardised_it_equals_scikit_learn(shape: tuple[int, int], n_components: float) -> None:
    data = _features(shape, mean=3.0)
    model = _fit(data, n_components, standardize=True)
    exact = data.astype(np.float64)
    unbiased = np.sqrt(shape[0] / (shape[0] - 1))  # StandardScaler divides by n, not by n - 1
    scaler = StandardScaler().fit(exact)
    np.testing.assert_allclose(model.scale, scaler.scale_ * unbiased, rtol=1e-10)
    scaled = scaler.transform(exact) / unbiased
    _assert_equal(model, scaled, n_components)
    projected = scaled @ model.components.T
    np.testing.assert_allclose(model.transform(data), projected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(model.spectrum.sum(), 1.0)
    assert model.explained_variance.sum() <= shape[1]


def test_as_many_components_as_features_lose_nothing() -> None:
    data = _features(MANY_ROWS)
    model = _fit(data, MANY_ROWS[1])
    np.testing.assert_allclose(model.components @ model.components.T, np.eye(20), atol=1e-12)
    back = model.transform(data).astype(np.float64) @ model.components + model.mean
    np.testing.assert_allclose(back, data, atol=1e-5)


def test_the_largest_loading_of_each_component_is_positive() -> None:
    components = _fit(_features(MANY_ROWS), 20).components
    assert (components.max(axis=1) == np.abs(components).max(axis=1)).all()


@pytest.mark.parametrize("shape", [MANY_ROWS, MANY_FEATURES])
def test_the_spectrum_is_that_of_all_components(shape: tuple[int, int]) -> None:
    model = _fit(_features(shape), 2)
    assert len(model.spectrum) == min(shape[0] - 1, shape[1])
    assert (np.diff(model.spectrum) <= 0).all()
    np.testing.assert_allclose(model.spectrum.sum(), 1.0)
    np.testing.assert_array_equal(model.spectrum[:2], model.explained_variance_ratio)


def test_a_share_keeps_the_fewest_components_that_explain_more() -> None:
    data = _features(MANY_ROWS)
    reached = np.cumsum(_fit(data, 20).explained_variance_ratio)
    for share in (0.01, 0.3, 0.9, 0.9999):
        count = len(_fit(data, share).components)
        assert reached[count - 1] > share
        assert count == 1 or reached[count - 2] <= share


def test_a_share_that_cannot_be_reached_keeps_all_meaningful_components() -> None:
    for seed in range(30):  # in some of them the shares add up to less than 1, by rounding
        random = np.random.default_rng(seed)
        plane = random.normal(size=(20, 2)) @ random.normal(size=(2, 6))
        assert len(_fit(plane, np.nextafter(1.0, 0)).components) == 2


def test_a_share_that_is_just_reached_takes_one_component_more() -> None:
    cross = np.array([[1, 0], [-1, 0], [0, 1], [0, -1]], np.float32)
    assert len(_fit(cross, 0.5).components) == 2
    assert len(_fit(cross, 0.49).components) == 1


@pytest.mark.parametrize("parts", [1, 2, 7, 300, 400])
def test_moments_add_up_in_any_grouping(parts: int) -> None:
    data = _features(MANY_ROWS, mean=3.0)
    whole, grouped = _fit(data, 20, parts=1), _fit(data, 20, parts=parts)
    for name, values in vars(whole).items():
        np.testing.assert_allclose(getattr(grouped, name), values, rtol=1e-9, atol=1e-9)


def test_moments_add_up_in_any_order() -> None:
    data = _features((30, 3)).astype(np.float64)
    a, b, c = (Moments.of(part, data[0]) for part in np.array_split(data, 3))
    for left, right in [((a + b) + c, a + (b + c)), (a + b, b + a), (a + Moments.zero(3), a)]:
        assert left.rows == right.rows
        np.testing.assert_allclose(left.total, right.total, rtol=1e-12)
        np.testing.assert_allclose(left.gram, right.gram, rtol=1e-12)


def _assert_moments(found: Moments, expected: Moments, *, scale: float = 1.0) -> None:
    assert found.rows == expected.rows
    np.testing.assert_allclose(found.total, expected.total, rtol=1e-10, atol=1e-10 * scale)
    np.testing.assert_allclose(found.gram, expected.gram, rtol=1e-10, atol=1e-10 * scale)


@pytest.mark.parametrize("gone", [slice(0, 1), slice(100, 200), slice(1, 300), slice(0, 0)])
def test_moments_without_some_rows_are_those_of_the_others(gone: slice) -> None:
    data = _features(MANY_ROWS, mean=3.0)
    pivot = data[0].astype(np.float64)
    left = Moments.of(data, pivot) - Moments.of(data[gone], pivot)
    _assert_moments(left, Moments.of(np.delete(data, gone, axis=0), pivot), scale=1e3)


def test_moments_without_any_row_are_none() -> None:
    data = _features((30, 3))
    moments = Moments.of(data, data[0].astype(np.float64))
    nothing = moments - moments
    assert nothing.rows == 0
    np.testing.assert_array_equal(nothing.total, np.zeros(3))
    np.testing.assert_array_equal(nothing.gram, np.zeros((3, 3)))


@pytest.mark.parametrize("to", [0, 7, 299])
@pytest.mark.parametrize("mean", [0.0, 3.0, -1e3])
def test_moments_are_moved_to_another_pivot(to: int, mean: float) -> None:
    data = _features(MANY_ROWS, mean=mean)
    pivot, other = data[0].astype(np.float64), data[to].astype(np.float64)
    moved = Moments.of(data, pivot).moved(pivot, other)
    _assert_moments(moved, Moments.of(data, other), scale=1e3)
    back = moved.moved(other, pivot)
    _assert_moments(back, Moments.of(data, pivot), scale=1e3)


@pytest.mark.parametrize("standardize", [False, True])
def test_a_fit_after_rows_came_and_went_is_that_of_the_rows_there_are(*, standardize: bool) -> None:
    """The pivot is a row that went: the new one is a row that is still there."""
    before, came = np.split(_features((330, 20), mean=3.0), [300])
    before[:, 4] = came[:, 4] = 0.1  # a constant feature is one for ever
    pivot = before[0].astype(np.float64)
    kept = np.vstack([before[40:], came])
    to = kept[0].astype(np.float64)
    moments = Moments.of(before, pivot) + Moments.of(came, pivot) - Moments.of(before[:40], pivot)
    options = {"n_components": 10, "standardize": standardize}
    found = fit(moments.moved(pivot, to), to, **options)
    expected = fit(Moments.of(kept, to), to, **options)
    for name, values in vars(expected).items():
        np.testing.assert_allclose(getattr(found, name), values, rtol=1e-9, atol=1e-9)
    assert found.scale[4] == 1.0


def test_moments_are_read_as_they_were_written() -> None:
    data = _features((30, 5), mean=3.0)
    pivot = data[3].astype(np.float64)
    moments = Moments.of(data, pivot)
    read, read_pivot = Moments.from_npz(moments.to_npz(pivot))
    assert read.rows == 30
    assert isinstance(read.rows, int)
    np.testing.assert_array_equal(read.total, moments.total)
    np.testing.assert_array_equal(read.gram, moments.gram)
    np.testing.assert_array_equal(read_pivot, pivot)
    assert read.total.dtype == read.gram.dtype == read_pivot.dtype == np.float64


def test_a_pickle_in_moments_is_never_read() -> None:
    arrays = {**vars(Moments.zero(3)), "pivot": np.array([print], dtype=object)}
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    with pytest.raises(ValueError, match="allow_pickle=False"):
        Moments.from_npz(stream.getvalue())


@pytest.mark.parametrize("mean", [1e4, 1e6, -1e4])
@pytest.mark.parametrize("standardize", [False, True])
def test_a_tiny_variance_about_a_large_mean_is_exact(mean: float, *, standardize: bool) -> None:
    data = _features((200, 6)).astype(np.float64) * 1e-3 + mean
    model = _fit(data, 6, standardize=standardize)
    scale = data.std(axis=0, ddof=1) if standardize else np.ones(6)
    _assert_equal(model, (data - data.mean(axis=0)) / scale, 6)


def test_a_constant_feature_is_left_alone_when_standardised() -> None:
    data = _features((50, 5))
    data[:, 2] = 6.0
    model = _fit(data, 4, standardize=True)
    assert model.scale[2] == 1.0
    np.testing.assert_allclose(model.components[:, 2], 0.0, atol=1e-9)


@pytest.mark.parametrize("constant", [0.0, 0.1, 6.0])
def test_a_feature_that_is_constant_only_in_the_fitted_split_is_left_alone(
    constant: float,
) -> None:
    data = _features((50, 5))
    data[:, 2] = constant
    pivot = np.full(5, 1 / 3)  # the first image of all, which need not be in the split
    model = fit(Moments.of(data, pivot), pivot, n_components=4, standardize=True)
    assert model.scale[2] == 1.0
    np.testing.assert_allclose(model.components[:, 2], 0.0, atol=1e-9)
    with pytest.raises(PcaError, match="Choose at most 4,"):
        fit(Moments.of(data, pivot), pivot, n_components=5, standardize=True)


@pytest.mark.parametrize("pivot", [np.full(5, 0.1), np.full(5, 1 / 3), np.zeros(5)])
@pytest.mark.parametrize("standardize", [False, True])
def test_identical_rows_have_no_components(pivot: np.ndarray, *, standardize: bool) -> None:
    moments = Moments.of(np.full((97, 5), 0.1), pivot)
    with pytest.raises(PcaError) as told:
        fit(moments, pivot, n_components=0.95, standardize=standardize)
    assert "all 97 images to fit have the same features" in str(told.value)
    assert "Check that the source holds different photos" in str(told.value)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")  # inf - inf
def test_features_that_are_not_finite_are_told(value: float) -> None:
    data = _features((9, 4))
    data[3, 2] = value
    with pytest.raises(PcaError, match=r"hold NaN or infinite values.* Check the weights"):
        _fit(data)


@pytest.mark.parametrize("rows", [0, 1])
def test_fewer_than_two_rows_are_told(rows: int) -> None:
    moments = Moments.of(_features((rows, 4)), np.zeros(4))
    with pytest.raises(
        PcaError, match=rf"given {rows} image\(s\) to fit; it needs at least 2. Add"
    ):
        fit(moments, np.zeros(4), n_components=1, standardize=False)


@pytest.mark.parametrize("n_components", [1, 0.5, 0.999])
def test_two_rows_have_one_component(n_components: float) -> None:
    data = _features((2, 6))
    model = _fit(data, n_components)
    assert model.components.shape == (1, 6)
    np.testing.assert_allclose(model.explained_variance_ratio, [1.0])
    np.testing.assert_allclose(model.transform(data).sum(), 0.0, atol=1e-6)


@pytest.mark.parametrize(
    "n_components", [0, 0.0, -1, -0.5, 1.5, 2.5, float("nan"), float("inf"), float("-inf")]
)
def test_a_number_of_components_that_makes_no_sense_is_told(n_components: float) -> None:
    for refuse in (check_n_components, lambda value: _fit(_features((9, 4)), value)):
        with pytest.raises(PcaError) as told:
            refuse(n_components)
        assert f"n_components is {n_components:g};" in str(told.value)
        assert "between 0 and 1" in str(told.value)
        assert "a whole number of components from 1" in str(told.value)


@pytest.mark.parametrize("n_components", [1, 1.0, 2, 1280, 1e-9, 0.999])
def test_a_number_of_components_that_makes_sense_is_accepted(n_components: float) -> None:
    check_n_components(n_components)


@pytest.mark.parametrize(("shape", "possible"), [((9, 4), 4), ((4, 9), 3)])
def test_more_components_than_there_are_are_told(shape: tuple[int, int], possible: int) -> None:
    assert len(_fit(_features(shape), possible).components) == possible
    with pytest.raises(PcaError) as told:
        _fit(_features(shape), possible + 1)
    assert f"n_components is {possible + 1}, but" in str(told.value)
    assert f"only {possible} meaningful component(s). Choose at most {possible}" in str(told.value)


def test_the_data_are_centred_when_they_are_transformed() -> None:
    data = _features(MANY_ROWS, mean=100.0)
    model = _fit(data, 3)
    projected = model.transform(data)
    assert projected.dtype == np.float32
    np.testing.assert_allclose(projected.mean(axis=0, dtype=np.float64), 0.0, atol=1e-4)
    np.testing.assert_allclose(model.transform(model.mean[np.newaxis]), 0.0, atol=1e-12)


def test_a_model_is_read_as_it_was_written() -> None:
    model = _fit(_features(MANY_ROWS), 3, standardize=True)
    read = PcaModel.from_npz(model.to_npz())
    for name, values in vars(model).items():
        np.testing.assert_array_equal(getattr(read, name), values)
        assert getattr(read, name).dtype == np.float64


def test_a_pickle_in_a_model_is_never_read() -> None:
    arrays = {**vars(_fit(_features(MANY_ROWS), 3)), "mean": np.array([print], dtype=object)}
    stream = io.BytesIO()
    np.savez_compressed(stream, **arrays)
    with pytest.raises(ValueError, match="allow_pickle=False"):
        PcaModel.from_npz(stream.getvalue())


def test_a_model_is_pickled_without_buffers() -> None:
    model = _fit(_features(MANY_ROWS))
    buffers: list[pickle.PickleBuffer] = []
    found = pickle.loads(pickle.dumps(model, 5, buffer_callback=buffers.append))  # noqa: S301 - our own
    assert not buffers, "PySpark cannot encrypt a broadcast of them"
    for name, values in vars(model).items():
        np.testing.assert_array_equal(getattr(found, name), values)
