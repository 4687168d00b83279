// Who is hurt by an attack on resources, and the attacks that testbed-neighbour has not.
#ifndef PRESSURE_H
#define PRESSURE_H

#include <stdint.h>

// Work for so many seconds, and print `work DONE FAILED` ten times a second: rounds in which it got all that a small service takes (a
// process, memory, descriptors, a file, watches), and those in which the kernel refused it something.
int work(uint64_t seconds);

// Take what there is of a kind, but for what the host keeps in reserve, for so many seconds; print `took COUNT`.
int exhaust(const char *kind, uint64_t seconds);

#endif
