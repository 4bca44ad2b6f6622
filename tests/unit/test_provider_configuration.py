"""What the programs of a cluster are told."""

from __future__ import annotations

import ipaddress
import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography import x509
from cryptography.x509.oid import NameOID

from sandbox.cluster.providers.embedded import certificates, configuration, objects
from sandbox.cluster.providers.embedded.allocation import network
from sandbox.cluster.providers.embedded.configuration import Layout, Ports

PORTS = Ports(api=1001, etcd=1002, etcd_peer=1003, controller_manager=1004, scheduler=1005)


@pytest.fixture
def node() -> Layout:
    return configuration.node_layout("demo", network(3), Path("/usr/lib/cni"))


@pytest.fixture
def alone(tmp_path: Path) -> Layout:
    return configuration.control_plane_layout("demo", tmp_path / "state", tmp_path / "bin", PORTS)


def flags(layout: Layout, program: str) -> dict[str, str]:
    argv = next(c["argv"] for c in configuration.components(layout) if c["name"] == program)
    return dict(word.removeprefix("--").split("=", 1) for word in argv[1:] if word.startswith("--"))


def test_a_node_runs_all_programs_and_a_control_plane_its_four(node: Layout, alone: Layout) -> None:
    control_plane = ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"]
    assert [c["name"] for c in configuration.components(alone)] == control_plane
    further = ["containerd", "registry", "pause-image", "kubelet", "kube-proxy", "coredns"]
    assert [c["name"] for c in configuration.components(node)] == control_plane + further


def test_programs_wait_only_for_what_there_is(node: Layout, alone: Layout) -> None:
    for layout in (node, alone):
        components = configuration.components(layout)
        known = {component["name"] for component in components}
        for condition in (condition for component in components for condition in component["waitFor"]):
            kind, _, target = condition.partition(":")
            assert kind in {"tcp", "unix", "done"}
            assert kind != "done" or target in known


def test_etcd_answers_only_to_its_own_authority(node: Layout, alone: Layout) -> None:
    for layout in (node, alone):
        told = flags(layout, "etcd")
        assert told["client-cert-auth"] == told["peer-client-cert-auth"] == "true"
        assert told["trusted-ca-file"].endswith("/pki/etcd-ca.crt")
        assert all(told[key].startswith("https://127.0.0.1:") for key in ("listen-client-urls", "listen-peer-urls"))


def test_a_control_plane_alone_listens_on_loopback_and_its_own_ports(alone: Layout) -> None:
    server = flags(alone, "kube-apiserver")
    assert (server["bind-address"], server["secure-port"]) == ("127.0.0.1", "1001")
    assert not ipaddress.ip_address(server["advertise-address"]).is_loopback  # the API server refuses it
    assert flags(alone, "kube-scheduler")["secure-port"] == "1005"
    assert configuration.files(alone) == {}
    assert "node" not in configuration.init(alone, Path("/s"), Path("/b"))
    assert alone.registry is None


def test_nothing_of_the_hosts_paths_is_told_to_programs_in_the_node(node: Layout) -> None:
    settings = configuration.init(node, Path("/home/user/state/demo"), Path("/home/user/cache/bin"))
    assert "/home/user" not in json.dumps(settings["components"])
    assert "/home/user" not in "".join(configuration.files(node).values())
    assert settings["node"]["binds"] == {"cluster": "/home/user/state/demo", "bin": "/home/user/cache/bin"}
    assert settings["node"]["hostAddress"] == "10.200.0.13/30"
    assert settings["node"]["nodeAddress"] == "10.200.0.14/30"


def test_configuration_files_are_what_they_say(node: Layout) -> None:
    files = configuration.files(node)
    kubelet = yaml.safe_load(files["kubelet.yaml"])
    assert kubelet["cgroupRoot"] == "/sandbox-3"
    assert kubelet["authentication"]["anonymous"]["enabled"] is False
    containerd = tomllib.loads(files["containerd.toml"])
    runtime = containerd["plugins"]["io.containerd.cri.v1.runtime"]
    assert runtime["restrict_oom_score_adj"] is True
    assert runtime["cni"]["bin_dirs"] == ["/usr/lib/cni"]
    assert yaml.safe_load(files["kube-proxy.yaml"])["mode"] == "nftables"
    assert yaml.safe_load(files["registry.yaml"])["storage"]["delete"]["enabled"] is True
    assert files["certs.d/10.200.0.14:5000/hosts.toml"] == 'server = "http://10.200.0.14:5000"\n'


def test_service_and_pod_addresses_do_not_overlap() -> None:
    ranges = [ipaddress.ip_network(r) for r in (configuration.SERVICE_RANGE, configuration.POD_RANGE, "10.200.0.0/16")]
    assert not any(a.overlaps(b) for a in ranges for b in ranges if a is not b)
    assert ipaddress.ip_address(configuration.DNS_ADDRESS) in ranges[0]


def test_objects_name_the_registry_and_the_dns(node: Layout) -> None:
    found: dict[str, Any] = {manifest["kind"]: manifest for manifest in objects.manifests(node)}
    hosting = yaml.safe_load(found["ConfigMap"]["data"]["localRegistryHosting.v1"])
    assert hosting["host"] == node.registry == "10.200.0.14:5000"
    assert found["Service"]["spec"]["clusterIP"] == configuration.DNS_ADDRESS
    assert found["EndpointSlice"]["endpoints"][0]["addresses"] == ["10.200.0.14"]
    assert found["StorageClass"]["metadata"]["annotations"]["storageclass.kubernetes.io/is-default-class"] == "true"


def test_certificates_carry_the_names_that_roles_expect(tmp_path: Path) -> None:
    wanted = certificates.wanted("sandbox-demo", ["10.200.0.14"])
    certificates.ensure(tmp_path / "pki", wanted)
    kubelet = x509.load_pem_x509_certificate((tmp_path / "pki" / "kubelet.crt").read_bytes())
    assert kubelet.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value == "system:node:sandbox-demo"
    assert kubelet.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)[0].value == "system:nodes"
    server = x509.load_pem_x509_certificate((tmp_path / "pki" / "apiserver.crt").read_bytes())
    names = server.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert ipaddress.ip_address("10.200.0.14") in names.get_values_for_type(x509.IPAddress)
    for certificate in wanted:
        issued = x509.load_pem_x509_certificate((tmp_path / "pki" / f"{certificate.file}.crt").read_bytes())
        issued.verify_directly_issued_by(
            x509.load_pem_x509_certificate((tmp_path / "pki" / f"{certificate.authority}.crt").read_bytes())
        )


def test_keys_are_private_and_stay(tmp_path: Path) -> None:
    wanted = certificates.wanted("n", ["127.0.0.1"])
    certificates.ensure(tmp_path / "pki", wanted)
    keys = {path.name: path.read_bytes() for path in (tmp_path / "pki").glob("*.key")}
    assert len(keys) == len(wanted) + len({c.authority for c in wanted}) + 1
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "pki").glob("*.key")} == {0o600}
    certificates.ensure(tmp_path / "pki", wanted)
    assert {path.name: path.read_bytes() for path in (tmp_path / "pki").glob("*.key")} == keys
    assert [path.name for path in tmp_path.iterdir()] == ["pki"]


def test_a_kubeconfig_holds_its_keys(tmp_path: Path) -> None:
    certificates.ensure(tmp_path / "pki", certificates.wanted("n", ["127.0.0.1"]))
    config = configuration.kubeconfig("sandbox-demo", "https://127.0.0.1:1", tmp_path / "pki", "admin")
    assert config["current-context"] == "sandbox-demo"
    assert set(config["users"][0]["user"]) == {"client-certificate-data", "client-key-data"}
