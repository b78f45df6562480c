/* RFC 1413: who the client's system says that owns the connection. Asked only
where rfc1413_hosts and rfc1413_query_timeout say so; the answer is foreign
text for logs, no more. */
#include <errno.h>

#include "loop/stream.h"
#include "smtp/server/internal.h"

#define REPLY_MAX 2048
#define IDENT_MAX 128

static int local_port(const struct smtp_session *s) { return s->p->local_port > 0 ? s->p->local_port : 25; }

/* "port , port : USERID : system : name" */
static struct str name_in(struct smtp_session *s, struct str line) {
  struct str rest = line, ports = str_cut(&rest, ':'), word = str_is_set(rest) ? str_trim(str_cut(&rest, ':')) : STR_EMPTY;
  uint64_t theirs, ours;
  struct str second = ports, first = str_cut(&second, ',');
  if (!str_is_set(second) || !str_to_u64(str_trim(first), &theirs) || !str_to_u64(str_trim(second), &ours) ||
      (int)theirs != s->p->peer_port || (int)ours != local_port(s))
    return STR_UNSET;
  if (!str_ieq_c(word, "USERID") || !str_is_set(rest))
    return STR_UNSET;
  str_cut(&rest, ':');
  if (!str_is_set(rest))
    return STR_UNSET;
  struct str name = str_slice(str_ltrim(rest), 0, IDENT_MAX - 1);
  return log_printable(s->arena, name);
}

void smtp_ident(struct smtp_session *s) {
  struct sockaddr_storage to, from;
  struct stream *ident = NULL;
  int64_t timeout = s->o->rfc1413_query_timeout;
  if (timeout <= 0 || (s->p->kind != SESSION_SMTP && s->p->kind != SESSION_TEST) || s->p->peer_port <= 0 || !smtp_match_host(s, &s->o->rfc1413_hosts))
    return;
  usec_t deadline = deadline_in(timeout);
  socklen_t to_len = ip_to_sockaddr(&s->p->peer, (int)s->o->rfc1413_port, &to);
  socklen_t from_len = s->p->local.family ? ip_to_sockaddr(&s->p->local, 0, &from) : 0;
  if (stream_connect((struct sockaddr *)&to, to_len, from_len ? (struct sockaddr *)&from : NULL, from_len, deadline, &ident) < 0)
    return;
  struct str line;
  int eol;
  stream_set_write_timeout(ident, (int)timeout);
  stream_printf(ident, "%d , %d\r\n", s->p->peer_port, local_port(s));
  if (stream_flush(ident) == 0) {
    int rc = stream_read_line(ident, REPLY_MAX, deadline, &line, &eol);
    if (rc == 1 && eol != 0) { /* the end of the connection ends no line */
      struct str name = name_in(s, line);
      if (str_is_set(name) && name.len > 0) {
        s->c->client->ident = str_dup(s->arena, name);
        s->c->client->ident.taint = STR_TAINTED;
        client_set_fullhost(s->arena, s->c->client);
      }
    } else if (rc == -ETIMEDOUT && log_selected(LOGSEL_ident_timeout)) {
      acl_log(s->c, LOG_MAIN, "ident connection to %.*s timed out", STRF(s->c->client->host_address));
    }
  }
  stream_free(ident);
}
