/* Message ids: time, process and fraction in base 62, "16VDhn-000000001bo-D342". */
#include <sys/time.h>
#include <unistd.h>
#include "base/ascii.h"
#include "message/message.h"

static const char digits[] = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

static void base62(char *to, int n, uint64_t value) {
  while (n-- > 0) {
    to[n] = digits[value % 62];
    value /= 62;
  }
}

static bool (*id_filter)(const char *id, void *arg);
static void *id_filter_arg;

void message_id_set_filter(bool (*accept)(const char *id, void *arg), void *arg) {
  id_filter = accept;
  id_filter_arg = arg;
}

static void write_id(char *id, int64_t tick, int64_t ticks, int localhost_number) {
  uint64_t fraction = (uint64_t)(tick % ticks);
  if (localhost_number >= 0)
    fraction += (uint64_t)localhost_number * 500000;
  base62(id, 6, (uint64_t)(tick / ticks));
  id[6] = '-';
  base62(id + 7, 11, (uint64_t)getpid());
  id[18] = '-';
  base62(id + 19, 4, fraction);
  id[23] = '\0';
}

void message_make_id(struct message *m, int localhost_number) {
  /* The tick of the last id made here: one tick is one id, also when the clock steps back. */
  static int64_t last;
  int64_t unit = localhost_number < 0 ? 1 : 2, ticks = 1000000 / unit;
  struct timeval now = m->received_time;
  if (now.tv_sec == 0)
    gettimeofday(&now, NULL);
  int64_t tick = now.tv_sec * ticks + now.tv_usec / unit;
  if (tick <= last)
    tick = last + 1;
  /* A filter takes one of every few: the id stays within microseconds of the truth. */
  for (write_id(m->id, tick, ticks, localhost_number); id_filter && !id_filter(m->id, id_filter_arg);)
    write_id(m->id, ++tick, ticks, localhost_number);
  last = tick;
  if (m->received_time.tv_sec == 0)
    m->received_time = (struct timeval){tick / ticks, tick % ticks * unit};
}

bool message_id_valid(struct str s) {
  if (s.len != MESSAGE_ID_LEN && s.len != MESSAGE_ID_LEN_OLD)
    return false;
  uint32_t second = s.len == MESSAGE_ID_LEN ? 18 : 13;
  for (uint32_t i = 0; i < s.len; i++)
    if (i == 6 || i == second ? s.p[i] != '-' : !ascii_is_alnum(s.p[i]))
      return false;
  return true;
}

int64_t message_id_time(struct str id) {
  int64_t t = 0;
  for (uint32_t i = 0; i < 6 && i < id.len; i++) {
    const char *d = memchr(digits, id.p[i], 62);
    t = t * 62 + (d ? d - digits : 0);
  }
  return t;
}
