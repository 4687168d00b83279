"""The kinds of messages that go through SYNC_FD and BESIDE_FD; the launcher's header has them from here."""

PID, FAILED, SYNC, READY, CONSOLE, LISTENER, GO, SENT_FD, SIGNAL = range(1, 10)
