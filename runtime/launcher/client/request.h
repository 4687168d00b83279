/* What the command line is asked for, when it is what engines ask for. */
#ifndef TESTBED_REQUEST_H
#define TESTBED_REQUEST_H

enum command { COMMAND_OTHER, COMMAND_RUN, COMMAND_STATE, COMMAND_START, COMMAND_KILL, COMMAND_DELETE };

struct request {
  enum command command;
  const char *root, *id;
  const char *bundle; /* NULL: the working directory */
  const char *log;    /* NULL: none */
  int signal;
  int force, everything;
  int by_default; /* no flag changes how a container is made */
};

/* Fill `request`. Returns 0 for a command line that the interpreter has to read. */
int read_request(struct request *request, int argc, const char **argv);

#endif
