"""Puts a record of the ladder into words."""

from __future__ import annotations

from collections.abc import Mapping

from reports.ladder.view import QUANTITIES, Subject, Tally, View
from testbed.ladder.model import Pressure
from testbed.probes.model import Outcome

INSTRUCTION_TIME = "All times are instruction time: one instruction a nanosecond, on an emulated processor."
# How features and classes are headed, and what a reader who has never heard of them is told.
FEATURES: Mapping[str, str] = {
    "processes": "other processes",
    "root": "root directory",
    "files": "file system",
    "network": "network",
    "users": "users",
    "capabilities": "root's powers",
    "system_calls": "system calls",
    "devices": "devices",
    "limits": "limits",
    "kernel": "kernel",
    "snapshot": "snapshot, clone",
    "checkpoint": "checkpoint",
}
CLASSES: Mapping[str, str] = {
    "files": "Reach files of the host that were not given to it",
    "processes": "See or touch processes that are not its own",
    "signals": "Send signals to processes that are not its own",
    "network": "Reach, or listen on, the host's network and its neighbours'",
    "names": "Read or change the names that others go by: host name, shared memory, queues",
    "time": "Read or change clocks that are not its own",
    "users": "Become a user that it was not meant to be",
    "devices": "Reach the host's devices",
    "mounts": "Change what is mounted where",
    "kernel_settings": "Change the settings of the kernel, which are everybody's",
    "kernel_interfaces": "Use parts of the kernel that are seldom needed and often had holes",
    "memory": "Read or use memory that is not its own",
    "resources": "Take more than its share",
    "covert": "Pass something on by what two sides can both measure",
}
# Attacks on resources, as people call them.
ATTACKS: Mapping[str, str] = {
    "fork": "fork bomb",
    "memory": "memory hog",
    "disk": "disk filler",
    "spin": "processor hog",
    "descriptors": "descriptors",
    "watches": "inotify instances",
}
# What each of them does.
DOES: Mapping[str, str] = {
    "fork": "starts processes that start processes",
    "memory": "takes ever more memory",
    "disk": "fills all room for what is written",
    "spin": "computes on every processor",
    "descriptors": "opens all the files that it may",
    "watches": "takes all of the few means by which one user's programs are told of changed files: whoever shares that "
    "user has none",
}
# What a reader must know who has never heard of it, in the order in which one explains the other.
WORDS: Mapping[str, str] = {
    "kernel": "the program that deals out a computer's processors, memory and devices to all others: whoever rules it "
    "rules them all",
    "system call": "how a program asks the kernel for something",
    "host": "the computer, its kernel and what runs outside of all rungs; a guest is what runs inside of one",
    "namespace": "a list that the kernel keeps (of processes, of users, of networks) and of which it can keep several: "
    "who has one sees nothing of the others",
    "control group": "programs that have a common limit: of memory, of processor time, of how many they are",
    "capability": "one of some forty parts of what root may do, each of which can be taken away",
    "filter": "a list of the system calls that a program may make (seccomp)",
    "wall": "any of these, or of the means that did the same before: what keeps a guest in",
    "plan": "the system calls by which a rung is made, one after the other",
}
VERDICTS: Mapping[str, str] = {
    "blocked": "the attempt failed, and the host saw that nothing was done",
    "leaked": "meant to be prevented, and the host saw that it was done: a finding",
    "permitted": "meant to be allowed, or never spoken of, and it was done",
    "broken": "meant to be allowed, and it failed: a promise not kept",
    "untestable": "this host or this rung cannot be asked",
}
# How a source was looked up, in the list of all.
CHECKS: Mapping[str, str] = {
    "read": "read",
    "quoted": "quoted, from what a search showed of it",
    "cited": "not read",
    "not found": "not found",
}
# By a figure of an attacker: what became of it.
STOPPED: Mapping[str, str] = {"refused": "refused more", "killed": "killed"}
SIGNS: Mapping[str, str] = {"blocked": "■", "leaked": "✖", "permitted": "○", "broken": "△", "untestable": "–"}


def name_feature(feature: str) -> str:
    """Return a feature as people say it."""
    return FEATURES.get(feature, feature)


def name_class(kind: str) -> str:
    """Return a class of probes as people say it."""
    return kind.replace("_", " ")


def name_attack(attack: str) -> str:
    """Return an attack on resources as people call it."""
    return ATTACKS.get(attack) or attack.replace("_", " ")


def describe_pressure(pressure: Pressure) -> str:
    """Return what an attack did: how much of its work the neighbour did, and what stopped who attacked."""
    figures = pressure.figures
    if (part := figures.get("part")) is None:
        return pressure.words
    stopped = [f"; {word}" for key, word in STOPPED.items() if figures.get(key)]
    return f"{min(part, 1.0):.0%} of its work{''.join(stopped)}"


def begin(text: str) -> str:
    """Return a text that begins a sentence."""
    return text[:1].upper() + text[1:]


def conclude(view: View) -> str:
    """Return what the run found out, in a sentence or two; what an emulated machine takes is no part of it."""
    if not view.outcomes:
        return _price_sentence(view) or "Nothing of this run's rungs is on record."
    tallies = [(one, view.tally(one.name)) for one in view.subjects if view.tally(one.name).tried]
    first, *_ = tallies
    best = max(tallies, key=lambda pair: pair[1]["blocked"])
    count = len({probe for _, probe in view.outcomes})
    sentence = f"{count} ways out were tried on each of {len(tallies)} rungs: {_say_blocked(*first)} of them"
    if best[0] is not first[0]:
        sentence += f", {_say_blocked(*best)}"
    return f"{sentence}; {_say_leaked(view)}. {_price_sentence(view)}".rstrip()


def _say_leaked(view: View) -> str:
    leaks = [one for one in view.findings if one.verdict == "leaked"]
    known = sum(view.explain(one) is not None for one in leaks)
    if not leaks:
        return "nothing leaked that a maker had meant to keep in"
    said = f"{len(leaks)} leaked where {'it was' if len(leaks) == 1 else 'they were'} meant not to"
    if known == len(leaks):
        return f"{said}, all of which is known and explained"
    return f"{said}, {known} of which {'is' if known == 1 else 'are'} known" if known else said


def _say_blocked(subject: Subject, tally: Tally) -> str:
    title = subject.rung.title if subject.rung is not None and not subject.look.emulated else subject.label
    return f"{title[0].lower() + title[1:] if title.startswith('A ') else title} blocked {tally['blocked']}"


def _price_sentence(view: View) -> str:
    quantity = QUANTITIES["start_s"]
    priced = [
        (one.label, view.costs[one.name, "start_s"].value)
        for one in view.subjects
        if (one.name, "start_s") in view.costs and not one.look.emulated
    ]
    if not priced:
        return ""
    (least, least_s), (most, most_s) = (choose(priced, key=lambda pair: pair[1]) for choose in (min, max))
    clock = ", in instruction time" if view.counts_instructions else ""
    if least == most:
        return f"To start {least} takes {quantity.show(least_s)}{clock}."
    return f"A start takes from {quantity.show(least_s)} ({least}) to {quantity.show(most_s)} ({most}){clock}."


def describe_finding(view: View, outcome: Outcome) -> str:
    """Return a finding in a sentence: what was tried, where, and what the host saw."""
    probe = view.probes[outcome.probe]
    label = next(one.label for one in view.subjects if one.name == outcome.rung)
    verb = "leaked" if outcome.verdict == "leaked" else "is broken"
    seen = f" The host saw: {outcome.words}" if outcome.words else ""
    return f"{label}: {outcome.probe} {verb}. {probe.tries}{seen}"


def show_counts(tally: Tally) -> str:
    """Return how many of a class's probes were blocked, of those that could be tried."""
    return f"{tally['blocked']}/{tally.tried}" if tally.tried else "–"
