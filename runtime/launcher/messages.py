"""The kinds of messages that go through SYNC_FD; the launcher's header has them from here."""

PID, FAILED, SYNC, READY, CONSOLE, LISTENER, GO = range(1, 8)
