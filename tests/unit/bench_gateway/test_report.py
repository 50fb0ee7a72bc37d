"""The Markdown table."""

import pytest
from bench.gateway.compare import spread
from bench.gateway.report import number, table, write_page


@pytest.mark.parametrize(
    ("value", "shown"), [(51234.0, "51,200"), (123.4, "123"), (3.456, "3.46"), (0.0421, "0.0421"), (1.0, "1")]
)
def test_numbers_have_three_digits(value, shown):
    assert number(value) == shown


def test_a_gateway_has_a_row_with_its_figure_and_the_ratio():
    figure = spread([10_000.0, 12_000.0]).as_dict()
    ratio = spread([2.0, 3.0]).as_dict()
    cell = {"requests_per_cpu_s": figure, "ours_to_this": {"requests_per_cpu_s": ratio}}
    scenario = {"title": "T", "figure": "requests_per_cpu_s", "versus": "peers", "summary": {"v": {"haproxy": cell}}}
    assert "| haproxy | 11,000 [10,000-12,000] | **2.5x** [2-3] | - |" in table({"scenarios": {"c": scenario}})


def test_variants_are_shown_as_ratios_to_the_first():
    first = {"cpu_us_per_request": spread([20.0]).as_dict(), "this_to_first": {}}
    second = {"this_to_first": {"cpu_us_per_request": spread([1.1]).as_dict()}}
    summary = {"1": {"inferdock": first}, "64": {"inferdock": second}}
    scenario = {"title": "T", "figure": "cpu_us_per_request", "versus": "variants", "summary": summary}
    assert "| inferdock | 20 [20-20] | **1.1x** [1.1-1.1] |" in table({"scenarios": {"replicas": scenario}})


def test_the_table_of_a_page_is_written_anew_and_the_rest_is_left(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("before <!-- figures -->old<!-- end of figures --> after")
    scenario = {"title": "T", "figure": "ttft_p50_ms", "versus": "peers", "summary": {"v": {}}}
    scenario |= {"versions": {"inferdock": "working tree", "nginx": "1.2"}, "commit": "abc", "started": "2026"}
    machine = {"processor": "P", "cpus": 2, "system": "Linux", "python": "3.11"}
    write_page(page, {"machine": machine, "scenarios": {"paced": scenario}})
    text = page.read_text()
    assert text.startswith("before <!-- figures -->\n")
    assert text.endswith("<!-- end of figures --> after")
    assert "old" not in text
    assert "Inferdock abc; nginx 1.2." in text


def test_a_page_without_marks_is_not_touched(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("text")
    with pytest.raises(ValueError, match="has no"):
        write_page(page, {"machine": {}, "scenarios": {}})
