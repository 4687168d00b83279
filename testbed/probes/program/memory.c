// Attempts on what processes share by name: System V's and POSIX's objects, and keys.
#include <errno.h>
#include <fcntl.h>
#include <linux/keyctl.h>
#include <mqueue.h>
#include <stdio.h>
#include <string.h>
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "probe.h"

enum { SECRET_BYTES = 64, MESSAGE_BYTES = 128 };

static int read_segment(char **words, char *got) {
  int segment = shmget((key_t)to_number(words[0]), 0, 0);
  const void *at = segment < 0 ? (void *)-1 : shmat(segment, NULL, SHM_RDONLY);
  if (at == (void *)-1) return -1;
  memcpy(got, at, SECRET_BYTES);
  return 0;
}

static int raise_semaphore(char **words, char *got) {
  (void)got;
  int set = semget((key_t)to_number(words[0]), 0, 0);
  struct sembuf one = {.sem_op = 1};
  return set < 0 ? -1 : semop(set, &one, 1);
}

static int take_message(char **words, char *got) {
  struct {
    long kind;
    char text[MESSAGE_BYTES];
  } message = {0};
  int queue = msgget((key_t)to_number(words[0]), 0);
  ssize_t size = queue < 0 ? -1 : msgrcv(queue, &message, sizeof message.text, 0, IPC_NOWAIT);
  if (size < 0) return -1;
  keep(got, message.text, (size_t)size);
  return 0;
}

static int take_posix_message(char **words, char *got) {
  char name[64], text[MESSAGE_BYTES];
  (void)snprintf(name, sizeof name, "/%s", words[0]);
  mqd_t queue = mq_open(name, O_RDONLY | O_NONBLOCK);
  ssize_t size = queue < 0 ? -1 : mq_receive(queue, text, sizeof text, NULL);
  if (size < 0) return -1;
  keep(got, text, (size_t)size);
  return 0;
}

// NAME: the payload of a key in root's own keyring.
static int read_key(char **words, char *got) {
  long key = syscall(SYS_keyctl, KEYCTL_SEARCH, KEY_SPEC_USER_KEYRING, "user", words[0], 0);
  long size = key < 0 ? -1 : syscall(SYS_keyctl, KEYCTL_READ, key, got, GOT_BYTES - 1);
  return size < 0 ? -1 : 0;
}

// NAME TEXT: a key in root's own keyring, which ends by itself.
static int add_key(char **words, char *got) {
  (void)got;
  long key = syscall(SYS_add_key, "user", words[0], words[1], strlen(words[1]), KEY_SPEC_USER_KEYRING);
  return key < 0 ? -1 : (int)syscall(SYS_keyctl, KEYCTL_SET_TIMEOUT, key, 300);
}

const struct operation memory_operations[] = {
  {"segment", 1, read_segment},
  {"semaphore", 1, raise_semaphore},
  {"message", 1, take_message},
  {"posix_message", 1, take_posix_message},
  {"key_read", 1, read_key},
  {"key_add", 2, add_key},
  {NULL, 0, NULL},
};
