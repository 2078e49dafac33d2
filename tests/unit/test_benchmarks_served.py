"""The benchmark of pages through real servers: its figures and its page, from loads that nobody has measured."""

import pytest

from benchmarks.served import contenders, page
from benchmarks.served.load import Load, parsed
from benchmarks.served.run import Row, verdicts

PEER = "fastapi-cachex"


def row(group=contenders.GROUPS[0], **rates):
    loads = {name: [Load(rate, 1e-3, 5e-3) for rate in rates.get(name, (100, 100, 100))] for name in group.names}
    return Row(group, "/rows", loads)


def test_contenders_are_compared_within_each_round():
    """The median of the ratios, not the ratio of the medians: a slow round is slow for all."""
    measured = row(Storeroom=(400, 40, 800), **{PEER: (100, 10, 100)})
    assert measured.ratio("Storeroom", PEER) == 4
    assert measured.median("Storeroom").rate == 400
    outcomes = {verdict.goal.rpartition(" ")[2]: verdict.is_reached for verdict in verdicts([measured])}
    assert outcomes == {"fastapi-cache2": True, PEER: True, "cashews": True, "hishel": True}
    assert not any(verdict.is_reached for verdict in verdicts([row()]))


def test_files_are_compared_with_files():
    """A peer whose pages are in files is no measure for memory."""
    measured = row(contenders.GROUPS[-1], Storeroom=(900, 900, 900))
    limit = ", of 1.00× that the server allows"
    assert [verdict.measured for verdict in verdicts([measured])] == [f"9.00×{limit}", f"1.00×{limit}"]


def test_what_the_server_allows_is_told_where_it_is_less_than_the_goal():
    """The rate of an application that does nothing bounds that of each cache."""
    measured = row(**{contenders.BARE: (250, 299, 301), PEER: (100, 100, 100)})
    told = {verdict.goal.rpartition(" ")[2]: verdict.measured for verdict in verdicts([measured])}
    assert told[PEER] == "1.00×, of 2.99× that the server allows"
    measured = row(**{contenders.BARE: (300, 300, 300)})
    assert all(verdict.measured == "1.00×" for verdict in verdicts([measured]))


def test_the_page_has_all_rows_and_the_share_of_nginx(tmp_path):
    """With a chart for each kind of server, the goals that are missed, and the load of the machine."""
    page.write([row(group, Storeroom=(50, 50, 50)) for group in contenders.GROUPS], tmp_path, "1.5")
    written = (tmp_path / "pages-served.md").read_text("utf-8")
    for text in ("0 of 16 are reached", "missed by 83.3%", "| load before | 1.5 |", "| 50% |", "0.50×", "1.00 ms"):
        assert text in written
    assert {path.name for path in (tmp_path / "benchmarks").iterdir()} == {"pages-asgi.svg", "pages-wsgi.svg"}


@pytest.mark.parametrize("told", ["Non-2xx or 3xx responses: 7", "Socket errors: connect 0, read 3", "nothing"])
def test_answers_that_are_no_pages_are_an_error(told):
    """A rate of errors is none."""
    with pytest.raises(RuntimeError, match="wrk"):
        parsed(f"50% 1ms\n99% 2ms\n{told}")
