// Attempts on the network: connections, addresses, packets, interfaces.
#include <arpa/inet.h>
#include <errno.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <net/route.h>
#include <netinet/in.h>
#include <netinet/ip.h>
#include <netinet/ip_icmp.h>
#include <netpacket/packet.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>
#include <linux/vm_sockets.h>

#include "probe.h"

enum { PATIENCE_S = 1, FRAME_BYTES = 2048, PACKET_BYTES = 512, ETHERTYPE_OWN = 0x88b5 /* IEEE 802's for experiments */, DISCARD_PORT = 9 };

static struct sockaddr_in make_address(const char *address, const char *port) {
  struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons((uint16_t)to_number(port)), .sin_addr.s_addr = inet_addr(address)};
  return at;
}

static void be_patient(int socket) {
  struct timeval patience = {.tv_sec = PATIENCE_S};
  (void)setsockopt(socket, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  (void)setsockopt(socket, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
}

static int keep_answer(int socket, const struct sockaddr *at, socklen_t size, char *got) {
  be_patient(socket);
  if (socket < 0 || connect(socket, at, size) != 0) return -1;
  ssize_t length = recv(socket, got, GOT_BYTES - 1, 0);
  if (length >= 0) got[length] = '\0';
  return length < 0 ? -1 : 0;
}

// ADDRESS PORT
static int connect_to(char **words, char *got) {
  struct sockaddr_in at = make_address(words[0], words[1]);
  return keep_answer(socket(AF_INET, SOCK_STREAM, 0), (struct sockaddr *)&at, sizeof at, got);
}

static int connect_abstract(char **words, char *got) {
  struct sockaddr_un at = {.sun_family = AF_UNIX};
  size_t length = strnlen(words[0], sizeof at.sun_path - 2);
  memcpy(at.sun_path + 1, words[0], length);
  return keep_answer(socket(AF_UNIX, SOCK_STREAM, 0), (struct sockaddr *)&at, (socklen_t)(sizeof at.sun_family + 1 + length), got);
}

static _Noreturn void serve(int listener, bool streams, const char *text) {
  bind_to_parent();
  while (true) {
    struct sockaddr_in from;
    socklen_t size = sizeof from;
    char asked[16];
    int client = streams ? accept(listener, NULL, NULL) : -1;
    if (client >= 0) {
      (void)send(client, text, strlen(text), MSG_NOSIGNAL);
      (void)close(client);
    } else if (!streams && recvfrom(listener, asked, sizeof asked, 0, (struct sockaddr *)&from, &size) >= 0)
      (void)sendto(listener, text, strlen(text), 0, (struct sockaddr *)&from, size);
  }
}

// KIND ADDRESS PORT TEXT: have an address and answer there.
static int take_address(char **words, char *got) {
  (void)got;
  bool streams = strcmp(words[0], "tcp") == 0;
  struct sockaddr_in at = make_address(words[1], words[2]);
  int listener = socket(AF_INET, streams ? SOCK_STREAM : SOCK_DGRAM, 0);
  if (listener >= 0) (void)setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &(int){1}, sizeof(int));
  if (listener < 0 || bind(listener, (struct sockaddr *)&at, sizeof at) != 0 || (streams && listen(listener, 4) != 0)) return -1;
  pid_t child = fork();
  if (child == 0) serve(listener, streams, words[3]);
  return child < 0 ? -1 : 0;
}

static uint16_t sum_up(const void *data, size_t size) {
  uint32_t sum = 0;
  const uint8_t *bytes = data;
  for (size_t i = 0; i + 1 < size; i += 2) sum += (uint32_t)bytes[i] << 8 | bytes[i + 1];
  if (size % 2) sum += (uint32_t)bytes[size - 1] << 8;
  while (sum >> 16) sum = (sum & 0xffff) + (sum >> 16);
  return htons((uint16_t)~sum);
}

// ADDRESS TEXT: an echo request that no program of the system made.
static int send_raw(char **words, char *got) {
  (void)got;
  struct sockaddr_in to = make_address(words[0], "0");
  int raw = socket(AF_INET, SOCK_RAW, IPPROTO_ICMP);
  char packet[PACKET_BYTES] = {0};
  struct icmphdr head = {.type = ICMP_ECHO};
  size_t length = strnlen(words[1], sizeof packet - sizeof head);
  memcpy(packet + sizeof head, words[1], length);
  memcpy(packet, &head, sizeof head);
  head.checksum = sum_up(packet, sizeof head + length);
  memcpy(packet, &head, sizeof head);
  return raw < 0 || sendto(raw, packet, sizeof head + length, 0, (struct sockaddr *)&to, sizeof to) < 0 ? -1 : 0;
}

// FROM TO TEXT: a datagram from an address that is not ours.
static int send_forged(char **words, char *got) {
  (void)got;
  struct sockaddr_in to = make_address(words[1], "0");
  int raw = socket(AF_INET, SOCK_RAW, IPPROTO_RAW);
  char packet[PACKET_BYTES] = {0};
  size_t length = strnlen(words[2], PACKET_BYTES - sizeof(struct iphdr) - 8), size = sizeof(struct iphdr) + 8 + length;
  struct iphdr head = {.version = 4,
    .ihl = 5,
    .ttl = 64,
    .protocol = IPPROTO_UDP,
    .saddr = inet_addr(words[0]),
    .daddr = to.sin_addr.s_addr,
    .tot_len = htons((uint16_t)size)};
  uint16_t datagram[4] = {htons(DISCARD_PORT), htons(DISCARD_PORT), htons((uint16_t)(8 + length)), 0};
  memcpy(packet, &head, sizeof head);
  memcpy(packet + sizeof head, datagram, sizeof datagram);
  memcpy(packet + sizeof head + sizeof datagram, words[2], length);
  return raw < 0 || sendto(raw, packet, size, 0, (struct sockaddr *)&to, sizeof to) < 0 ? -1 : 0;
}

// TEXT: a frame to all, from an Ethernet address that is not ours, by each interface: the kernel drops what is sent by one without a carrier,
// such as a bridge without ports, and is late to say that it has none.
static int send_frame(char **words, char *got) {
  (void)got;
  char frame[ETH_ZLEN + PACKET_BYTES] = {0};
  struct ether_header head = {
    .ether_dhost = {255, 255, 255, 255, 255, 255}, .ether_shost = {2, 0, 0, 0, 0, 99}, .ether_type = htons(ETHERTYPE_OWN)};
  size_t length = strnlen(words[0], PACKET_BYTES);
  memcpy(frame, &head, sizeof head);
  memcpy(frame + sizeof head, words[0], length);
  int packets = socket(AF_PACKET, SOCK_RAW, htons(ETH_P_ALL)), result = -1;
  if (packets < 0) return -1;
  struct if_nameindex *all = if_nameindex();
  if (all && !all->if_index) errno = ENODEV;
  for (struct if_nameindex *one = all; one && one->if_index; one++) {
    struct sockaddr_ll to = {.sll_family = AF_PACKET, .sll_ifindex = (int)one->if_index, .sll_halen = ETH_ALEN};
    if (sendto(packets, frame, sizeof head + length, 0, (struct sockaddr *)&to, sizeof to) >= 0) result = 0;
  }
  int error = errno;
  if (all) if_freenameindex(all);
  errno = error;
  return result;
}

// WORD MS: what passes by, on any interface, that has a word in it.
static int sniff(char **words, char *got) {
  int packets = socket(AF_PACKET, SOCK_DGRAM, htons(ETH_P_ALL));
  if (packets < 0) return -1;
  struct timespec at;
  (void)clock_gettime(CLOCK_MONOTONIC, &at);
  int64_t end_ms = (int64_t)at.tv_sec * 1000 + at.tv_nsec / 1000000 + (int64_t)to_number(words[1]), left_ms = 0;
  do {
    struct pollfd waiting = {.fd = packets, .events = POLLIN};
    char frame[FRAME_BYTES];
    (void)clock_gettime(CLOCK_MONOTONIC, &at);
    left_ms = end_ms - ((int64_t)at.tv_sec * 1000 + at.tv_nsec / 1000000);
    if (left_ms > 0 && poll(&waiting, 1, (int)left_ms) > 0) {
      ssize_t size = recv(packets, frame, sizeof frame, 0);
      if (size > 0 && keep_line(got, frame, (size_t)size, words[0]) == 0) return 0;
    }
  } while (left_ms > 0);
  errno = ETIME;
  return -1;
}

// Set what the loopback interface's largest packet is to what it is.
static int set_interface(char **words, char *got) {
  (void)words, (void)got;
  struct ifreq lo = {.ifr_name = "lo"};
  int any = socket(AF_INET, SOCK_DGRAM, 0);
  return any < 0 || ioctl(any, SIOCGIFMTU, &lo) != 0 ? -1 : ioctl(any, SIOCSIFMTU, &lo);
}

// ADDRESS: a route to one address of those that no host has (RFC 5737), over the loopback interface.
static int add_route(char **words, char *got) {
  (void)got;
  struct rtentry route = {.rt_flags = RTF_UP | RTF_HOST, .rt_dev = "lo"};
  struct sockaddr_in to = make_address(words[0], "0");
  memcpy(&route.rt_dst, &to, sizeof to);
  int any = socket(AF_INET, SOCK_DGRAM, 0);
  return any < 0 ? -1 : ioctl(any, SIOCADDRT, &route);
}

// To the hypervisor, without an address of the network.
static int open_vsock(char **words, char *got) {
  (void)words, (void)got;
  return socket(AF_VSOCK, SOCK_STREAM, 0) < 0 ? -1 : 0;
}

const struct operation network_operations[] = {
  {"connect", 2, connect_to},
  {"connect_abstract", 1, connect_abstract},
  {"bind", 4, take_address},
  {"raw", 2, send_raw},
  {"forge", 3, send_forged},
  {"frame", 1, send_frame},
  {"sniff", 2, sniff},
  {"interface", 0, set_interface},
  {"route", 1, add_route},
  {"vsock", 0, open_vsock},
  {NULL, 0, NULL},
};
