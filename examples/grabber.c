/* A frame grabber, written from docs/wire-protocol.md alone. Needs libzmq (Debian: libzmq3-dev).
   gcc -O2 grabber.c -o grabber -lzmq && ./grabber [frames 300] [size 1024] [endpoint tcp://127.0.0.1:5550] */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <zmq.h>

static uint8_t *text(uint8_t *to, const char *s) { /* MessagePack: a str of up to 31 bytes */
  *to = 0xa0 | strlen(s);
  memcpy(to + 1, s, strlen(s));
  return to + 1 + strlen(s);
}
static uint8_t *number(uint8_t *to, const char *key, uint64_t value) { /* a key and a uint of 64 bits, big-endian */
  to = text(to, key);
  *to++ = 0xcf;
  for (int shift = 56; shift >= 0; shift -= 8) *to++ = value >> shift;
  return to;
}
int main(int count, char **given) {
  int frames = count > 1 ? atoi(given[1]) : 300, size = count > 2 ? atoi(given[2]) : 1024, buffer = 4 << 20, held = 8;
  const char *endpoint = count > 3 ? given[3] : "tcp://127.0.0.1:5550";
  void *context = zmq_ctx_new(), *socket = zmq_socket(context, ZMQ_PUB);
  zmq_setsockopt(socket, ZMQ_SNDBUF, &buffer, sizeof buffer); /* room for a frame, so that it is sent at once */
  zmq_setsockopt(socket, ZMQ_SNDHWM, &held, sizeof held);     /* frames for a subscriber that is slow */
  if (zmq_bind(socket, endpoint)) return fprintf(stderr, "%s: %s\n", endpoint, zmq_strerror(zmq_errno())), 1;
  uint16_t *image = malloc(2 * (size_t)size * size);
  struct timespec now, period = {0, 33333333}, second = {1, 0};
  nanosleep(&second, NULL); /* subscribers connect in the background */
  for (int seq = 0; seq < frames; seq++) {
    for (int k = 0; k < size * size; k++) /* put your frame grabber's picture here, low byte first */
      image[k] = 2000 + 48000 * ((k % size + 8 * seq) % size) / size;
    clock_gettime(CLOCK_REALTIME, &now); /* put the middle of the exposure here */
    uint8_t header[256] = {0x88}, *end = text(text(header + 1, "source"), "carm0"); /* a map of eight keys */
    end = number(number(end, "v", 1), "seq", seq);
    end = number(end, "t_acq", 1000000000ull * now.tv_sec + now.tv_nsec);
    end = number(number(end, "rows", size), "cols", size);
    end = number(text(text(end, "dtype"), "u2"), "bits", 16);
    zmq_send(socket, "frame/carm0", 11, ZMQ_SNDMORE);
    zmq_send(socket, header, end - header, ZMQ_SNDMORE);
    zmq_send(socket, image, 2 * (size_t)size * size, 0);
    nanosleep(&period, NULL);
  }
  zmq_close(socket);
  return zmq_ctx_term(context);
}
