/* Executes a program with more arguments before those it is given, and more in its environment: a command line of
 * several words under one path, which is all that an engine takes.
 *
 *     gcc -static -DWORDS='"/usr/bin/env","-i"' -DSETTINGS='"NAME=value"' */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char *const words[] = {WORDS};
static char *const settings[] = {SETTINGS 0};

int main(int count, char **given)
{
	size_t own = sizeof(words) / sizeof(*words);
	char **arguments = calloc(own + (size_t)count, sizeof(*arguments));
	if (!arguments)
		return 127;
	memcpy(arguments, words, sizeof(words));
	memcpy(arguments + own, given + 1, (size_t)count * sizeof(*given));
	for (char *const *each = settings; *each; each++)
		putenv(*each);
	execv(words[0], arguments);
	return 127;
}
