"""What ``slim.py`` computes with XGBoost before and after: models trained on the GPU, their predictions and the metrics of training."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

Operation = tuple[str, Callable[[], Any]]
ROUNDS = 6
OBJECTIVES = {
    "reg:squarederror": "real",
    "reg:absoluteerror": "real",
    "reg:pseudohubererror": "real",
    "reg:quantileerror": "real",
    "reg:squaredlogerror": "positive",
    "reg:gamma": "positive",
    "reg:tweedie": "positive",
    "count:poisson": "positive",
    "binary:logistic": "binary",
    "binary:hinge": "binary",
    "multi:softprob": "classes",
    "survival:cox": "positive",
    "survival:aft": "positive",
    "rank:pairwise": "grades",
    "rank:ndcg": "grades",
    "rank:map": "binary",
}
METRICS = {
    "real": ["rmse", "mae", "mape", "mphe"],
    "positive": ["rmse", "rmsle", "gamma-nloglik", "poisson-nloglik"],
    "binary": ["logloss", "error", "auc", "aucpr"],
    "classes": ["mlogloss", "merror", "auc"],
    "grades": ["ndcg"],
}
EXTRA = {"multi:softprob": {"num_class": 4}, "reg:quantileerror": {"quantile_alpha": 0.3}, "survival:aft": {"eval_metric": "aft-nloglik"}}
TREES = {
    "hist": {},
    "approx": {"tree_method": "approx"},
    "lossguide": {"grow_policy": "lossguide", "max_leaves": 31, "max_depth": 0},
    "dart": {"booster": "dart", "rate_drop": 0.2, "seed": 3},
    "forest": {"num_parallel_tree": 4, "subsample": 0.7, "seed": 3},
    "gradient sampling": {"sampling_method": "gradient_based", "subsample": 0.5, "seed": 3},
    "columns": {"colsample_bytree": 0.6, "colsample_bylevel": 0.8, "colsample_bynode": 0.8, "seed": 3},
    "monotone": {"monotone_constraints": "(1,-1,0,0,0,0,0,0,0,0,0,0)"},
    "interaction": {"interaction_constraints": "[[0,1,2],[3,4,5,6,7]]"},
    "deep, many bins": {"max_depth": 10, "max_bin": 1024},
    "linear": {"booster": "gblinear", "updater": "coord_descent"},
}


def operations(xgboost: Any) -> Iterator[Operation]:
    """(name, what computes it) of every operation."""
    for objective, kind in OBJECTIVES.items():
        yield f"xgboost {objective}", lambda o=objective, k=kind: _objective(xgboost, o, k)
    for name, more in TREES.items():
        yield f"xgboost {name}", lambda m=more: _trained(xgboost, _matrix(xgboost, "real"), m)
    for name in ("pred_contribs", "approx_contribs", "pred_interactions", "pred_leaf", "output_margin"):
        yield f"xgboost {name}", lambda n=name: _explained(xgboost, n)
    yield "xgboost categories", lambda: _categories(xgboost)
    yield "xgboost vector leaf", lambda: _vector_leaf(xgboost)
    yield "xgboost quantile matrix", lambda: _trained(xgboost, _matrix(xgboost, "real", xgboost.QuantileDMatrix), {})
    yield "xgboost missing values", lambda: _trained(xgboost, _matrix(xgboost, "real", holes=0.3), {})
    yield "xgboost cupy input", lambda: _cupy_input(xgboost)


def _data(kind: str, holes: float = 0.0, rows: int = 4000) -> tuple[Any, Any]:
    """Features and labels from a fixed seed."""
    import numpy

    numbers = numpy.random.default_rng(7)
    features = numbers.standard_normal((rows, 12)).astype("float32")
    raw = features[:, 0] * 2 - features[:, 1] + numpy.sin(features[:, 2] * 3) + numbers.standard_normal(rows) * 0.3
    labels = {
        "real": raw,
        "positive": numpy.exp(raw / 3) + 0.1,
        "binary": (raw > 0).astype(float),
        "classes": numpy.digitize(raw, [-1.5, 0, 1.5]),
        "grades": numpy.digitize(raw, [-1, 0, 1]),
    }[kind]
    if holes:
        features[numbers.random(features.shape) < holes] = numpy.nan
    return features, labels.astype("float32")


def _matrix(xgboost: Any, kind: str, matrix: Any = None, holes: float = 0.0) -> Any:
    features, labels = _data(kind, holes)
    return (matrix or xgboost.DMatrix)(features, labels)


def _trained(xgboost: Any, data: Any, more: dict[str, Any]) -> Any:
    """A model trained on the GPU as bytes, its predictions, and what each round measured."""
    import numpy

    history: dict[str, Any] = {}
    parameters = {"device": "cuda", "tree_method": "hist", "max_depth": 6, "verbosity": 0} | more
    model = xgboost.train(parameters, data, ROUNDS, evals=[(data, "train")], evals_result=history, verbose_eval=False)
    measured = [numpy.asarray(values) for values in history["train"].values()]
    return [numpy.frombuffer(bytes(model.save_raw("ubj")), "uint8"), model.predict(data), *measured]


def _objective(xgboost: Any, objective: str, kind: str) -> Any:
    data = _matrix(xgboost, kind)
    if objective.startswith("rank:"):
        data.set_group([50] * 80)
    if objective == "survival:aft":
        labels = data.get_label()
        data.set_float_info("label_lower_bound", labels)
        data.set_float_info("label_upper_bound", labels * 1.5)
    metrics = {"eval_metric": "cox-nloglik"} if objective == "survival:cox" else {"eval_metric": METRICS[kind]}
    return _trained(xgboost, data, {"objective": objective} | metrics | EXTRA.get(objective, {}))


def _explained(xgboost: Any, how: str) -> Any:
    data = _matrix(xgboost, "binary")
    parameters = {"device": "cuda", "objective": "binary:logistic", "max_depth": 5, "verbosity": 0}
    model = xgboost.train(parameters, data, ROUNDS)
    return model.predict(data, pred_contribs=True, approx_contribs=True) if how == "approx_contribs" else model.predict(data, **{how: True})


def _categories(xgboost: Any) -> Any:
    import numpy

    features, labels = _data("real")
    features[:, 3] = numpy.digitize(features[:, 3], numpy.linspace(-2, 2, 20))
    types = ["c" if column == 3 else "float" for column in range(features.shape[1])]
    data = xgboost.DMatrix(features, labels, feature_types=types, enable_categorical=True)
    return _trained(xgboost, data, {"max_cat_to_onehot": 4})


def _vector_leaf(xgboost: Any) -> Any:
    import numpy

    features, labels = _data("real")
    data = xgboost.DMatrix(features, numpy.stack([labels, labels * labels, -labels], axis=1))
    return _trained(xgboost, data, {"multi_strategy": "multi_output_tree"})


def _cupy_input(xgboost: Any) -> Any:
    import cupy

    features, labels = (cupy.asarray(array) for array in _data("real"))
    data = xgboost.QuantileDMatrix(features, labels)
    model = xgboost.train({"device": "cuda", "verbosity": 0}, data, ROUNDS)
    return [model.inplace_predict(features), model.predict(xgboost.DMatrix(features))]
