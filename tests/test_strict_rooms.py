"""A network's router in all its rooms at once: whose profiles, keys, signatures and audit lines these are."""

import json
from contextlib import closing

import pyarrow as pa
import pytest

from pipelines.shipped import shipped
from qis_connectors.client import RouterClient
from qis_connectors.errors import QisError
from qis_connectors.node import Node
from qis_connectors.receipt import Receipt
from qis_connectors.router import Router

HERE = "clinical.tuberculosis/bcg_vaccine"


@pytest.fixture
def full(tmp_path, network):
    """A router that knows definitions and takes signed packets only."""
    options = {"similarity": shipped("similarity"), "network": network.folder, "keys": network.folder / "keys"}
    with Router(tmp_path / "store", "grpc+tls://127.0.0.1:0", **options) as router:
        yield router


def node(router, site):
    where = {"domain": "clinical.tuberculosis", "problem_type": "bcg_vaccine"}
    return Node(site.name, router.url, **where, identity=site.folder, key=site.folder / "signing.pem")


def outcome(**changes):
    fields = {"metric_name": "log_risk_ratio", "metric_delta": -0.5, "metric_stderr": 0.2, "metric_value": 0.1}
    return fields | {"sample_count": 500, "intervention_type": "bcg_vaccination"} | changes


def audited(router_folder):
    (path,) = (router_folder / "audit").glob("*.jsonl")
    lines = map(json.loads, path.read_text().splitlines())
    return [(line["who"].rpartition("/")[2], line["verb"], line["decision"]) for line in lines]


def test_a_profile_is_its_own_nodes(full, site_a, site_b):
    with node(full, site_a) as ours, node(full, site_b) as theirs:
        profile = ours.register({"latitude": 44})
        assert theirs.deposit(**outcome(context={"latitude": 45})).stored == 1
        with closing(ours.watch(profile=profile)) as news:
            assert next(news)["node_id"].to_pylist() == ["site-b"]
        with pytest.raises(QisError, match=r"is not known to this router: register it"):
            next(theirs.watch(profile=profile))
        with RouterClient(full.url, site_b.folder) as client:
            with pytest.raises(QisError, match=r"is not known to this router: register it"):
                client.drop_profile(profile)
            with pytest.raises(QisError, match=r"'node_id': 'site-a' is not 'site-b', who asks$"):
                client.register_profile("site-a", HERE, {"latitude": 10}, None, None)
            for ask in (client.profiles, client.quarantine, lambda: client.similar({"latitude": 44}, "near-latitude")):
                with pytest.raises(QisError, match=r"site-b may not operate here"):
                    ask()
        with RouterClient(full.url, site_a.folder) as client:
            client.drop_profile(profile)


def test_a_profile_reaches_no_further_than_its_node_may_read(full, network, site_a, site_b):
    policy = network.policy.read_text().replace(
        'site-a:\n  deposit: ["*"]\n  read: ["*"]', 'site-a:\n  read: ["training.*"]'
    )
    network.policy.write_text(policy)
    with node(full, site_b) as theirs:
        theirs.deposit(**outcome(context={"latitude": 45}))
    with node(full, site_a) as ours:
        profile = ours.register({"latitude": 44})
        with pytest.raises(QisError, match=r"site-a may not read clinical.tuberculosis/bcg_vaccine here"):
            next(ours.watch(profile=profile))


def test_members_only_and_only_what_they_have_signed(full, tmp_path, site_a, site_b, packets):
    with (
        RouterClient(full.url, site_a.folder) as client,
        pytest.raises(QisError, match=r"^field 'signature', row 0: is missing: this router takes signed packets only"),
    ):
        client.deposit(packets(1))
    with node(full, site_a) as ours:
        assert ours.deposit(**outcome()).stored == 1
        signed = ours.query()
    foreign = r"'site-a' is not the 'site-b' of the certificate"
    with RouterClient(full.url, site_b.folder) as client, pytest.raises(QisError, match=foreign):
        client.deposit(signed)
    with RouterClient(full.url, site_a.folder) as client:
        altered = signed.set_column(7, signed.schema.field(7), pa.array([-0.6], pa.float32())).drop(["packet_id"])
        with pytest.raises(QisError, match=r"^field 'signature', row 0: is not of this packet by 'site-a'"):
            client.deposit(altered)
        assert client.deposit(signed) == Receipt(0, 1, 1)
    assert audited(tmp_path / "store") == [
        ("site-a", "DoPut", "refused: signature, field signature, row 0"),
        ("site-a", "deposit", "stored 1"),
        ("site-b", "DoPut", "refused: packet, field node_id, row 0"),
        ("site-a", "DoPut", "refused: signature, field signature, row 0"),
        ("site-a", "deposit", "duplicates 1"),
    ]


def test_a_key_of_commits_is_its_owners(strict, site_a, site_b, packets):
    for site in (site_a, site_b):
        with RouterClient(strict.url, site.folder) as client:
            transaction = client.transaction()
            transaction.deposit(packets(2, node_id=site.name))
            assert transaction.commit("query/1").stored == 2
