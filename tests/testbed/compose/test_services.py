"""Every key of a service that the model has, in each of its forms; and what is said of wrong ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from runtime.errors import UsageError
from testbed.compose.limits import DEFAULT_CPUS, DEFAULT_MEMORY_BYTES
from testbed.compose.model import Attachment, Dependency, FileMount, Healthcheck, HostDevice, Mount, Port, Ulimit
from tests.testbed.compose.applications import read_files, read_one

MIB = 2**20
DEVICES = (HostDevice("/dev/fuse", "/dev/fuse"), HostDevice("/dev/a", "/dev/b", "rw"))

PORTS = [
    ("80", [Port(80)]),
    ("'80/udp'", [Port(80, "udp")]),
    ("8080:80", [Port(80, published="8080")]),
    ("'127.0.0.1:8080:80/tcp'", [Port(80, published="8080", host_ip="127.0.0.1")]),
    ("'127.0.0.1::80'", [Port(80, host_ip="127.0.0.1")]),
    ("'[::1]:8080:80'", [Port(80, published="8080", host_ip="::1")]),
    ("':8080:80'", [Port(80, published="8080")]),
    ("3000-3001", [Port(3000), Port(3001)]),
    ("'9090-9091:80-81'", [Port(80, published="9090"), Port(81, published="9091")]),
    ("'8000-8010:80'", [Port(80, published="8000-8010")]),
    ("22:22", [Port(22, published="22")]),
    ("{target: 80}", [Port(80)]),
    ("{target: 80, published: '8080', protocol: udp, host_ip: 1.2.3.4, mode: host, name: x, app_protocol: http}",
     [Port(80, "udp", "8080", "1.2.3.4")]),
]  # fmt: skip


@pytest.mark.parametrize(("written", "ports"), PORTS)
def test_ports(tmp_path: Path, written: str, ports: list[Port]) -> None:
    service = read_one(tmp_path, f"ports: [{written}]")
    assert list(service.offers) == ports
    single = [one.target for one in ports] if len(ports) == 1 and ports[0].protocol == "tcp" else []
    assert list(service.ports) == single, "a range is not waited for"


MOUNTS = [
    ("./a:/b", Mount("bind", "/b", "{folder}/a")),
    ("../a/:/b/:ro", Mount("bind", "/b", "{parent}/a", read_only=True)),
    ("~/a:/b", Mount("bind", "/b", "/home/x/a")),
    ("/var/run/docker.sock:/s", Mount("bind", "/s", "/var/run/docker.sock")),
    ("named:/b:nocopy,z", Mount("volume", "/b", "named", copy=False)),
    ("/b", Mount("volume", "/b", owner="web")),
    ("{type: bind, source: a, target: /b, read_only: true, bind: {create_host_path: false, propagation: rslave}}",
     Mount("bind", "/b", "{folder}/a", read_only=True, create=False, propagation="rslave")),
    ("{type: volume, source: named, target: /b, volume: {nocopy: true, subpath: s}}",
     Mount("volume", "/b", "named", subpath="s", copy=False)),
    ("{type: tmpfs, target: /b, tmpfs: {size: 64m, mode: 0o1777}}",
     Mount("tmpfs", "/b", size_bytes=64 * MIB, mode=0o1777)),
    ("{type: image, source: other, target: /b, image: {subpath: s}}", Mount("image", "/b", "other", subpath="s")),
]  # fmt: skip


@pytest.mark.parametrize(("written", "mount"), MOUNTS)
def test_volumes(tmp_path: Path, written: str, mount: Mount) -> None:
    top = "volumes: {named: }\n"
    lines = f"volumes: [{written}]" if written[0] == "{" else f"volumes: [{written!r}]"
    (read,) = read_one(tmp_path, lines, top, HOME="/home/x").mounts
    source = mount.source.replace("{folder}", str(tmp_path)).replace("{parent}", str(tmp_path.parent))
    assert read == Mount(**{**{key: getattr(mount, key) for key in mount.__struct_fields__}, "source": source})


def test_tmpfs(tmp_path: Path) -> None:
    service = read_one(tmp_path, "tmpfs: ['/run:size=16M,mode=1750,exec', /tmp]")
    assert service.mounts == (Mount("tmpfs", "/run", size_bytes=16 * MIB, mode=0o1750), Mount("tmpfs", "/tmp"))
    text = "services: {web: {image: x, tmpfs: '/run:exec,rw,noexec,uid=5'}}"
    assert "tmpfs exec (web); tmpfs uid (web)" in "".join(read_files(tmp_path, {"compose.yaml": text}).notes)


SIMPLE = [
    ("entrypoint: sh -c 'a b'", "entrypoint", ("sh", "-c", "a b")),
    ("command: [echo, 1, true]", "command", ("echo", "1", "true")),
    ("command: ''", "command", ()),
    ("user: 1000:1000", "user", "1000:1000"),
    ("user: 0", "user", "0"),
    ("group_add: [mail, 7]", "groups", ("mail", "7")),
    ("working_dir: /srv", "working_dir", "/srv"),
    ("hostname: h.example", "hostname", "h.example"),
    ("hostname: ''", "hostname", ""),
    ("stop_signal: SIGQUIT", "stop_signal", "SIGQUIT"),
    ("stop_grace_period: 1m30.5s", "stop_grace_s", 90.5),
    ("init: true", "init", True),
    ("init: $YES", "init", True),
    ("privileged: true", "privileged", True),
    ("read_only: 'yes'", "read_only", True),
    ("tty: true", "tty", True),
    ("stdin_open: true", "stdin_open", True),
    ("cap_add: [net_admin, CAP_SYS_TIME]", "cap_add", ("CAP_NET_ADMIN", "CAP_SYS_TIME")),
    ("cap_drop: [ALL]", "cap_drop", ("ALL",)),
    ("security_opt: ['no-new-privileges:true', 'seccomp:unconfined', 'label:disable']", "no_new_privileges", True),
    ("security_opt: [seccomp=unconfined]", "seccomp", False),
    ("ulimits: {nofile: {soft: 1, hard: 2}, core: -1}", "ulimits", (Ulimit("nofile", 1, 2), Ulimit("core", -1, -1))),
    ("sysctls: [net.core.somaxconn=1024]", "sysctls", (("net.core.somaxconn", "1024"),)),
    ("sysctls: {net.core.somaxconn: 1024}", "sysctls", (("net.core.somaxconn", "1024"),)),
    ("shm_size: 128mb", "shm_bytes", 128 * MIB),
    ("devices: ['/dev/fuse', '/dev/a:/dev/b:rw']", "devices", DEVICES),
    ("extra_hosts: ['a:1.2.3.4', 'b=::1', 'c:[::2]', 'd:host-gateway']", "hosts",
     (("a", "1.2.3.4"), ("b", "::1"), ("c", "::2"), ("d", "host-gateway"))),
    ("extra_hosts: {a: [1.2.3.4, '::1']}", "hosts", (("a", "1.2.3.4"), ("a", "::1"))),
    ("dns: 1.1.1.1", "dns", ("1.1.1.1",)),
    ("dns_search: ''", "dns_search", ()),
    ("dns_opt: [ndots:1]", "dns_options", ("ndots:1",)),
    ("network_mode: host", "network_mode", "host"),
    ("network_mode: bridge", "network_mode", ""),
    ("network_mode: none", "network_mode", "none"),
    ("pid: host", "pid", "host"),
    ("ipc: shareable", "ipc", ""),
    ("ipc: none", "ipc", "none"),
    ("ipc: private", "ipc", "private"),
    ("cgroup: private", "cgroup", ""),
    ("networks: [n]", "networks", (Attachment("n"),)),
    ("networks: {n: {aliases: [x], ipv4_address: 1.2.3.4, priority: 1}, default: }", "networks",
     (Attachment("n", ("x",), "1.2.3.4"), Attachment("default"))),
    ("secrets: [s]", "secrets", (FileMount("s", "/run/secrets/s"),)),
    ("secrets: [{source: s, target: t, uid: '1', gid: '2', mode: 0440}]", "secrets",
     (FileMount("s", "/run/secrets/t", "1", "2", 0o440),)),
    ("configs: [c, {source: c, target: /etc/c, mode: '0644'}]", "configs",
     (FileMount("c", "/c"), FileMount("c", "/etc/c", mode=0o644))),
    ("healthcheck: {test: curl localhost}", "healthcheck", Healthcheck(("/bin/sh", "-c", "curl localhost"))),
    ("healthcheck: {test: [CMD, a, b], interval: 1s, timeout: 2s, retries: 4, start_period: 5s, start_interval: 6s}",
     "healthcheck", Healthcheck(("a", "b"), 1.0, 2.0, 4, 5.0, 6.0)),
    ("healthcheck: {test: [CMD-SHELL, a b]}", "healthcheck", Healthcheck(("/bin/sh", "-c", "a b"))),
    ("healthcheck: {test: [NONE]}", "healthcheck", Healthcheck(disabled=True)),
    ("healthcheck: {disable: true}", "healthcheck", Healthcheck(disabled=True)),
    ("healthcheck: {disable: false}", "healthcheck", Healthcheck()),
]  # fmt: skip


@pytest.mark.parametrize(("lines", "field", "expected"), SIMPLE)
def test_each_key(tmp_path: Path, lines: str, field: str, expected: object) -> None:
    top = "networks: {n: {driver: bridge}}\nsecrets: {s: {content: x}}\nconfigs: {c: {content: y}}\n"
    assert getattr(read_one(tmp_path, lines, top, YES="true"), field) == expected


LIMITS = [
    ("", (DEFAULT_MEMORY_BYTES, DEFAULT_CPUS, None)),
    ("mem_limit: 64m\ncpus: 0.5\npids_limit: 10", (64 * MIB, 0.5, 10)),
    ("deploy: {resources: {limits: {cpus: '0.5', memory: 64M, pids: 10}}}", (64 * MIB, 0.5, 10)),
    ("mem_limit: 64m\ndeploy: {resources: {limits: {memory: 64m}}}", (64 * MIB, DEFAULT_CPUS, None)),
    ("mem_limit: 0\ncpus: 0\npids_limit: -1", (DEFAULT_MEMORY_BYTES, DEFAULT_CPUS, None)),
    ("cpu_quota: 50000", (DEFAULT_MEMORY_BYTES, 0.5, None)),
    ("cpu_quota: 50000\ncpu_period: 25000", (DEFAULT_MEMORY_BYTES, 2.0, None)),
    ("deploy: {replicas: 3, resources: {reservations: {cpus: '1'}}}", (DEFAULT_MEMORY_BYTES, DEFAULT_CPUS, None)),
    ("deploy: ", (DEFAULT_MEMORY_BYTES, DEFAULT_CPUS, None)),
]


@pytest.mark.parametrize(("lines", "limits"), LIMITS)
def test_limits(tmp_path: Path, lines: str, limits: tuple[int, float, int | None]) -> None:
    resources = read_one(tmp_path, lines).resources
    assert (resources.memory_bytes, resources.cpus, resources.pids) == limits


def test_environment_comes_from_files_and_the_shell(tmp_path: Path) -> None:
    (tmp_path / "a.env").write_text("A=1\nB=$OUTER\n")
    (tmp_path / "b.env").write_text("B='2'\nC=3\n")
    files = "[a.env, {path: b.env, format: raw}, {path: gone.env, required: false}]"
    lines = f"env_file: {files}\nenvironment: {{C: 4, D: , E: 1.0}}"
    service = read_one(tmp_path, lines, OUTER="o", D="d")
    assert service.environment == (("A", "1"), ("B", "'2'"), ("C", "4"), ("D", "d"), ("E", "1"))
    assert read_one(tmp_path, "env_file: a.env", OUTER="o").environment == (("A", "1"), ("B", "o"))


def test_builds(tmp_path: Path) -> None:
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "Dockerfile.dev").write_text("FROM scratch\n")
    lines = """build:
  context: app
  dockerfile: Dockerfile.dev
  target: dev
  args: [A=1, B, NONE]
  additional_contexts: {other: ./app, image: docker-image://x, base: "service:db"}
  secrets: [s]
  labels: {a: b}
  extra_hosts: ["h:1.2.3.4"]
  network: none
  shm_size: 64m
  cache_from: [x]"""
    build = read_one(tmp_path, lines, "secrets: {s: {content: x}}\n", B="b").build
    assert build is not None and build.dockerfile == tmp_path / "app" / "Dockerfile.dev"
    assert (build.target, build.args) == ("dev", (("A", "1"), ("B", "b")))
    assert build.contexts == (("other", f"{tmp_path}/app"), ("image", "docker-image://x"), ("base", "service:db"))
    assert build.secrets == (FileMount("s", "/run/secrets/s"),)
    inline = read_one(tmp_path, "build: {dockerfile_inline: 'FROM x'}").build
    assert inline is not None and (inline.context, inline.dockerfile, inline.inline) == (tmp_path, None, "FROM x")


def test_what_services_share_orders_them(tmp_path: Path) -> None:
    text = """
services:
  web: {image: x, links: ["db:database"], volumes_from: ["data:ro"], network_mode: "service:vpn"}
  db: {image: x}
  data: {image: x, volumes: [/a, /b]}
  vpn: {image: x, depends_on: {db: {condition: service_completed_successfully}}}
"""
    services = read_files(tmp_path, {"compose.yaml": text}).services
    assert [one.name for one in services] == ["db", "data", "vpn", "web"]
    web = services[-1]
    assert {one.service for one in web.depends_on} == {"db", "data", "vpn"} and web.links == (("db", "database"),)
    mounts = [(one.target, one.read_only, one.owner) for one in web.mounts]
    assert mounts == [("/a", True, "data"), ("/b", True, "data")]
    assert services[2].depends_on == (Dependency("db", "service_completed_successfully"),)
    assert web.network_mode == "service:vpn" and web.only_containers == ()


@pytest.mark.parametrize(
    "lines",
    ["pid: host", "devices: [/dev/fuse]", "volumes: ['/var/run/docker.sock:/s']", "cgroup: host", "userns_mode: host"],
)
def test_what_no_machine_can_have_is_named(tmp_path: Path, lines: str) -> None:
    ((key, what),) = read_one(tmp_path, lines).only_containers
    assert key == lines.partition(":")[0] and what


def test_what_has_no_effect_is_told_in_a_line_of_each_kind(tmp_path: Path) -> None:
    text = """
services:
  web: {image: x, restart: always, container_name: a, labels: [b], logging: {driver: none}, mem_limit: 1g, cpus: 1}
  db:
    image: x
    restart: always
    mem_limit: 1g
    cpus: 1
    cpuset: "0"
    deploy: {replicas: 2}
    build: {dockerfile_inline: FROM x, tags: [t]}
"""
    note, other = read_files(tmp_path, {"compose.yaml": text}).notes
    assert note.startswith("read over, as it is not part of a measure: build.tags (db); container_name (web); ")
    assert "restart" not in note
    assert other == "left out on every platform, though it may change a measure: cpuset (db); deploy.replicas (db)"


def test_secrets_and_configs(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    text = """
services: {web: {image: x, secrets: [a, b], configs: [c]}}
secrets: {a: {file: file}, b: {environment: B}, unused: {external: true}}
configs: {c: {content: "text $B\\n"}}
volumes:
  v: {driver_opts: {type: none, o: bind, device: ./d}}
  e: {external: true}
  t: {driver_opts: {type: tmpfs, device: tmpfs}}
networks: {n: {internal: true, ipam: {driver: default}}}
"""
    application = read_files(tmp_path, {"compose.yaml": text}, B="b")
    assert [(one.name, one.path, one.text) for one in application.secrets] == [
        ("a", tmp_path / "file", ""),
        ("b", None, "b"),
    ]
    assert application.configs[0].text == "text b\n"
    assert [(one.name, one.path) for one in application.volumes] == [("v", tmp_path / "d"), ("e", None), ("t", None)]
    assert application.networks[0].internal
    assert "volume e: external, and made here, empty" in application.notes


WRONG = [
    ("ports: ['80:x']", "ports[0]: is '80:x'"),
    ("ports: ['80-90:1-2']", "ports[0]: publishes 11 ports of 2"),
    ("ports: [{published: 80}]", "ports[0].target: is missing"),
    ("expose: ['80:80']", "expose[0]: is '80:80'"),
    ("volumes: ['./a:b']", "volumes[0]: mounts at 'b'"),
    ("volumes: ['v:/b']", "volumes[0]: 'v' is no volume of this file"),
    ("volumes: ['/a:/b:rox']", "volumes[0]: has the option 'rox'"),
    ("volumes: [{type: npipe, source: x, target: /y}]", "volumes[0].type: is 'npipe'"),
    ("volumes: [{type: bind, target: /y}]", "volumes[0]: has no source"),
    ("volumes: [{type: volume, target: /y, volume: {subpath: ../x}}]", "subpath: is '../x'"),
    ("secrets: [x]", "secrets[0]: 'x' is none of this file's secrets"),
    ("secrets: [{source: s, mode: 99999}]", "secrets[0].mode: is '99999'"),
    ("networks: [x]", "networks[0]: 'x' is no network of this file"),
    ("networks: {n: {ipv4_address: x}}", "networks.n.ipv4_address: is 'x'"),
    ("networks: [n]\nnetwork_mode: host", "network_mode: is there beside networks"),
    ("uts: host\nhostname: x", "uts: is there beside a name of its own, which would become the host's"),
    ("uts: service:web", "uts: is 'service:web'; expected one of host"),
    ("pid: x", "pid: is 'x'; expected one of host or service:NAME"),
    ("healthcheck: {test: [curl]}", "healthcheck.test: begins with 'curl'"),
    ("healthcheck: {test: x, interval: 30}", "healthcheck.interval: is '30'; expected a duration with units"),
    ("healthcheck: {tests: x}", "healthcheck.tests: is not supported"),
    ("depends_on: {db: {condition: up}}", "depends_on.db.condition: is 'up'"),
    ("ulimits: {files: 1}", "ulimits.files: 'files' is no limit of processes"),
    ("ulimits: {nofile: {soft: 1}}", "ulimits.nofile: lacks a part"),
    ("cap_add: ['x y']", "cap_add[0]: is 'X Y'"),
    ("stop_signal: kill it", "stop_signal: is 'kill it'"),
    ("hostname: 'a b'", "hostname: is 'a b'"),
    ("mem_limit: lots", "mem_limit: is 'lots'"),
    ("cpus: 1\ndeploy: {resources: {limits: {cpus: '2'}}}", "cpus: is '1', and deploy.resources.limits says otherwise"),
    (
        "deploy: {resources: {reservations: {devices: [{capabilities: [gpu]}]}}}",
        "reservations.devices: is not supported by the testbed; expected none: neither",
    ),
    ("devices: [fuse]", "devices[0]: is 'fuse'"),
    ("devices: ['/dev/a:/dev/b:x']", "devices[0]: is '/dev/a:/dev/b:x'"),
    ("env_file: gone", "env_file: there is no file 'gone'"),
    ("env_file: [{path: x, format: y}]", "env_file[0].format: is no format"),
    ("privileged: maybe", "privileged: is 'maybe'; expected true or false"),
    ("extra_hosts: [x]", "extra_hosts[0]: is 'x'; expected NAME:ADDRESS"),
    ("build: https://h/x.git", "build: 'https://h/x.git' is not on this host"),
    ("build: {dockerfile_inline: x, dockerfile: y}", "build.dockerfile: is there beside dockerfile_inline"),
    ("build: {dockerfile_inline: x, secrets: [x]}", "build: 'x' is none of this file's secrets; expected one of s"),
    ("volumes_from: ['container:x']", "volumes_from[0]: is 'container:x'"),
    ("gpus: all", "gpus: is not supported by Compose or the testbed; expected no GPU"),
    ("provider: {type: x}", "provider: is not supported"),
]


@pytest.mark.parametrize(("lines", "message"), WRONG)
def test_what_is_wrong_is_named_by_key(tmp_path: Path, lines: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        read_one(tmp_path, lines, "networks: {n: }\nsecrets: {s: {content: x}}\n")
    assert message in str(caught.value)
    assert all(line.startswith(f"{tmp_path}/compose.yaml:") for line in str(caught.value).splitlines())


TOP = [
    ("volumes: {v: {driver: nfs}}", "volumes.v.driver: is 'nfs'"),
    ("volumes: {v: {driver_opts: {type: nfs, device: x, o: addr}}}", "volumes.v.driver_opts: mounts something else"),
    ("secrets: {s: {external: true}}", "secrets.s: is external, of which this host has none"),
    ("secrets: {s: {environment: NONE}}", "secrets.s.environment: 'NONE' is no variable here"),
    ("secrets: {s: {file: gone}}", "secrets.s.file: there is no file 'gone'"),
    ("networks: {n: {drivers: x}}", "networks.n.drivers: is not supported"),
    ("models: {m: {model: x}}", "models: is not supported by Compose or the testbed; expected a service that serves"),
    ("servicess: {}", "servicess: is not supported by Compose or the testbed; expected 'services' perhaps"),
]


@pytest.mark.parametrize(("top", "message"), TOP)
def test_what_is_wrong_at_the_top(tmp_path: Path, top: str, message: str) -> None:
    lines = "secrets: [s]" if top.startswith("secrets") else ""
    with pytest.raises(UsageError) as caught:
        read_one(tmp_path, lines, f"{top}\n")
    assert message in str(caught.value)


def test_an_error_quotes_no_file_of_somebody_elses(tmp_path: Path) -> None:
    (tmp_path / "shadow").write_text("root password\n")
    folder = tmp_path / "project"
    folder.mkdir()
    with pytest.raises(UsageError) as caught:
        read_one(folder, "env_file: ../shadow")
    assert "cannot be read as variables" in str(caught.value) and "password" not in str(caught.value)
