"""What people write after a task's name."""

from __future__ import annotations

import pytest

from reports.commands.words import arrange


@pytest.mark.parametrize(
    ("written", "passed"),
    [
        ("", ""),
        ("--list", "--list"),
        ("--help bench", "--help bench"),
        ("clean --check", "clean --check"),
        ("bench clickme --quick", "bench --scenario clickme --quick"),
        ("--search-root /x explain app", "--search-root /x explain --scenario app"),
        ("report --run x", "report --run x"),
        ("report", "report"),
        ("up clickme --platform vm", "up --scenario clickme --platform vm"),
        ("down app", "down --project app"),
        ("ps", "ps"),
        ("ladder shell jail-2000", "ladder-shell jail-2000"),
        ("ladder --quick", "ladder --quick"),
        ("logs", "logs"),
        ("logs -f web db", "logs -f --service web --service db"),
        ("logs --tail 5 -p app web", "logs --tail 5 -p app --service web"),
        ("exec web", "exec --service web"),
        ("exec web ls -la /www", "exec --service web --words|ls -la /www"),
        ("exec -p app --no-tty web sh -c|a  b; c", "exec -p app --no-tty --service web --words|sh -c 'a  b; c'"),
        ("exec web -- ls -l", "exec --service web --words|ls -l"),
        ("exec -p app", "exec -p app"),
        ("exec -u 0 web id -u", "exec -u 0 --service web --words|id -u"),
    ],
)
def test_each_word_has_its_option(written: str, passed: str) -> None:
    def split(text: str) -> list[str]:
        plain, bar, rest = text.partition("|")
        return [*plain.split(), *([rest] if bar else [])]

    assert arrange(split(written)) == split(passed)
