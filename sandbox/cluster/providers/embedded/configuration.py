"""What every program of a cluster is told: argument lists and configuration files. Pure functions."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from sandbox.cluster.providers.embedded.allocation import Network
from sandbox.cluster.providers.embedded.pause import IMAGE_ARCHIVE, PAUSE_IMAGE
from sandbox.cluster.providers.embedded.programs import SYSTEM_PATH

SERVICE_RANGE = "10.96.0.0/16"
DNS_ADDRESS = "10.96.0.10"
POD_RANGE = "10.244.0.0/16"  # all of it is the one node's
API_PORT = 6443
REGISTRY_PORT = 5000
DNS_READY_PORT = 8181
# Advertised by a control plane alone, which nothing but its own machine reaches: the API
# server refuses loopback here. Reserved for documentation (RFC 5737), and never used to connect.
_UNREACHABLE_ADDRESS = "192.0.2.1"
# Where the node sees the cluster's directory and the binaries.
_NODE_STATE = PurePosixPath("/run/cluster")
_NODE_BIN = PurePosixPath("/run/bin")
_CONTAINERD_SOCKET = "/run/containerd/containerd.sock"
# Collecting garbage is a sixth of the CPU time of programs whose heap is small; for 50 MB more each it is a twentieth.
_GARBAGE = "GOGC=400"
# The API server's heap is large: a tenth of its time, for 100 MB more.
_GARBAGE_OF_API_SERVER = "GOGC=200"


@dataclass(frozen=True)
class Ports:
    """The ports of a control plane's programs; fixed in a node, free ones without namespaces."""

    api: int = API_PORT
    etcd: int = 2379
    etcd_peer: int = 2380
    controller_manager: int = 10257
    scheduler: int = 10259


@dataclass(frozen=True)
class Layout:
    """One cluster as its programs see it."""

    name: str
    state: PurePosixPath
    bin: PurePosixPath
    address: str  # of the API server
    ports: Ports
    network: Network | None  # None: a control plane alone
    cni_plugins: str = ""

    @property
    def node_name(self) -> str:
        return f"sandbox-{self.name}"

    @property
    def server(self) -> str:
        return f"https://{self.address}:{self.ports.api}"

    @property
    def registry(self) -> str | None:
        """The registry's name, the same for the host and the node; None without a node."""
        return f"{self.network.node_address}:{REGISTRY_PORT}" if self.network else None

    def pki(self, file: str) -> str:
        return str(self.state / "pki" / file)

    def config(self, file: str) -> str:
        return str(self.state / "config" / file)

    def program(self, name: str) -> str:
        return str(self.bin / name)


def node_layout(name: str, network: Network, cni_plugins: Path) -> Layout:
    """A node in namespaces of its own: everything is on the same paths and ports in each."""
    return Layout(name, _NODE_STATE, _NODE_BIN, network.node_address, Ports(), network, str(cni_plugins))


def control_plane_layout(name: str, directory: Path, binaries: Path, ports: Ports) -> Layout:
    """A control plane alone: ordinary processes on 127.0.0.1."""
    return Layout(name, PurePosixPath(directory), PurePosixPath(binaries), "127.0.0.1", ports, None)


def kubeconfig(name: str, server: str, pki: Path, user: str) -> dict[str, Any]:
    """A kubeconfig whose cluster, user and context all have one name, with the keys inside it."""

    def embedded(file: str) -> str:
        return base64.b64encode((pki / file).read_bytes()).decode()

    credentials = {"client-certificate-data": embedded(f"{user}.crt"), "client-key-data": embedded(f"{user}.key")}
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": name, "cluster": {"server": server, "certificate-authority-data": embedded("ca.crt")}}],
        "users": [{"name": name, "user": credentials}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
        "current-context": name,
    }


def component_kubeconfigs(layout: Layout) -> list[str]:
    """The users for whom a kubeconfig file is needed; each is the name of a certificate too."""
    users = ["controller-manager", "scheduler"]
    return [*users, "kubelet", "kube-proxy", "coredns"] if layout.network else users


def files(layout: Layout) -> dict[str, str]:
    """The configuration files of a node by name below `config/`; none for a control plane alone."""
    if layout.network is None:
        return {}
    return {
        "kubelet.yaml": _yaml(_kubelet(layout)),
        "kube-proxy.yaml": _yaml(_kube_proxy(layout)),
        "containerd.toml": _containerd(layout),
        "cni/10-ptp.conflist": json.dumps(_cni(), indent=2),
        f"certs.d/{layout.registry}/hosts.toml": f'server = "http://{layout.registry}"\n',
        "registry.yaml": _yaml(_registry(layout)),
        "Corefile": _corefile(layout),
        "resolv.conf": "# Pods get the cluster's DNS; the node itself resolves nothing.\n",
    }


def init(layout: Layout, directory: Path, binaries: Path) -> dict[str, Any]:
    """The configuration of node-init (embedded/nodeinit/config.go)."""
    settings: dict[str, Any] = {
        "lockFile": str(directory / "node.lock"),
        "logDir": str(layout.state / "logs"),
        "components": components(layout),
    }
    if layout.network:
        prefix = layout.network.subnet.prefixlen
        settings["node"] = {
            "hostname": layout.node_name,
            "hostLink": layout.network.host_link,
            "hostAddress": f"{layout.network.host_address}/{prefix}",
            "nodeAddress": f"{layout.network.node_address}/{prefix}",
            "cgroup": layout.network.cgroup,
            "binds": {_NODE_STATE.name: str(directory), _NODE_BIN.name: str(binaries)},
            # The host-path provisioner of the controller manager writes there, and cannot be told otherwise.
            "volumes": {"/tmp/hostpath_pv": str(_NODE_STATE / "volumes")},
        }
    return settings


def components(layout: Layout) -> list[dict[str, Any]]:
    """The programs in the order in which they are started, each with what it waits for."""
    etcd = f"tcp:127.0.0.1:{layout.ports.etcd}"
    api = f"tcp:{layout.address}:{layout.ports.api}"
    started = [
        _component("etcd", _etcd(layout)),
        _component("kube-apiserver", _api_server(layout), env=[_GARBAGE_OF_API_SERVER], wait=[etcd]),
        _component("kube-controller-manager", _controller_manager(layout), wait=[api]),
        _component("kube-scheduler", _scheduler(layout), wait=[api]),
    ]
    return [*started, *_node_components(layout, api)] if layout.network else started


def _node_components(layout: Layout, api: str) -> list[dict[str, Any]]:
    runtime = f"unix:{_CONTAINERD_SOCKET}"
    path = [f"PATH={layout.bin}:{SYSTEM_PATH}"]
    import_pause = [
        layout.program("ctr"),
        f"--address={_CONTAINERD_SOCKET}",
        "--namespace=k8s.io",
        "images",
        "import",
        layout.program(IMAGE_ARCHIVE),
    ]
    kubelet = [
        layout.program("kubelet"),
        f"--config={layout.config('kubelet.yaml')}",
        f"--kubeconfig={layout.config('kubelet.kubeconfig')}",
        f"--hostname-override={layout.node_name}",
        f"--node-ip={layout.address}",
        f"--root-dir={layout.state / 'kubelet'}",
    ]
    return [
        _component("containerd", [layout.program("containerd"), f"--config={layout.config('containerd.toml')}"], path),
        _component("registry", [layout.program("registry"), "serve", layout.config("registry.yaml")]),
        _component("pause-image", import_pause, wait=[runtime], once=True),
        _component("kubelet", kubelet, path, wait=[runtime, "done:pause-image", api]),
        _component(
            "kube-proxy", [layout.program("kube-proxy"), f"--config={layout.config('kube-proxy.yaml')}"], path, [api]
        ),
        _component("coredns", [layout.program("coredns"), "-conf", layout.config("Corefile")], wait=[api]),
    ]


def _component(
    name: str, argv: list[str], env: Sequence[str] = (), wait: Sequence[str] = (), once: bool = False
) -> dict[str, Any]:
    return {"name": name, "argv": argv, "env": [_GARBAGE, *env], "waitFor": list(wait), "once": once}


def _etcd(layout: Layout) -> list[str]:
    client = f"https://127.0.0.1:{layout.ports.etcd}"
    peer = f"https://127.0.0.1:{layout.ports.etcd_peer}"
    arguments = {
        "name": "default",
        "data-dir": str(layout.state / "etcd"),
        "listen-client-urls": client,
        "advertise-client-urls": client,
        "listen-peer-urls": peer,
        "initial-advertise-peer-urls": peer,
        "initial-cluster": f"default={peer}",
        "unsafe-no-fsync": "true",  # a throw-away cluster: what a power cut destroys is made again
        "log-level": "warn",
    }
    for prefix in ("", "peer-"):
        arguments |= {
            f"{prefix}cert-file": layout.pki("etcd.crt"),
            f"{prefix}key-file": layout.pki("etcd.key"),
            f"{prefix}trusted-ca-file": layout.pki("etcd-ca.crt"),
            f"{prefix}client-cert-auth": "true",
        }
    return _argv(layout, "etcd", arguments)


def _api_server(layout: Layout) -> list[str]:
    arguments = {
        "bind-address": layout.address,
        "secure-port": str(layout.ports.api),
        "advertise-address": layout.address if layout.network else _UNREACHABLE_ADDRESS,
        "endpoint-reconciler-type": "lease" if layout.network else "none",
        "tls-cert-file": layout.pki("apiserver.crt"),
        "tls-private-key-file": layout.pki("apiserver.key"),
        "client-ca-file": layout.pki("ca.crt"),
        "etcd-servers": f"https://127.0.0.1:{layout.ports.etcd}",
        "etcd-cafile": layout.pki("etcd-ca.crt"),
        "etcd-certfile": layout.pki("apiserver-etcd-client.crt"),
        "etcd-keyfile": layout.pki("apiserver-etcd-client.key"),
        "authorization-mode": "Node,RBAC",
        "enable-admission-plugins": "NodeRestriction",
        "allow-privileged": "true",
        "service-cluster-ip-range": SERVICE_RANGE,
        "service-account-issuer": "https://kubernetes.default.svc.cluster.local",
        "service-account-key-file": layout.pki("service-account.pub"),
        "service-account-signing-key-file": layout.pki("service-account.key"),
        "kubelet-certificate-authority": layout.pki("ca.crt"),
        "kubelet-client-certificate": layout.pki("apiserver-kubelet-client.crt"),
        "kubelet-client-key": layout.pki("apiserver-kubelet-client.key"),
        "kubelet-preferred-address-types": "InternalIP",
        "requestheader-client-ca-file": layout.pki("front-proxy-ca.crt"),
        "requestheader-allowed-names": "front-proxy-client",
        "requestheader-username-headers": "X-Remote-User",
        "requestheader-group-headers": "X-Remote-Group",
        "requestheader-extra-headers-prefix": "X-Remote-Extra-",
        "proxy-client-cert-file": layout.pki("front-proxy-client.crt"),
        "proxy-client-key-file": layout.pki("front-proxy-client.key"),
    }
    return _argv(layout, "kube-apiserver", arguments)


def _controller_manager(layout: Layout) -> list[str]:
    config = layout.config("controller-manager.kubeconfig")
    arguments = {
        "kubeconfig": config,
        "authentication-kubeconfig": config,
        "authorization-kubeconfig": config,
        "bind-address": "127.0.0.1",
        "secure-port": str(layout.ports.controller_manager),
        "leader-elect": "false",
        "use-service-account-credentials": "true",
        "root-ca-file": layout.pki("ca.crt"),
        "cluster-signing-cert-file": layout.pki("ca.crt"),
        "cluster-signing-key-file": layout.pki("ca.key"),
        "service-account-private-key-file": layout.pki("service-account.key"),
        # With the defaults, deleting hundreds of namespaces takes minutes.
        "concurrent-namespace-syncs": "40",
        "kube-api-qps": "300",
        "kube-api-burst": "600",
        "enable-hostpath-provisioner": "true",
    }
    return _argv(layout, "kube-controller-manager", arguments)


def _scheduler(layout: Layout) -> list[str]:
    config = layout.config("scheduler.kubeconfig")
    arguments = {
        "kubeconfig": config,
        "authentication-kubeconfig": config,
        "authorization-kubeconfig": config,
        "bind-address": "127.0.0.1",
        "secure-port": str(layout.ports.scheduler),
        "leader-elect": "false",
    }
    return _argv(layout, "kube-scheduler", arguments)


def _kubelet(layout: Layout) -> dict[str, Any]:
    assert layout.network is not None
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": layout.address,
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": layout.pki("ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": layout.pki("kubelet-server.crt"),
        "tlsPrivateKeyFile": layout.pki("kubelet-server.key"),
        "clusterDomain": "cluster.local",
        "clusterDNS": [DNS_ADDRESS],
        "resolvConf": layout.config("resolv.conf"),
        "containerRuntimeEndpoint": f"unix://{_CONTAINERD_SOCKET}",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{layout.network.cgroup}",
        "failCgroupV1": False,
        "failSwapOn": False,
        "podLogsDir": str(layout.state / "logs" / "pods"),
        "volumePluginDir": str(layout.state / "kubelet" / "volume-plugins"),
        "maxPods": 500,
        "serializeImagePulls": False,
        "registryPullQPS": 0,
        "kubeAPIQPS": 100,
        "kubeAPIBurst": 200,
        # The disk is the user's: images go only when it is nearly full, and so do pods.
        "imageGCHighThresholdPercent": 99,
        "imageGCLowThresholdPercent": 98,
        "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
        "shutdownGracePeriod": "0s",
        "nodeStatusUpdateFrequency": "5s",
    }


def _kube_proxy(layout: Layout) -> dict[str, Any]:
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "nftables",
        "clientConnection": {"kubeconfig": layout.config("kube-proxy.kubeconfig")},
        "clusterCIDR": POD_RANGE,
        "hostnameOverride": layout.node_name,
        # The host's limits stay as they are.
        "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
    }


def _containerd(layout: Layout) -> str:
    return f"""\
version = 3
root = "{layout.state / "containerd"}"
state = "/run/containerd"
disabled_plugins = ["io.containerd.nri.v1.nri"]

[grpc]
  address = "{_CONTAINERD_SOCKET}"

[plugins."io.containerd.internal.v1.opt"]
  path = "/run/containerd/opt"

[plugins."io.containerd.cri.v1.images".pinned_images]
  sandbox = "{PAUSE_IMAGE}"

[plugins."io.containerd.cri.v1.images".registry]
  config_path = "{layout.config("certs.d")}"

[plugins."io.containerd.cri.v1.runtime"]
  # Without CAP_SYS_RESOURCE the kernel refuses a lower score than containerd's own.
  restrict_oom_score_adj = true

[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"

[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
  SystemdCgroup = false

[plugins."io.containerd.cri.v1.runtime".cni]
  bin_dirs = ["{layout.cni_plugins}"]
  conf_dir = "{layout.config("cni")}"
"""


def _cni() -> dict[str, Any]:
    # ptp routes every packet through the node, where kube-proxy's rules see it; on a
    # bridge, answers between two pods would bypass them.
    return {
        "cniVersion": "1.0.0",
        "name": "sandbox",
        "plugins": [
            {
                "type": "ptp",
                "ipMasq": True,
                "ipam": {
                    "type": "host-local",
                    "dataDir": "/run/cni",
                    "routes": [{"dst": "0.0.0.0/0"}],
                    "ranges": [[{"subnet": POD_RANGE}]],
                },
            },
            {"type": "portmap", "capabilities": {"portMappings": True}},
        ],
    }


def _registry(layout: Layout) -> dict[str, Any]:
    return {
        "version": 0.1,
        "log": {"level": "warn", "accesslog": {"disabled": True}},
        "storage": {
            "filesystem": {"rootdirectory": str(layout.state / "registry")},
            "delete": {"enabled": True},
        },
        "http": {"addr": layout.registry},
    }


def _corefile(layout: Layout) -> str:
    # Nothing is forwarded: the node reaches no name server, and an answer that
    # comes at once is better than one that never comes.
    return f"""\
.:53 {{
    errors
    ready {layout.address}:{DNS_READY_PORT}
    kubernetes cluster.local in-addr.arpa ip6.arpa {{
        kubeconfig {layout.config("coredns.kubeconfig")}
        pods insecure
        fallthrough in-addr.arpa ip6.arpa
        ttl 5
    }}
    cache 5
    loadbalance
}}
"""


def _argv(layout: Layout, program: str, arguments: Mapping[str, str]) -> list[str]:
    return [layout.program(program), *(f"--{name}={value}" for name, value in arguments.items())]


def _yaml(value: Mapping[str, Any]) -> str:
    return yaml.safe_dump(dict(value), sort_keys=False)
