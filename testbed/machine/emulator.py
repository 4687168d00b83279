"""The command line of the QEMU that emulates the reference machine."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath
from types import MappingProxyType

from vm_images.reference import System

# Below it, in the emulator's container, are the machine's files.
FOLDER = PurePosixPath("/machine")
XEN, KERNEL, INITRD, DISK = "xen", "kernel", "initrd", "disk"
QEMU = "/usr/lib/testbed-qemu/qemu-system-x86_64"
# The emulator's standard input is the memory that takes the results, its output the machine's console: files that the
# container's own root need not have, and that never make it wait, as a pipe would.
_RESULTS, _CONSOLE = "/proc/self/fd/0", "/proc/self/fd/1"
RESULTS_BYTES = 64 << 20
MEMORY_MIB = 6144
# What a machine without randomness and a clock of its own shows: the first second of 2026, and this seed.
START = "2026-01-01T00:00:00"
SEED = 42
# How much translated code is kept, in MiB, whatever memory the host has: when code is translated again can be seen.
_CODE_MIB = 1024
# nokaslr, random.trust_cpu: what the kernel draws from its processor must be the same each time. The emulated timer has
# no latency that KVM could make up for, and a guest that polls makes no time pass for anybody else. loglevel: KVM tells
# of each register that a guest asks for in vain, on a console whose every byte would be in the times of starts.
COMMAND_LINE = (
    "earlyprintk=serial console=ttyS0 quiet loglevel=3 panic=-1 nokaslr random.trust_cpu=off cryptomgr.notests "
    "8250.nr_uarts=1 kvm.lapic_timer_advance=0 kvm.halt_poll_ns=0"
)
# Under Xen: domain 0 has this much of the memory, the rest is for guests. Without x2apic=off Xen sets its timer by a
# register of the processor's, which QEMU cannot tell the time of while it counts instructions ("Bad icount read").
# Debian's default scheduler, credit2, is not the one that libvirt's driver can give a limit to.
DOMAIN_0_MIB = 3072
XEN_COMMAND_LINE = (
    f"com1=115200,8n1 console=com1 x2apic=off sched=credit dom0_mem={DOMAIN_0_MIB}M,max:{DOMAIN_0_MIB}M "
    "loglvl=none guest_loglvl=none"
)
# Domain 0's console is Xen's, which is the serial port.
DOMAIN_0_COMMAND_LINE = "console=hvc0 quiet loglevel=3 panic=-1 nokaslr random.trust_cpu=off cryptomgr.notests"

# The files that it is made of, and how QEMU boots these: Linux, directly, or Xen with Linux as its first module.
PARTS: Mapping[System, tuple[str, ...]] = MappingProxyType(
    {"kvm": (KERNEL, INITRD, DISK), "xen": (XEN, KERNEL, INITRD, DISK), "virtualbox": (KERNEL, INITRD, DISK)}
)
_LINUX = ("-kernel", str(FOLDER / KERNEL), "-initrd", str(FOLDER / INITRD), "-append", COMMAND_LINE)
_BOOTS: Mapping[System, tuple[str, ...]] = MappingProxyType(
    {
        "kvm": _LINUX,
        "virtualbox": _LINUX,
        "xen": (
            *("-kernel", str(FOLDER / XEN), "-append", XEN_COMMAND_LINE),
            *("-initrd", f"{FOLDER / KERNEL} {DOMAIN_0_COMMAND_LINE},{FOLDER / INITRD}"),
        ),
    }
)


def emulator_command(disk_bytes: int, *, deterministic: bool = True, system: System = "kvm") -> tuple[str, ...]:
    """Return the command that emulates the machine, whose ``disk`` has so many bytes, a multiple of 2 MiB, and which
    is booted as that ``system``.

    A ``deterministic`` machine has one processor that executes one instruction each nanosecond of its own time
    (docs/devel/tcg-icount.rst of QEMU), and skips the time when it is idle. The other one has the host's time, and
    translates on two processors: for checks, not for figures. Its emulator still has faults with nested guests: a
    kernel of the machine's panicked in one of some forty nested boots, by an interrupt taken right after VMRUN.
    """
    timing = ("-icount", "shift=0,sleep=off") if deterministic else ()
    processors = "1" if deterministic else "2"
    accelerator = f"tcg,thread=single,tb-size={_CODE_MIB}" if deterministic else "tcg,thread=multi"
    disk = (
        f"memory-backend-file,id=disk,mem-path={FOLDER / DISK},size={disk_bytes},share=off,readonly=on,rom=on,align=2M"
    )
    results = f"memory-backend-file,id=results,mem-path={_RESULTS},size={RESULTS_BYTES},share=on,align=2M"
    return (
        *(QEMU, "-L", "/usr/share/qemu", "-L", "/usr/share/seabios", "-nodefaults", "-no-user-config", "-no-reboot"),
        *("-display", "none", "-machine", "q35,nvdimm=on", "-accel", accelerator, "-smp", processors),
        # No second source of time or chance: five-level paging and the processor's random numbers are left out.
        *("-cpu", "max,la57=off,rdrand=off,rdseed=off", *timing),
        *("-rtc", f"base={START},clock=vm", "-seed", str(SEED)),
        *("-m", f"{MEMORY_MIB}M,slots=2,maxmem={MEMORY_MIB + 8192}M"),
        *("-object", disk, "-device", "nvdimm,memdev=disk,unarmed=on"),
        *("-object", results, "-device", "nvdimm,memdev=results"),
        *("-chardev", f"file,id=console,path={_CONSOLE},append=on", "-serial", "chardev:console"),
        *_BOOTS[system],
    )
