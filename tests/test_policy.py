"""What a policy allows, at a real router: nothing that it does not say, from the moment it is saved."""

import re
from contextlib import closing
from time import sleep

import pytest

from qis_connectors import Node
from qis_connectors.address import Pattern
from qis_connectors.client import RouterClient
from qis_connectors.errors import QisError
from qis_connectors.network.policy import HEAD, PolicyError, parse, with_member, without_member

OURS, THEIRS = "clinical.tuberculosis/bcg_vaccine", "imaging.chest_ct/nodule_risk"


@pytest.fixture
def client(strict, network):
    """client(name): at the strict router, as that member."""
    opened = []

    def connect(name):
        opened.append(RouterClient(strict.url, network.bundle(name)))
        return opened[-1]

    yield connect
    for one in opened:
        one.close()


@pytest.fixture
def allow(network):
    """allow("site-a", 'read: ["*"]'): these lines, and no others for it."""

    def write(name, *lines):
        text = without_member(network.policy.read_text(), name)
        network.policy.write_text(with_member(text, name, "".join(f"  {line}\n" for line in lines) or "  {}\n"))

    return write


@pytest.fixture
def both(packets):
    """Packets of site-a at two addresses."""
    here, there = OURS.split("/"), THEIRS.split("/")
    first = packets(2, domain=here[0], problem_type=here[1])
    return first, packets(3, domain=there[0], problem_type=there[1])


def test_deposits_at_a_foreign_address(client, allow, both):
    allow("site-a", 'deposit: ["clinical.*"]')
    ours, theirs = both
    site = client("site-a")
    assert site.deposit(ours).stored == 2
    line = f"may not deposit {THEIRS} here"
    with pytest.raises(QisError, match=line):
        site.deposit(theirs)
    for address in (None, THEIRS):
        transaction = site.transaction()
        transaction.deposit(ours)
        with pytest.raises(QisError, match=line):
            transaction.deposit(theirs, address)
        transaction.abort()
    assert client("site-b").read("*").table.num_rows == 2


def test_reads_and_listings_show_what_may_be_read(client, allow, both):
    for packets in both:
        client("site-a").deposit(packets)
    allow("site-b", 'read: ["imaging.*"]')
    site = client("site-b")
    assert site.addresses()["address"].to_pylist() == [THEIRS]
    assert site.addresses("clinical.*").num_rows == 0
    assert site.read("*").table.num_rows == 3
    assert site.read("imaging.chest_ct").table.num_rows == 3
    assert site.read("clinical.tuberculosis").table.num_rows == 0
    assert sum(site.read_ticket(ticket).table.num_rows for ticket in site.endpoints("*")) == 3
    for ask in (site.read, site.endpoints, site.addresses, lambda address: next(site.watch(address))):
        with pytest.raises(QisError, match=f"site-b may not read {OURS} here"):
            ask(OURS)
    assert client("site-a").read("*").table.num_rows == 5


def test_what_arrives_shows_what_may_be_read(client, allow, both):
    allow("site-b", 'read: ["imaging.*"]')
    with closing(client("site-b").watch("*")) as part, closing(client("site-a").watch("*")) as whole:
        client("site-a").deposit(both[0])
        assert next(whole).table.num_rows == 2
        client("site-a").deposit(both[1])
        assert next(whole).table.num_rows == 3
        assert next(part).table["domain"].to_pylist() == ["imaging.chest_ct"] * 3


def test_default_is_to_deny(client, allow, both):
    client("site-a").deposit(both[0])
    allow("site-b")
    site = client("site-b")
    for ask in (lambda: site.read("*"), lambda: site.read(OURS), site.addresses, lambda: next(site.watch("*"))):
        with pytest.raises(QisError, match="site-b may not read"):
            ask()
    for ask in (site.transaction, lambda: site.deposit(both[0])):
        with pytest.raises(QisError, match="site-b may not deposit"):
            ask()
    assert site.head() == 2


def test_statistics_are_the_operators(client):
    assert client("operator").stats()["packets"] == 0
    with pytest.raises(QisError, match="site-a may not operate here"):
        client("site-a").stats()


def test_an_operator_does_not_deposit(client, packets):
    with pytest.raises(QisError, match="operator may not deposit"):
        client("operator").deposit(packets(1, node_id="operator"))


def test_a_change_reaches_open_streams(client, allow, both, packets):
    site = client("site-b")
    with closing(site.watch("*")) as news:
        client("site-a").deposit(both[0])
        assert next(news).table.num_rows == 2
        allow("site-b", 'read: ["imaging.*"]')
        sleep(1.1)
        client("site-a").deposit(packets(1, 5))
        client("site-a").deposit(both[1])
        assert next(news).table["domain"].to_pylist() == ["imaging.chest_ct"] * 3, "it came back, to less"


def test_a_policy_with_a_mistake_changes_nothing_and_a_revocation_still_holds(client, network, caplog):
    sites = client("site-a"), client("site-b")
    good = network.policy.read_text()
    network.policy.write_text(f"{good}site-a:\n  read: everything\n")
    assert sites[0].addresses().num_rows == 0
    assert "policy.yaml: line 22: 'site-a' is there already" in caplog.text
    with pytest.raises(QisError, match=r"policy\.yaml: line 22: 'site-a' is there already"):
        network.add("site-c")
    network.policy.write_text("{")
    with pytest.raises(
        QisError, match=r"site-b is no member any more; its lines stay, for .*policy\.yaml: line 1: is not"
    ):
        network.revoke("site-b")
    with pytest.raises(QisError, match="site-b is no member"):
        sites[1].addresses()
    assert sites[0].addresses().num_rows == 0
    network.policy.write_text(good)
    assert sites[0].addresses().num_rows == 0


def test_a_site_that_is_added_is_known_at_once(strict, network, packets):
    with Node("site-c", strict.url, domain="clinical.x", problem_type="y", identity=network.add("site-c")) as node:
        assert node.deposit(packets(2, node_id="site-c", domain="clinical.x", problem_type="y")).stored == 2
        assert node.query().num_rows == 2


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("site-a: [", "line 1: is not YAML"),
        ("- site-a", "line 1: expected a member"),
        ("a:\n  read: '*'", "line 2: expected a list of addresses"),
        ("a:\n  write: ['*']", "line 2: 'write' is none of deposit, read, operate"),
        ("a:\n  read: ['*']\n  read: []", "line 3: 'read' is there already"),
        ("a:\n  read: ['*']\na: {}", "line 3: 'a' is there already"),
        ("a:\n  read: ['x/../y']", "line 2: address 'x/../y' has an empty or dotted segment"),
        ("a:\n  read: [['*']]", "line 2: expected an address"),
        ("a: everything", "line 1: expected what 'a' may do"),
        ("? [a]\n: {}", "line 1: expected a member"),
        ("{a: {read: ['*']}}", "line 1: expected a member"),
    ],
)
def test_mistakes_name_their_line(text, line):
    with pytest.raises(PolicyError, match=re.escape(line)):
        parse(text)


def test_names_are_what_is_written():
    assert set(parse("no: {}\n1948: {}\nnull: {}\n'a b':\n")) == {"no", "1948", "null", "a b"}
    assert parse("") == parse(HEAD) == {}


def test_members_come_and_go_and_the_rest_stays_as_it_was_written():
    text = f"{HEAD}\n# ours\nsite-a:\n  read:\n  - a/b  # for now\n  - c/d\n\n# theirs\n"
    longer = with_member(text, "site-b", '  read: ["*"]\n')
    assert parse(longer)["site-b"].read == (Pattern("*"),)
    assert with_member(longer, "site-a", "  {}\n") == longer
    assert without_member(longer, "site-b").rstrip() == text.rstrip()
    assert set(parse(without_member(longer, "site-a"))) == {"site-b"}
    kept = without_member(longer, "site-a")
    assert "# ours" in kept
    assert "# theirs\n\nsite-b:\n" in kept
    assert without_member("a:\nb: {}\n", "a") == "b: {}\n"


@pytest.mark.parametrize(
    ("pattern", "grants", "seen"),
    [
        ("*", ["*"], ["a.x/p", "a.y/p", "b/p"]),
        ("*", ["a.*"], ["a.x/p", "a.y/p"]),
        ("a.*", ["a.x", "b"], ["a.x/p"]),
        ("b", ["a.*"], []),
        ("*/p", ["b/p", "a.y/p"], ["a.y/p", "b/p"]),
        ("a.x", ["a.x"], ["a.x/p"]),
        ("*", [], []),
    ],
)
def test_a_pattern_within_others(pattern, grants, seen):
    part = Pattern(pattern).within(tuple(map(Pattern, grants)))
    assert [address for address in ("a.x/p", "a.y/p", "b/p") if part.matches(address)] == seen
