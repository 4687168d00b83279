// Attempts to get past a wall, each in a process of its own: testbed/probes says what for, and the host judges what came of it.
//
// No attempt touches anything but what its words name, and what it makes in its own directory; none needs a library, a shell or a file.
#ifndef PROBE_H
#define PROBE_H

#include <stddef.h>
#include <stdint.h>

enum { GOT_BYTES = 192, MOST_WORDS = 8, OWN_PLACES = 2 };

// What an attempt is called with: `words` ends with NULL, `got` takes what it got (text, GOT_BYTES with its end).
struct operation {
  const char *name;
  int words;
  int (*attempt)(char **words, char *got); // 0, or -1 with errno
};

extern const struct operation file_operations[], process_operations[], memory_operations[], network_operations[], kernel_operations[],
  mount_operations[], resource_operations[];

// Where something may be written, the first that lets one: a sandbox keeps its root as it is.
extern const char *const own_places[OWN_PLACES];

// The directory of this attempt, which is removed when its result is known; -1 with errno where none can be made.
int enter_own_directory(void);

// Keep what `size` bytes at `data` begin with as what was got.
void keep(char *got, const void *data, size_t size);

// Keep the line of a text (ended by a newline or NUL) that has `word` in it; -1 with ENOMSG where none has.
int keep_line(char *got, const char *text, size_t size, const char *word);

uint64_t to_number(const char *word);

// Do nothing until the runner ends this process, under the name that the host knows it by.
_Noreturn void stay(const char *name);

// End with the process that started this one, whatever credentials it has had since, and after its time. It is nothing for an instance's first
// process, which a container runtime may have started that has ended since.
void bind_to_parent(void);

#endif
