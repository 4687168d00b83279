/* What a RUN tries to reach: each line of output is an attempt and what came of it. Arguments: ports of the host's loopback. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

static void said(const char *what, long result) { printf("%s %s\n", what, result < 0 ? strerrorname_np(errno) : "ok"); }

static long tcp(const char *host, int port) {
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((unsigned short)port)};
  struct timeval limit = {.tv_sec = 3};
  inet_pton(AF_INET, host, &address.sin_addr);
  int fd = socket(AF_INET, SOCK_STREAM, 0);
  setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
  return connect(fd, (struct sockaddr *)&address, sizeof address);
}

static long abstract(const char *name) {
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  strcpy(address.sun_path + 1, name);
  return connect(socket(AF_UNIX, SOCK_STREAM, 0), (struct sockaddr *)&address, (socklen_t)(sizeof address.sun_family + 1 + strlen(name)));
}

int main(int argc, char **argv) {
  const char *hosts[] = {"127.0.0.1", "10.0.2.2", "10.0.2.3"};
  for (int i = 2; i < argc; i++)
    for (int j = 0; j < 3; j++) said(hosts[j], tcp(hosts[j], atoi(argv[i])));
  said("abstract", abstract(argv[1]));
  said("packet", socket(AF_PACKET, SOCK_RAW, 0));
  said("raw", socket(AF_INET, SOCK_RAW, 1));
  said("keyctl", syscall(SYS_keyctl, 0 /* KEYCTL_GET_KEYRING_ID */, -3 /* KEY_SPEC_SESSION_KEYRING */, 0));
  said("add_key", syscall(SYS_add_key, "user", "k", "v", 1, -3));
  said("unshare", unshare(0x10000000 /* CLONE_NEWUSER */));
  said("mount", syscall(SYS_mount, "none", "/tmp", "tmpfs", 0, 0));
  return 0;
}
