// The process of the host's that attempts are made on.
#ifndef CANARY_H
#define CANARY_H

// Give up all capabilities, hold `secret` in memory, on descriptor CANARY_DESCRIPTOR and in the command line, and print what happens: first
// `at ADDRESS FLAG_ADDRESS`, then `signal NUMBER` for each signal, and `flag TEXT` when the text at FLAG_ADDRESS has been changed.
int be_canary(const char *secret);

#endif
