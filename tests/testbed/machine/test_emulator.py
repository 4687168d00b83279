"""The emulator's command line: what makes the machine a function of its inputs, and what is left of it without."""

from __future__ import annotations

from testbed.machine.emulator import emulator_command


def test_nothing_of_the_host_s_time_or_chance_is_in_the_machine() -> None:
    command = " ".join(emulator_command(2 << 20))
    for part in (
        "-icount shift=0,sleep=off",
        "-smp 1",
        "tb-size=1024",  # else by the host's memory
        "clock=vm",
        "-seed 42",
        "rdrand=off,rdseed=off",
        "random.trust_cpu=off",
        "nokaslr",
    ):
        assert part in command
    assert "-netdev" not in command and "-drive" not in command  # both answer when the host gets round to it


def test_without_instruction_counting_it_has_the_host_s_time() -> None:
    command = " ".join(emulator_command(2 << 20, deterministic=False))
    assert "-icount" not in command and "thread=multi" in command and "-smp 2" in command


def test_the_disk_is_read_only_memory_of_the_given_length() -> None:
    (disk,) = (
        word for word in emulator_command(6 << 20) if word.startswith("memory-backend-file") and "id=disk" in word
    )
    assert f"size={6 << 20}" in disk and "readonly=on" in disk and "share=off" in disk
