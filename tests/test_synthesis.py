"""sql/ against metafor's numbers, published numbers, and computations that share no code with it."""

import csv
import math
import random
import re
import statistics
from decimal import Decimal, localcontext
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

from pipelines.synthesize import SynthesisError, answers, plan, statements, synthesize, synthesize_packets

GROUND_TRUTH = Path(__file__).parent / "ground_truth"
METHODS = ("FE", "DL", "PM", "REML")
# metafor's Fisher scoring stops short of the REML optimum by 8e-11 (magnesium16; 3e-10 in leave-one-out), which
# test_reml_solves_its_equation shows with 50 digits: there the reference is the one that is off.
TOLERANCE = {"FE": 1e-11, "DL": 1e-11, "PM": 1e-11, "REML": 5e-10}
# Ground-truth column -> ours, by the inference of the row.
COLUMNS = {
    "z": {
        "k": "k",
        "estimate": "estimate",
        "se": "se",
        "ci_lb": "ci_lb",
        "ci_ub": "ci_ub",
        "tau2": "tau2",
        "Q": "q",
        "I2_from_Q": "i2",
        "pi_tkm1_lb": "pi_lb",
        "pi_tkm1_ub": "pi_ub",
    },
    "hk_adhoc_ge_z": {"se": "hk_se", "ci_lb": "hk_ci_lb", "ci_ub": "hk_ci_ub"},
}
HIGHEST_ERROR = {pa.float64(): TOLERANCE, pa.float32(): dict.fromkeys(METHODS, 1e-6)}


def rows(name: str) -> list[dict[str, str]]:
    with (GROUND_TRUTH / name).open(newline="") as file:
        return list(csv.DictReader(file))


def packets(effects, *, address="test/x", metric="log_risk_ratio", intervention="drug", real=None) -> pa.Table:
    """Packets from (effect, standard error or None[, sample count]) tuples, node and packet numbered from 0."""
    real = real or pa.float64()
    names = [f"{address} {metric} {intervention} {number}" for number in range(len(effects))]
    return pa.table(
        {
            "address": pa.array([address] * len(effects)),
            "metric_name": pa.array([metric] * len(effects)),
            "intervention_type": pa.array([intervention] * len(effects)),
            "node_id": pa.array([f"site-{number}" for number in range(len(effects))]),
            "packet_id": pa.array(names),
            "metric_delta": pa.array([float(effect[0]) for effect in effects], pa.float64()).cast(real),
            "metric_stderr": pa.array([effect[1] for effect in effects], pa.float64()).cast(real),
            "sample_count": pa.array([(*effect, 100)[2] for effect in effects], pa.int32()),
        }
    )


def classic(real=None) -> pa.Table:
    """The four data sets, each at its own address; packet ids end in the row's number in its data set."""
    sets: dict[str, list] = {}
    for row in rows("meta_inputs.csv"):
        effects = sets.setdefault(row["dataset"], [])
        effects.append((float(row["yi"]), math.sqrt(float(row["vi"])), int(float(row["n"]))))
    return pa.concat_tables(packets(effects, address=f"test/{name}", real=real) for name, effects in sets.items())


def run(table: pa.Table, *names: str) -> dict[str, list[dict]]:
    with duckdb.connect() as connection:
        connection.register("packets", table)
        return {name: found.to_pylist() for name, found in synthesize(connection, names or None).items()}


def pooled(table: pa.Table) -> dict[str, dict]:
    return {row["method"]: row for row in run(table, "pooled")["pooled"]}


@pytest.fixture(scope="module")
def classic_answers():
    return run(classic())


@pytest.mark.parametrize("real", HIGHEST_ERROR, ids=str)
def test_pooled_equals_metafor(real):
    found = {(row["address"], row["method"]): row for row in run(classic(real), "pooled")["pooled"]}
    compared = 0
    for expected in rows("meta_outputs.csv"):
        method = expected["method"]
        for theirs, ours in COLUMNS.get(expected["inference"], {}).items() if method in METHODS else ():
            got, want = found[f"test/{expected['dataset']}", method][ours], float(expected[theirs])
            # Q and I2 are sums of squares over variances: float32 inputs move them by their own size, not by 1.
            scale = max(1.0, abs(want))
            assert abs(got - want) <= HIGHEST_ERROR[real][method] * scale, (expected["dataset"], method, ours)
            compared += 1
    assert compared == 4 * (4 * 10 + 3 * 3)


def test_leave_one_out_equals_metafor(classic_answers):
    found = {
        (row["address"], row["method"], int(row["packet_id"].split()[-1]) + 1): row
        for row in classic_answers["leave_one_out"]
    }
    expected_rows = rows("meta_loo.csv")
    assert len(found) == len(expected_rows) == 4 * (13 + 16 + 21 + 6)
    for expected in expected_rows:
        key = (f"test/{expected['dataset']}", expected["method"], int(expected["left_out_row"]))
        for column in ("estimate", "se", "ci_lb", "ci_ub", "tau2"):
            error = abs(found[key][column] - float(expected[column]))
            assert error <= TOLERANCE[expected["method"]], (key, column)


def test_robust_equals_r(classic_answers):
    found = {row["address"]: row for row in classic_answers["robust"]}
    expected_rows = rows("meta_robust_outputs.csv")
    assert len(expected_rows) == len(found) == 4
    columns = {"trimmed": "trimmed_10", "winsorised": "winsorised_10"}
    for expected in expected_rows:
        for theirs in ("median", "trimmed", "winsorised", "huber", "mad"):
            got = found[f"test/{expected['dataset']}"][columns.get(theirs, theirs)]
            assert got == pytest.approx(float(expected[theirs]), abs=1e-11), (expected["dataset"], theirs)


def test_published_numbers(classic_answers):
    found = {(row["address"], row["method"]): row for row in classic_answers["pooled"]}
    columns = {"Q": "q", "I2_from_Q": "i2"}
    compared = 0
    for check in rows("meta_published_checks.csv"):
        ours = columns.get(check["quantity"], check["quantity"])
        if check["inference"] == "z" and check["method"] in METHODS and ours in COLUMNS["z"].values():
            got = found[f"test/{check['dataset']}", check["method"]][ours]
            assert abs(got - float(check["published"])) <= float(check["tolerance"]), check
            compared += 1
    assert compared == 17


@pytest.mark.parametrize("dataset", ["bcg", "magnesium16"])
def test_reml_solves_its_equation(dataset, classic_answers):
    """The root of y'PPy = trace P by bisection in 50 digits."""
    inputs = [row for row in rows("meta_inputs.csv") if row["dataset"] == dataset]
    with localcontext(prec=50):
        y, v = ([Decimal(row[key]) for row in inputs] for key in ("yi", "vi"))

        def excess(tau2: Decimal) -> Decimal:
            w = [1 / (vi + tau2) for vi in v]
            mean = sum(a * b for a, b in zip(w, y, strict=True)) / sum(w)
            observed = sum((a * (b - mean)) ** 2 for a, b in zip(w, y, strict=True))
            return observed - sum(w) + sum(a * a for a in w) / sum(w)

        low, high = Decimal("0.1"), Decimal(1)
        for _ in range(120):
            middle = (low + high) / 2
            low, high = (middle, high) if excess(middle) > 0 else (low, middle)
    found = {(row["address"], row["method"]): row for row in classic_answers["pooled"]}
    assert found[f"test/{dataset}", "REML"]["tau2"] == pytest.approx(float(low), abs=1e-13)


def weighted_median_capped(effects) -> float:
    """The definition, in plain Python: floor each standard error, cap each weight, take the lower weighted median."""
    record_sd = statistics.median(se * math.sqrt(n) for _, se, n in effects)
    weights = [1 / max(se, record_sd / 2 / math.sqrt(n)) ** 2 for _, se, n in effects]
    cap = 2 * statistics.median(weights)
    ranked = sorted((y, min(w, cap)) for (y, _, _), w in zip(effects, weights, strict=True))
    below, half = 0.0, sum(w for _, w in ranked) / 2
    for y, w in ranked:
        below += w
        if below >= half * (1 - 1e-12):
            return y
    raise AssertionError("no weights")


def test_capped_weighted_median_equals_python(classic_answers):
    sets = classic().to_pylist()
    for row in classic_answers["robust"]:
        effects = [
            (p["metric_delta"], p["metric_stderr"], p["sample_count"]) for p in sets if p["address"] == row["address"]
        ]
        assert row["weighted_median_capped"] == pytest.approx(weighted_median_capped(effects), abs=1e-14)
    draw = random.Random(7)
    for size in (1, 2, 3, 10, 41):
        effects = [(draw.gauss(0, 1), draw.lognormvariate(-2, 2), draw.choice([11, 100, 5000])) for _ in range(size)]
        (row,) = run(packets(effects), "robust")["robust"]
        assert row["weighted_median_capped"] == pytest.approx(weighted_median_capped(effects), abs=1e-14)


def test_one_packet():
    for row in pooled(packets([(0.5, 0.2)])).values():
        assert (row["k"], row["estimate"], row["se"]) == (1, 0.5, pytest.approx(0.2))
        assert row["ci_ub"] == pytest.approx(0.5 + 1.959963984540054 * 0.2)
        assert row["tau2"] == (0 if row["method"] == "FE" else None)
        assert {row[c] for c in ("i2", "hk_se", "hk_ci_lb", "hk_ci_ub", "pi_lb", "pi_ub")} == {None}
    assert run(packets([(0.5, 0.2)]), "leave_one_out")["leave_one_out"] == []


def test_two_packets():
    """Two equal variances: every estimator is (y1 - y2)^2 / 2 - v."""
    found = pooled(packets([(0.0, 0.1), (1.0, 0.1)]))
    for method in ("DL", "PM", "REML"):
        assert found[method]["tau2"] == pytest.approx(0.49, abs=1e-12)
        assert found[method]["pi_ub"] == pytest.approx(0.5 + 12.7062047361747 * math.sqrt(0.49 + 0.25), abs=1e-9)


def test_equal_effects_and_zero_heterogeneity():
    for row in pooled(packets([(0.3, 0.1), (0.3, 0.2), (0.3, 0.4)])).values():
        assert (row["tau2"], row["i2"]) == (0, 0)
        assert row["q"] == pytest.approx(0, abs=1e-20)
        assert row["estimate"] == pytest.approx(0.3, abs=1e-15)
        assert row["hk_se"] == row["se"]
    (row,) = run(packets([(0.3, 0.1), (0.3, 0.2)]), "robust")["robust"]
    assert (row["mad"], row["huber"], row["median"]) == (0, 0.3, 0.3)


def test_unusable_standard_errors_count_only_where_nothing_is_weighted():
    bad = [(9.0, None), (9.0, 0.0), (9.0, -1.0), (9.0, math.inf), (9.0, math.nan)]
    found = run(packets([(0.1, 0.1), (0.2, 0.1), *bad, (math.nan, 0.1), (math.inf, 0.1)]), "pooled", "robust")
    assert {row["k"] for row in found["pooled"]} == {2}
    assert (found["robust"][0]["k"], found["robust"][0]["median"]) == (7, 9.0)
    assert found["robust"][0]["weighted_median_capped"] == 0.1
    alone = run(packets(bad[:1]))
    assert (alone["pooled"], alone["leave_one_out"]) == ([], [])
    assert alone["robust"][0]["weighted_median_capped"] is None


def test_no_packets():
    nothing = run(packets([(0.1, 0.1)]).slice(0, 0))
    assert nothing == {name: [] for name in answers()}


def test_a_packet_sent_twice_is_one_packet():
    once = packets([(0.1, 0.1), (0.5, 0.2), (0.9, 0.1)])
    expected, found = run(once), run(pa.concat_tables([once, once]))
    for name in answers():
        for first, second in zip(expected[name], found[name], strict=True):
            assert first == pytest.approx(second, abs=1e-13)


def test_keys_are_kept_apart():
    keys = [("a/x", "auc", "drug"), ("b/x", "auc", "drug"), ("a/x", "rr", "drug"), ("a/x", "auc", "diet")]
    tables = [
        packets([(n, 0.1), (n + 0.1, 0.1)], address=a, metric=m, intervention=i) for n, (a, m, i) in enumerate(keys)
    ]
    found = run(pa.concat_tables(tables))
    assert len(found["pooled"]) == 16
    for row in found["pooled"]:
        number = keys.index((row["address"], row["metric_name"], row["intervention_type"]))
        assert row["estimate"] == pytest.approx(number + 0.05)
    assert len(found["leave_one_out"]) == 4 * 4 * 2
    assert len(found["robust"]) == 4


def test_one_liar_in_300_moves_the_pool_and_not_the_robust_answers():
    draw = random.Random(300)
    honest = [(draw.gauss(0.2, 0.1), 0.1, 100) for _ in range(299)]
    found = run(packets([*honest, (1e4, 1e-6, 2**31 - 1)]), "pooled", "robust")
    assert next(row for row in found["pooled"] if row["method"] == "FE")["estimate"] > 9999
    for column in ("median", "trimmed_10", "winsorised_10", "weighted_median_capped", "huber"):
        assert abs(found["robust"][0][column] - 0.2) < 0.03, column


def test_dersimonian_laird_survives_a_claim_of_certainty():
    """With a variance of nearly 0, Q = 1 + 4 and sum w - sum w^2 / sum w = 4, so tau2 = (5 - 2) / 4."""
    for se in (1e-9, 1e-20, 1e-38):
        found = pooled(packets([(0.0, se), (1.0, 1.0), (2.0, 1.0)]))
        assert found["DL"]["tau2"] == pytest.approx(0.75, rel=1e-12)


@pytest.mark.parametrize(
    "effects",
    [
        [(draw.gauss(0, 3) * scale, math.exp(draw.gauss(0, spread)) * scale) for _ in range(k)]
        for spread, scale in ((0.3, 1.0), (3.0, 1.0), (1.0, 1e-9), (1.0, 1e9))
        for k in (2, 3, 7, 40)
        for draw in [random.Random(f"{spread} {scale} {k}")]
    ],
    ids=lambda effects: f"{len(effects)}",
)
def test_paule_mandel_and_reml_solve_their_equations(effects):
    """Each tau2 is 0 with nothing left to explain, or a root: tiny, huge and very unequal variances too."""
    found = pooled(packets(effects))
    for method in ("PM", "REML"):
        tau2 = found[method]["tau2"]
        w = [1 / (se * se + tau2) for _, se in effects]
        mean = sum(a * y for a, (y, _) in zip(w, effects, strict=True)) / sum(w)
        power, trace = (1, len(w) - 1) if method == "PM" else (2, sum(w) - sum(a * a for a in w) / sum(w))
        excess = sum(a**power * (y - mean) ** 2 for a, (y, _) in zip(w, effects, strict=True)) / trace - 1
        assert abs(excess) < 1e-8 or (tau2 == 0 and excess < 0), method


def test_intervals_hartung_knapp_never_narrower(classic_answers):
    assert len(classic_answers["pooled"]) == 16
    for row in classic_answers["pooled"]:
        assert row["hk_ci_lb"] <= row["ci_lb"] < row["ci_ub"] <= row["hk_ci_ub"]
        assert row["pi_lb"] <= row["ci_lb"]


def test_t_quantile_beyond_the_table():
    """At df 2000 the expansion that takes over there must equal the table; at 2500 the tail beyond it must be 2.5 %."""
    with duckdb.connect() as connection:
        connection.execute("CREATE TABLE fixed_effect AS SELECT unnest([1, 2, 2001, 2501, 100001]) AS k")
        connection.execute("CREATE TABLE t_crit AS SELECT 1::BIGINT AS df, 12.7062047361747 AS t975")
        found = dict(connection.execute(statements()["t_quantiles"].text).fetchall())
    assert sorted(found) == [1, 2000, 2500, 100000]
    assert found[1] == 12.7062047361747
    assert found[2000] == pytest.approx(1.96115082609944, abs=1e-13)
    assert found[2500] == pytest.approx(t_quantile(2500), abs=1e-11)


def t_quantile(df: int) -> float:
    """The 97.5 % point by bisection on Simpson's rule over the density."""
    constant = math.exp(math.lgamma((df + 1) / 2) - math.lgamma(df / 2)) / math.sqrt(df * math.pi)

    def half_probability(t: float, steps: int = 2000) -> float:
        h = t / steps
        density = [(1 + (i * h) ** 2 / df) ** (-(df + 1) / 2) for i in range(steps + 1)]
        return constant * h / 3 * (density[0] + density[-1] + 4 * sum(density[1:-1:2]) + 2 * sum(density[2:-1:2]))

    low, high = 1.9, 2.0
    for _ in range(45):
        middle = (low + high) / 2
        low, high = (middle, high) if half_probability(middle) < 0.475 else (low, middle)
    return low


def test_synthesize_packets_completes_the_address():
    bare = packets([(0.1, 0.1), (0.2, 0.1)]).drop_columns(["address"])
    bare = bare.append_column("domain", pa.array(["clinical.a b"] * 2))
    bare = bare.append_column("problem_type", pa.array(["x"] * 2))
    found = synthesize_packets(bare)
    assert found["address"].unique().to_pylist() == ["clinical.a%20b/x"]
    assert found.column_names == [
        *("address", "metric_name", "intervention_type", "method", "k", "estimate", "se", "ci_lb", "ci_ub"),
        *("tau2", "q", "i2", "hk_se", "hk_ci_lb", "hk_ci_ub", "pi_lb", "pi_ub"),
    ]


def test_answers_in_any_order_are_the_same(classic_answers):
    assert sorted(answers()) == ["leave_one_out", "pooled", "robust", "sites"]
    again = run(classic(), "robust", "pooled", "leave_one_out", "pooled", "sites", "estimates")
    for name in answers():
        assert len(again[name]) == len(classic_answers[name])
    by_key = {(row["address"], row["method"]): row["estimate"] for row in again["estimates"]}
    for first, second in zip(classic_answers["pooled"], again["pooled"], strict=True):
        assert first == pytest.approx(second, abs=1e-12)
        assert by_key[first["address"], first["method"]] == pytest.approx(first["estimate"], abs=1e-12)


def test_unknown_name_suggests_the_nearest():
    with pytest.raises(
        SynthesisError, match=r"^no synthesis 'poolled'; did you mean 'pooled'\? Known: all_but"
    ) as error:
        synthesize_packets(packets([(0.1, 0.1)]), "poolled")
    assert "\n" not in str(error.value)
    assert isinstance(error.value, ValueError)


def test_every_file_is_reached_and_says_what_it_is():
    folder = Path(__file__).parents[1] / "sql"
    files = {path.stem for path in folder.glob("*.sql")}
    assert len(files) >= 17
    assert files == set(statements()) == {step.name for name in answers() for step in plan(name)}
    for statement in statements().values():
        code = re.sub(r"--.*", "", statement.text)
        assert ";" not in code, "one statement a file"
        assert not re.search(r"\blog\(|isfinite", code, re.IGNORECASE), "means two things, or is missing, on Spark"
        assert statement.title
        assert statement.grain


HEADER = "-- {name}: what?\n-- inputs: {inputs}\n-- output: x\n-- grain: one\n-- source: none\n-- answer: no\nSELECT 1"


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"a": HEADER.replace("-- grain: one\n", "")}, r"a\.sql: the header has no line '-- grain: \.\.\.'"),
        ({"a": HEADER.replace("answer: no", "answer: maybe")}, r"a\.sql: answer is 'maybe', not yes or no"),
        ({"a": HEADER.replace("-- grain", "-- repeats: a\n-- grain")}, r"a\.sql: unknown header key 'repeats'"),
        ({"effects": HEADER.replace("{inputs}", "packet")}, r"effects\.sql: unknown input 'packet'"),
        ({"a": HEADER.replace("{inputs}", "b"), "b": HEADER.replace("{inputs}", "a")}, r"a\.sql.*b\.sql.*circle"),
    ],
)
def test_a_wrong_header_names_the_file(tmp_path, files, message):
    for name, text in files.items():
        (tmp_path / f"{name}.sql").write_text(text.replace("{name}", name).replace("{inputs}", "packets"))
    with pytest.raises(SynthesisError, match=message):
        statements(tmp_path)
