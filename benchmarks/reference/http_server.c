/* The least that answers HTTP/1.1: one thread, one epoll loop, the same small answer to every request, whatever it asks. It is what a
   load generator is measured against: it takes a few microseconds a request. Prints its port, and serves until it is killed. */
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#define MOST_CONNECTIONS 4096

static const char answer[] =
  "HTTP/1.1 200 OK\r\nServer: reference\r\nContent-Type: text/plain\r\nContent-Length: 14\r\n\r\n<p>clicks: 7\r\n";
/* How much of the empty line that ends a request has come. */
static unsigned char matched[MOST_CONNECTIONS];

static void serve(int fd) {
  static const char end[] = "\r\n\r\n";
  char data[4096];
  ssize_t size = recv(fd, data, sizeof data, 0);
  if (size <= 0) {
    (void)close(fd);
    return;
  }
  for (ssize_t i = 0; i < size; i++) {
    matched[fd] = data[i] == end[matched[fd]] ? matched[fd] + 1 : data[i] == '\r';
    if (matched[fd] < 4) continue;
    matched[fd] = 0;
    (void)send(fd, answer, sizeof answer - 1, MSG_NOSIGNAL);
  }
}

int main(void) {
  (void)prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
  int listener = socket(AF_INET, SOCK_STREAM, 0), epoll = epoll_create1(0), on = 1;
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t size = sizeof address;
  if (listener < 0 || epoll < 0 || bind(listener, (struct sockaddr *)&address, size) != 0 || listen(listener, 1024) != 0) return 1;
  if (getsockname(listener, (struct sockaddr *)&address, &size) != 0) return 1;
  (void)printf("%d\n", ntohs(address.sin_port));
  (void)fflush(stdout);
  struct epoll_event event = {.events = EPOLLIN, .data.fd = listener}, events[256];
  if (epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &event) != 0) return 1;
  for (;;) {
    int n = epoll_wait(epoll, events, 256, -1);
    for (int i = 0; i < n; i++) {
      if (events[i].data.fd != listener) {
        serve(events[i].data.fd);
        continue;
      }
      int fd = accept(listener, NULL, NULL);
      if (fd >= MOST_CONNECTIONS) {
        (void)close(fd);
        continue;
      }
      if (fd < 0) continue;
      (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
      matched[fd] = 0;
      event = (struct epoll_event){.events = EPOLLIN, .data.fd = fd};
      if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) != 0) (void)close(fd);
    }
  }
}
