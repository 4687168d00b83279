/* One request on a route netlink socket, and its answer. */
#include <sys/socket.h>
#include <linux/netlink.h>

#include "steps.h"
#include "sys.h"

int perform_netlink_socket(const struct step *s) {
  return move_fd((int)SYS(socket, AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE), (int)s->netlink_socket.fd);
}

int perform_netlink(const struct step *s) {
  int fd = (int)s->netlink.fd;
  char answer[1024];
  long n = SYS(sendto, fd, s->netlink.message, s->netlink.message_size, 0, 0, 0);
  if (n < 0) return (int)n;
  n = SYS(recvfrom, fd, answer, sizeof answer, 0, 0, 0);
  if (n < 0) return (int)n;
  struct nlmsghdr header;
  int32_t error;
  if ((size_t)n < sizeof header + sizeof error) return -EPROTO;
  memcpy(&header, answer, sizeof header);
  memcpy(&error, answer + NLMSG_HDRLEN, sizeof error);
  return header.nlmsg_type == NLMSG_ERROR ? error : -EPROTO;
}
