"""The frames by which programs are started from afar: what goes through a port, in both directions.

A frame is a header, three little-endian u32 (the command, which whoever starts it numbers; the kind; the size), and so
many bytes. START has an encoded plan that executes a program; INPUT its next input, of which empty is the end, and
WANTED asks for more, once the last piece is passed on; OUTPUT and ERRORS are what it writes, of which no more than
CREDIT_BYTES are under way until TAKEN says how many of them are taken; SIZE is rows and columns of its terminal; KILL
ends it. STARTED says that the program is executed, and as which process, FAILED which step failed (-1 the clone, -2
the plan) and its errno, ENDED its exit status (128 + n for signal n). All numbers are little-endian, of 32 bits. The
launcher's header has what follows from here.
"""

START, INPUT, TAKEN, SIZE, KILL, WANTED, OUTPUT, ERRORS, STARTED, FAILED, ENDED = range(1, 12)

HEADER_BYTES = 12
PIECE_BYTES = 4096
CREDIT_BYTES = 1 << 16
PLAN_BYTES = 1 << 17
MOST_COMMANDS = 16
