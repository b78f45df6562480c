/* For fuzz targets: SMTP sessions over a socket pair, against a configuration that lets every verb do something. */
#pragma once

#include "base/buf.h"
#include "smtp/server/server.h"

#define FUZZ_PEER "10.0.0.1"
#define FUZZ_PEER_PROXY "10.0.0.9"   /* must send a PROXY header */
#define FUZZ_PEER_XCLIENT "10.0.0.8" /* may send XCLIENT */

struct fuzz_session {
  struct arena *arena;
  struct str script;   /* what the client sends, whatever it is answered */
  size_t piece;        /* bytes at a time */
  bool keep;           /* the messages taken go into `kept`: header (without our Received:), empty line, body */
  /* What came of it: */
  size_t accepted;
  struct str output;
  struct buf kept;
  /* Inside. */
  struct smtp_params params;
  int fd, client_fd;
};

void fuzz_check(bool ok); /* else the target ends with a finding */
/* One session to its end. Each line that comes back is checked to be a reply, messages to be answered by "250 OK id=". */
void fuzz_session_run(struct fuzz_session *f, enum session_kind kind, const char *peer);
void fuzz_session_check_replies(const struct fuzz_session *f);
