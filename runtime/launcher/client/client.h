/* The command line: a planner decides, this process performs. */
#ifndef TESTBED_CLIENT_H
#define TESTBED_CLIENT_H

#include <stddef.h>
#include <stdint.h>

/* client.c: ask for what the arguments say and perform the answers. Returns the exit status. */
int command_line(const char **argv, const char **environment);

/* planner.c: a connection to the planner that is there already, or a negative errno. */
int resident_planner(const char **environment);
/* A connection to an interpreter that is started for this call; it may stay as the planner. */
int new_planner(const char **environment);

#endif
