"""The kinds of messages that go through SYNC_FD, and of the last word; the launcher's header has them from here."""

PID, FAILED, SYNC, READY, CONSOLE, LISTENER, GO, EXECUTING = range(1, 9)
