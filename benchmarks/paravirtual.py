"""Boots Xen in the reference machine, and a paravirtual guest on it by libvirt's Xen driver; says when each was there.

    sudo .venv/bin/python benchmarks/paravirtual.py [3]

Xen runs its guests without virtualisation in hardware: their kernel knows that it is one. Debian's Xen is booted on the
emulated processor, with the machine's own system as domain 0, and there a guest, so many times: Debian's kernel for
clouds, with our launcher as its first process, as the probe of accelerators boots it. All times are instruction time.
"""

from __future__ import annotations

import argparse
import gzip
import secrets
import shutil
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from runtime import atomic  # noqa: E402
from runtime.builder.build import build  # noqa: E402
from runtime.errors import PrerequisiteError  # noqa: E402
from runtime.home import store_root  # noqa: E402
from runtime.images.model import Image, Layer  # noqa: E402
from runtime.images.store import open_store  # noqa: E402
from runtime.launcher import STATIC_BINARY  # noqa: E402
from runtime.lease import lease  # noqa: E402
from runtime.plan.encode import encode  # noqa: E402
from runtime.plan.steps import LogLine, Plan  # noqa: E402
from testbed.machine import emulator  # noqa: E402
from testbed.machine.emulation import emulate, read_tail  # noqa: E402
from testbed.machine.inputs import assemble, ensure_machine_image, require_room  # noqa: E402
from testbed.machine.job import PROGRESS, TIME  # noqa: E402
from vm_images.disk import layer_name  # noqa: E402
from vm_images.initramfs import MODULES_PATH, make_base_archive, make_plan_archive  # noqa: E402
from vm_images.modules import ModuleTree  # noqa: E402
from vm_images.plans.guest import FIRST_USERSPACE  # noqa: E402
from vm_images.plans.reference import ReferenceMachine, reference_plan  # noqa: E402
from vm_images.reference import DISK, INTERPRETER, PACKAGES, kernel_of  # noqa: E402

DOCKERFILE = Path(__file__).with_suffix(".dockerfile")
XEN = "xen"
# What domain 0 is booted with. Its console is Xen's, which is the serial port. Without x2apic=off Xen sets its timer by
# a register of the processor's, which QEMU cannot tell the time of while it counts instructions ("Bad icount read").
LINUX = "console=hvc0 quiet loglevel=3 panic=-1 nokaslr random.trust_cpu=off cryptomgr.notests"
BOOT = (
    *("-kernel", str(emulator.FOLDER / XEN)),
    *("-append", "com1=115200,8n1 console=com1 x2apic=off dom0_mem=2048M,max:2048M loglvl=none guest_loglvl=none"),
    *("-initrd", f"{emulator.FOLDER / emulator.KERNEL} {LINUX},{emulator.FOLDER / emulator.INITRD}"),
)
# The disk's driver and file systems, and what domain 0 reaches Xen by. erofs asks for crc32c by name.
MODULES = (
    *("nfit", "nd_pmem", "crc32c_generic", "erofs", "overlay"),
    *("xen_evtchn", "xen_gntdev", "xen_gntalloc", "xen_privcmd", "xenfs"),
)
# Where domain 0 has what its guest boots from.
GUEST = "/usr/lib/testbed/guest"

# What runs in domain 0, as its first process.
INSIDE = f"""
import os, subprocess, threading, time
from pathlib import Path
import libvirt
from runtime import libc

LOG = Path("/run/libvirtd.log")

def say(what):
    print("{PROGRESS}" + what, flush=True)

def pulse():
    while True:
        print("{TIME}%d" % time.monotonic(), flush=True)
        time.sleep(5)

def wait_for(found, what):
    deadline = time.monotonic() + 120
    while not found():
        if time.monotonic() > deadline:
            raise TimeoutError(what)
        time.sleep(0.001)

def boot(connection, number):
    log = Path("/var/log/xen/guest-pv%d.log" % number)
    xml = "<domain type='xen'><name>pv%d</name><memory unit='MiB'>256</memory><vcpu>1</vcpu>" \
        "<os><type machine='xenpv'>linux</type><kernel>{GUEST}/kernel</kernel><initrd>{GUEST}/initrd</initrd>" \
        "<cmdline>earlyprintk=xen console=hvc0 quiet panic=-1 cryptomgr.notests</cmdline></os>" \
        "<on_poweroff>destroy</on_poweroff><on_reboot>destroy</on_reboot><on_crash>destroy</on_crash>" \
        "<devices><console type='pty'><target type='xen' port='0'/></console></devices></domain>" % number
    began = time.monotonic()
    domain = connection.createXML(xml, 0)
    created = time.monotonic()
    wait_for(lambda: log.exists() and b"{FIRST_USERSPACE}" in log.read_bytes(), "the guest's first process")
    booted = time.monotonic()
    say("guest %d: created after %.1f ms, its first process after %.1f ms"
        % (number, (created - began) * 1e3, (booted - began) * 1e3))

def main():
    say("domain 0 after %.3f s" % time.monotonic())
    threading.Thread(target=pulse, daemon=True).start()
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        os.symlink("/proc/self/fd/%d" % number, "/dev/" + name)
    os.symlink("/proc/self/fd", "/dev/fd")
    subprocess.run(["mount", "-t", "xenfs", "xenfs", "/proc/xen"], check=True)
    for path in ("/run/xen", "/run/xenstored", "/var/lib/xenstored", "/var/log/xen", "/run/lock", "/run/libvirt"):
        os.makedirs(path, exist_ok=True)
    (programs,) = Path("/usr/lib").glob("xen-4*/bin")
    for command in (
        ["xenstored", "--pid-file", "/run/xenstored.pid"],
        ["xen-init-dom0"],
        ["xenconsoled", "--log=guest", "--log-dir=/var/log/xen"],
    ):
        subprocess.run([programs / command[0], *command[1:]], check=True, stdout=subprocess.DEVNULL)
    say("xenstored and xenconsoled after %.3f s" % time.monotonic())
    subprocess.Popen(["libvirtd"], stdout=open(LOG, "wb"), stderr=subprocess.STDOUT)
    wait_for(Path("/run/libvirt/libvirt-sock").exists, "libvirtd's socket")
    connection = libvirt.open("xen:///system")
    version = connection.getVersion()
    say("libvirt's driver for Xen %d.%d after %.3f s"
        % (version // 1000000, version // 1000 % 1000, time.monotonic()))
    for number in range(1, int(os.environ["GUESTS"]) + 1):
        boot(connection, number)

try:
    main()
except BaseException as error:
    say("it ended by %r" % error)
    for path in (LOG, *Path("/var/log/libvirt/libxl").glob("*"), *Path("/var/log/xen").glob("*")):
        print(path, path.read_text(errors="replace")[-1500:], flush=True)
finally:
    libc.call("reboot", 0x4321FEDC)
"""


def find_one(image: Image, pattern: str) -> Path:
    """Return the one file of the image's layers that matches. Raises PrerequisiteError."""
    found = [path for layer in image.layers for path in sorted(layer.path.glob(pattern))]
    if len(found) != 1:
        raise PrerequisiteError(f"the image {image.reference} has {len(found)} files {pattern}", "report this release")
    return found[0]


def lay_out_guest(tree: Path, image: Image) -> None:
    """Write what the guest boots from: the machine's own kernel, and a RAM disk whose plan says that it is there."""
    folder = tree / GUEST.lstrip("/")
    folder.mkdir(parents=True)
    shutil.copyfile(kernel_of(image)[0], folder / "kernel")
    plan = encode(Plan((LogLine(FIRST_USERSPACE),)))
    (folder / "initrd").write_bytes(make_base_archive(STATIC_BINARY.read_bytes(), {}) + make_plan_archive(plan))


def become_domain_0(files: Path, image: Image, layers: tuple[str, ...], program: tuple[str, ...]) -> None:
    """Have the machine in ``files`` boot Xen, and after it a kernel that is its domain 0 and becomes ``program``."""
    kernel = find_one(image, "usr/lib/dom0/boot/vmlinuz-*")
    modules = ModuleTree.read(find_one(image, "usr/lib/dom0/usr/lib/modules/*")).load(MODULES)
    environment = (f"PYTHONPATH={PACKAGES}", "PYTHONHASHSEED=0", "HOME=/root")
    plan = reference_plan(
        ReferenceMachine(DISK, layers, program, PACKAGES, environment), [f"/{MODULES_PATH}/{name}" for name in modules]
    )
    parts = {
        XEN: gzip.decompress(find_one(image, "boot/xen-4*.gz").read_bytes()),
        emulator.KERNEL: kernel.read_bytes(),
        emulator.INITRD: make_base_archive(STATIC_BINARY.read_bytes(), modules) + make_plan_archive(encode(plan)),
    }
    for name, data in parts.items():
        (files / name).unlink(missing_ok=True)
        (files / name).write_bytes(data)
        (files / name).chmod(0o444)


def build_image() -> Image:
    """Build the reference machine's image, and above it the one with Xen."""
    store = open_store()
    ensure_machine_image(store, print)
    with tempfile.TemporaryDirectory(prefix="testbed-") as context:
        return build(
            store, context=Path(context), dockerfile=DOCKERFILE, reference="testbed/reference-xen", progress=print
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("guests", type=int, nargs="?", default=3)
    guests = parser.parse_args().guests
    require_room()
    image = build_image()
    run_id = f"paravirtual-{secrets.token_hex(3)}"
    lines: list[str] = []

    def say(line: str) -> None:
        lines.append(line)
        print(line, flush=True)

    with atomic.scratch(store_root() / "guest" / f"machine-{run_id}") as folder, lease(run_id) as scratch:
        tree = folder / "inputs"
        lay_out_guest(tree, image)
        added = Layer("sha256:inputs", tree)
        program = ("/usr/bin/env", f"GUESTS={guests}", INTERPRETER, "-B", "-c", INSIDE)
        made = assemble(folder, image, (added,), program)
        become_domain_0(made.files, image, tuple(map(layer_name, (*image.layers, added))), program)
        took = emulate(made, run_id, scratch / "console", scratch / "results", say, boot=BOOT)
        booted = sum("its first process" in line for line in lines)
        if booted < guests:
            print(read_tail(scratch / "console"))
    print(
        f"{booted} of {guests} guests reached their first process; {took.real_s:.0f} s, {took.machine_s:.0f} s inside"
    )
    return 0 if booted == guests else 3


if __name__ == "__main__":
    sys.exit(main())
