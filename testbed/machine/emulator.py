"""The command line of the QEMU that emulates the reference machine."""

from __future__ import annotations

from pathlib import PurePosixPath

# Below it, in the emulator's container, are the machine's files.
FOLDER = PurePosixPath("/machine")
KERNEL, INITRD, DISK = "kernel", "initrd", "disk"
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


# How it is booted: Linux, directly.
BOOT = ("-kernel", str(FOLDER / KERNEL), "-initrd", str(FOLDER / INITRD), "-append", COMMAND_LINE)


def emulator_command(disk_bytes: int, *, deterministic: bool = True, boot: tuple[str, ...] = BOOT) -> tuple[str, ...]:
    """Return the command that emulates the machine, whose ``disk`` has so many bytes, a multiple of 2 MiB, and which
    QEMU boots by these options.

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
        *boot,
    )
