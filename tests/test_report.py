"""The report and the forest plot: all the numbers, nothing from outside, nobody else's markup."""

import csv
import math
import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

from pipelines.forest import MAX_PACKETS, forest_plot, problems, rows_of, save
from pipelines.report import REPORTED, write_report
from pipelines.scale import Scale
from pipelines.synthesize import plan, synthesize
from qis_connectors import address
from qis_connectors.packet import OUTCOME_PACKET_SCHEMA, complete

GROUND_TRUTH = Path(__file__).parent / "ground_truth"
METRICS = {"bcg": "log_risk_ratio", "magnesium16": "log_odds_ratio", "betablocker_t6": "log_odds_ratio"}
LIAR = [(0.01 * number, 0.02) for number in range(20)] + [(900.0, 0.001)]


def packets(effects, problem="bcg_vaccine", metric="log_risk_ratio", intervention="bcg_vaccination", names=None):
    """A packet table from (effect, standard error or None) pairs, as the Delta table holds it."""
    fields = [
        {
            "node_id": names[number] if names else f"site-{number:03}",
            "timestamp_utc": number,
            "domain": "clinical.test",
            "problem_type": problem,
            "model_architecture": "two_arm_comparison",
            "training_phase": "follow_up_14d",
            "metric_name": metric,
            "metric_delta": effect,
            "metric_value": 0.5,
            "confidence": 0.5,
            "intervention_type": intervention,
            "intervention_params": "{}",
            "outcome_decile": 5,
            "sample_count": 100 + number,
            "raw_data_hash": "0" * 64,
            "metric_stderr": stderr,
        }
        for number, (effect, stderr) in enumerate(effects)
    ]
    table = pa.Table.from_batches([complete(pa.RecordBatch.from_pylist(fields, schema=OUTCOME_PACKET_SCHEMA))])
    domain, problem_type = (table[key].combine_chunks() for key in ("domain", "problem_type"))
    return table.add_column(0, "address", address.column(domain, problem_type))


def classic(name):
    with (GROUND_TRUTH / "meta_inputs.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["dataset"] == name]
    effects = [(float(row["yi"]), math.sqrt(float(row["vi"]))) for row in rows]
    return packets(effects, name, METRICS[name], names=[row["study"] for row in rows])


def answers_of(table):
    with duckdb.connect() as connection:
        connection.register("packets", table)
        return synthesize(connection, REPORTED)


def report(table, out, **options):
    return write_report(answers_of(table), table, out, **options).read_text(encoding="utf-8")


def figure_of(table):
    answers = answers_of(table)
    (problem,) = problems(answers["effects"])
    return forest_plot(*(rows_of(answers[name], problem) for name in ("effects", "pooled", "robust")))


class Page(HTMLParser):
    """What a browser would make of the page: its elements and its words."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.words, self.open = [], [], []
        self.feed(text)
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag in ("style", "script"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag in self.open:
            self.open.remove(tag)

    def handle_data(self, data):
        if not self.open:
            self.words.append(data)

    def attributes(self, *names):
        return [attrs[name] for _, attrs in self.elements for name in names if name in attrs]


@pytest.mark.parametrize("name", METRICS)
def test_the_pooled_numbers_to_four_decimals(tmp_path, name):
    text = Page(report(classic(name), tmp_path / "report.html")).text
    with (GROUND_TRUTH / "meta_outputs.csv").open(newline="") as file:
        rows = {(row["method"], row["inference"]): row for row in csv.DictReader(file) if row["dataset"] == name}
    plain = [rows[method, "z"] for method in ("REML", "PM", "DL", "FE")]
    estimate, *lines = ([f"{float(row[key]):.4f}" for row in plain] for key in ("estimate", "se", "tau2", "Q"))
    # Below each estimate stands the ratio.
    assert re.search(r"Estimate " + r" \S+ ".join(map(re.escape, estimate)) + " ", text)
    for title, line in zip(("Standard error", "Variance between sites, τ²", "Cochran's Q"), lines, strict=True):
        assert f"{title} {' '.join(line)} " in text
    knapp = rows["REML", "hk_adhoc_ge_z"]
    assert f"Standard error, Hartung-Knapp {float(knapp['se']):.4f} " in text
    assert f"Hartung-Knapp {float(knapp['ci_lb']):.4f} to {float(knapp['ci_ub']):.4f} " in text


def test_the_page_refers_to_nothing_outside(tmp_path):
    text = report(pa.concat_tables([classic("bcg"), classic("magnesium16")]), tmp_path / "report.html")
    page = Page(text)
    references = page.attributes("src", "href", "xlink:href", "data", "action", "srcset")
    assert references
    assert all(reference.startswith("#") for reference in references)
    assert all(target.startswith("#") for target in re.findall(r"url\(['\"]?(.)", text))
    assert "http:" not in text
    assert "https:" not in text
    assert "@import" not in text
    assert not {"script", "link", "iframe", "img"} & {tag for tag, _ in page.elements}


def test_ids_are_unique_and_references_find_them(tmp_path):
    page = Page(report(pa.concat_tables([classic("bcg"), classic("magnesium16")]), tmp_path / "report.html"))
    ids = page.attributes("id")
    assert len(ids) == len(set(ids))
    assert {reference[1:] for reference in page.attributes("href")} <= set(ids)


@pytest.mark.parametrize(
    "evil",
    [
        "<script>alert(1)</script>",
        "--><script>",
        "]]><b>",
        "$\\frac{1}{0}$",
        "a\x1b[31m\x00\u202eb",
        "{{ 7*7 }}",
        "鼠 🐁",
    ],
)
def test_what_strangers_write_stays_text(tmp_path, evil):
    table = packets([(0.1, 0.1), (0.2, 0.1)], metric=evil, intervention=evil, names=[evil, f"{evil} 2"])
    page = Page(report(table, tmp_path / "report.html"))
    tags = {tag for tag, _ in page.elements}
    assert not {"script", "b"} & tags
    shown = "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in evil)
    assert f"{shown} 2" in page.text
    ET.fromstring(save(figure_of(table), tmp_path / "forest.svg").read_bytes())


def test_one_mark_a_site(tmp_path):
    page = Page(report(classic("bcg"), tmp_path / "report.html"))
    assert sum(bool(re.fullmatch(r"s1-forest-site-\d+", id_)) for id_ in page.attributes("id")) == 13


def test_every_plot_is_on_the_page_and_in_files(tmp_path):
    page = Page(report(classic("bcg"), tmp_path / "report.html", plots=tmp_path / "plots"))
    labels = [attrs["aria-label"] for tag, attrs in page.elements if tag == "svg"]
    assert len(labels) == 4
    marks = {"forest-site": 13, "funnel-funnel": 13, "leave_one_out-left-out": 13, "cumulative-until": 13}
    for name, number in marks.items():
        assert sum(bool(re.fullmatch(rf"s1-{name}-\d+", id_)) for id_ in page.attributes("id")) == number, name
    names = ("forest", "funnel", "leave_one_out", "cumulative")
    found = {path.name: path.read_bytes() for path in (tmp_path / "plots").iterdir()}
    assert found.keys() == {f"{name}.{form}" for name in names for form in ("svg", "png")}
    for name in names:
        ET.fromstring(found[f"{name}.svg"])
        assert found[f"{name}.png"].startswith(b"\x89PNG")


def test_of_many_packets_the_plots_draw_some_and_say_so(tmp_path):
    table = packets([(0.001 * number, 0.1) for number in range(70)])
    text = Page(report(table, tmp_path / "report.html")).text
    assert "60 of 70 packets drawn: the ones that move the answer most" in text
    assert "the last 60 of 70 packets drawn" in text


def test_the_robust_table_flags_what_lies_apart(tmp_path):
    text = Page(report(packets(LIAR), tmp_path / "report.html")).text
    assert re.search(r"Median of means of three \S+ \S+ \S+ yes", text)
    calm = Page(report(classic("bcg"), tmp_path / "calm.html")).text
    assert re.search(r"Median of means of three \S+ \S+ \S+ no", calm)


def test_same_packets_same_bytes(tmp_path):
    table = classic("bcg")
    for name in ("report.html", "forest.svg", "forest.png"):
        written = []
        for turn in (1, 2):
            path = tmp_path / f"{turn}-{name}"
            if name == "report.html":
                report(table, path)
            else:
                save(figure_of(table), path)
            written.append(path.read_bytes())
        assert written[0] == written[1], name


def test_one_packet_shows_dashes_for_what_it_cannot_say(tmp_path):
    page = Page(report(packets([(0.1, 0.2)]), tmp_path / "report.html"))
    assert "One packet alone says: risk ratio 1.11 , 95 % interval 0.75 to 1.64." in page.text
    assert re.search(r"95 % prediction for a new site( \N{EN DASH}){4} Variance", page.text)
    assert not re.search(r"\b(None|nan|inf)\b", page.text)


def test_without_any_standard_error_the_median_speaks(tmp_path):
    text = Page(report(packets([(0.1, None), (0.2, None)]), tmp_path / "report.html")).text
    assert "so nothing is pooled" in text
    assert "Pooled answers" not in text
    assert "If some sites lie" in text


def test_without_a_packet_the_page_says_so(tmp_path):
    assert "There is no packet yet" in report(packets([(0.1, 0.1)]).slice(0, 0), tmp_path / "report.html")


def test_two_problems_are_two_sections(tmp_path):
    text = report(pa.concat_tables([classic("bcg"), packets([(0.1, 0.1)], metric="val_auc")]), tmp_path / "r.html")
    page = Page(text)
    assert [attrs["id"] for tag, attrs in page.elements if tag == "section"] == ["s1", "s2"]
    assert page.attributes("href")[:2] == ["#s1", "#s2"]
    assert "val_auc 0.10 , 95 % interval -0.10 to 0.30" in page.text


def test_the_summary_of_the_bcg_trials(tmp_path):
    text = Page(report(classic("bcg"), tmp_path / "report.html")).text
    assert "risk ratio 0.49 , 95 % interval 0.33 to 0.73 by Hartung-Knapp. That is 51 % lower risk" in text
    assert "expect 0.14 to 1.76, which includes no effect" in text
    assert "hangs most on Hart & Sutherland 1977 : without it, it is 0.53" in text
    assert "the median disagree" not in text
    assert "78 pairs" in text
    assert "its 95 % interval, Q-profile 0.1197 to 1.1115" in text


@pytest.mark.parametrize(
    ("effects", "names", "said"),
    [
        (LIAR, None, "pooled answer and the median disagree"),
        ([(0.1, 0.1), (0.2, 0.1), (0.3, None)], None, "in the robust answers only: 1."),
        ([(0.1, 0.1), (0.2, 0.1)], ["a", "a"], "Some sites sent several packets"),
        ([(0.1, 0.1), (0.2, 0.1)], None, "so few packets"),
        ([(0.1, 0.1)], None, "nothing about how much sites differ"),
    ],
)
def test_cautions(tmp_path, effects, names, said):
    assert said in Page(report(packets(effects, names=names), tmp_path / "report.html")).text


def test_provenance(tmp_path):
    page = Page(report(classic("bcg"), tmp_path / "report.html", table_version=7))
    assert "Delta version 7" in page.text
    assert len(re.findall(r"\b[0-9a-f]{64}\b", page.text)) == len(plan(*REPORTED))
    assert "raw rows stay at the site; only packets travel" in page.text


def test_a_plot_of_many_packets_says_what_it_leaves_out(tmp_path):
    table = packets([(0.001 * number, 0.1) for number in range(MAX_PACKETS + 20)])
    svg = save(figure_of(table), tmp_path / "forest.svg").read_text(encoding="utf-8")
    assert len(re.findall(r'id="site-\d+"', svg)) == MAX_PACKETS
    assert f"{MAX_PACKETS} of {MAX_PACKETS + 20} packets drawn" in svg


def test_log_metrics_are_drawn_as_ratios(tmp_path):
    words = ET.fromstring(save(figure_of(classic("bcg")), tmp_path / "forest.svg").read_bytes()).itertext()
    assert {"0.1", "0.25", "0.5", "1", "2", "4", "0.49 [0.34, 0.70]"} <= {word.strip() for word in words}


def test_a_wild_site_does_not_squeeze_the_others():
    low, high = figure_of(packets(LIAR)).axes[0].get_xlim()
    assert -10 < low < 0 < high < 10


@pytest.mark.parametrize("effect", [3e38, -3e38, 1e-30, 0.0])
@pytest.mark.parametrize("metric", ["log_risk_ratio", "val_auc"])
def test_any_float_can_be_drawn(tmp_path, metric, effect):
    table = packets([(effect, 0.1), (0.1, 1e18), (0.2, 1e-18)], metric=metric)
    assert "<svg" in report(table, tmp_path / "report.html")


def test_a_scale_shows_two_digits_of_a_typical_standard_error():
    effects = answers_of(packets([(0.0123, 0.0041)], metric="val_auc"))["effects"]
    assert Scale.of(effects).show(0.0123) == "0.0123"
