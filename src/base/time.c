#include "base/time.h"

#include <stdio.h>
#include <sys/time.h>

#include "base/arena.h"
#include "base/buf.h"

static const struct {
  char letter;
  int64_t seconds;
} units[] = {{'w', 604800}, {'d', 86400}, {'h', 3600}, {'m', 60}, {'s', 1}};

int64_t time_parse_interval(struct str s) {
  int64_t total = 0;
  size_t i = 0, unit = 0;
  if (!s.len)
    return -1;
  while (i < s.len) {
    uint64_t n = 0;
    size_t start = i;
    for (; i < s.len && s.p[i] >= '0' && s.p[i] <= '9'; i++)
      if (__builtin_mul_overflow(n, 10, &n) || __builtin_add_overflow(n, (uint64_t)(s.p[i] - '0'), &n))
        return -1;
    if (i == start || i == s.len || n > INT32_MAX)
      return -1;
    while (unit < 5 && units[unit].letter != s.p[i])
      unit++;
    if (unit == 5)
      return -1;
    total += (int64_t)n * units[unit++].seconds;
    i++;
  }
  return total;
}

struct str time_format_interval(struct arena *a, int64_t seconds) {
  struct buf b;
  buf_init(&b, a, 128);
  if (seconds < 0) {
    buf_add_byte(&b, '-');
    seconds = -seconds;
  }
  if (!seconds)
    return STR("0s");
  for (size_t i = 0; i < 5; i++)
    if (seconds >= units[i].seconds) {
      buf_printf(&b, "%lld%c", (long long)(seconds / units[i].seconds), units[i].letter);
      seconds %= units[i].seconds;
    }
  return buf_str(&b);
}

struct str time_format_duration(struct arena *a, int64_t usec, bool millis) {
  if (usec < 0)
    usec = 0;
  int64_t s = usec / 1000000;
  if (!millis)
    return time_format_interval(a, s);
  if (s < 60)
    return str_printf(a, "%lld.%03llds", (long long)s, (long long)(usec % 1000000 / 1000));
  return time_format_interval(a, s);
}

static const char days[][4] = {"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};
static const char months[][4] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};

static int zone_minutes(const struct tm *tm) { return (int)(tm->tm_gmtoff / 60); }

struct str time_rfc2822(struct arena *a, time_t t) {
  struct tm tm;
  localtime_r(&t, &tm);
  int z = zone_minutes(&tm), p = z < 0 ? -z : z;
  return str_printf(a, "%s, %02d %s %d %02d:%02d:%02d %c%02d%02d", days[tm.tm_wday], tm.tm_mday, months[tm.tm_mon],
      tm.tm_year + 1900, tm.tm_hour, tm.tm_min, tm.tm_sec, z < 0 ? '-' : '+', p / 60, p % 60);
}

struct str time_bsd_inbox(struct arena *a, time_t t) {
  struct tm tm;
  localtime_r(&t, &tm);
  return str_printf(a, "%s %s %02d %02d:%02d:%02d %d", days[tm.tm_wday], months[tm.tm_mon], tm.tm_mday, tm.tm_hour, tm.tm_min,
      tm.tm_sec, tm.tm_year + 1900);
}

size_t time_log_stamp(char *to, int64_t usec, bool millis, bool zone, bool utc) {
  static struct {
    time_t second;
    bool utc, set;
    char text[24];
    size_t len;
    int zone;
  } last;
  time_t t = (time_t)(usec / 1000000);
  if (!last.set || last.second != t || last.utc != utc) {
    struct tm tm;
    if (utc)
      gmtime_r(&t, &tm);
    else
      localtime_r(&t, &tm);
    last.len = strftime(last.text, sizeof last.text, "%Y-%m-%d %H:%M:%S", &tm);
    last.zone = utc ? 0 : zone_minutes(&tm);
    last.second = t;
    last.utc = utc;
    last.set = true;
  }
  memcpy(to, last.text, last.len);
  size_t n = last.len;
  if (millis)
    n += (size_t)snprintf(to + n, 40 - n, ".%03d", (int)(usec % 1000000 / 1000));
  if (zone) {
    int p = last.zone < 0 ? -last.zone : last.zone;
    n += (size_t)snprintf(to + n, 40 - n, " %c%02d%02d", last.zone < 0 ? '-' : '+', p / 60, p % 60);
  }
  to[n] = 0;
  return n;
}

int64_t time_now_usec(void) {
  struct timeval tv;
  gettimeofday(&tv, NULL);
  return (int64_t)tv.tv_sec * 1000000 + tv.tv_usec;
}
