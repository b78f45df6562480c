/* -bp and its kin, and what administrators do to messages: -M… (Exim manual,
chapter "The Exim command line"). All print Exim's words; all [suspend]. */
#pragma once

#include <stdio.h>
#include "core/ctx.h"

struct queue_list {
  struct str queue_name;
  bool undelivered_only;   /* -bpu */
  bool with_generated;     /* -bpa: addresses made by redirection, too */
  bool ids_only;           /* -bpi */
  const struct str *ids;   /* only these; n 0: all */
  size_t n;
  bool own_only;           /* only messages of user `uid`: queue_list_requires_admin and no admin */
  uint32_t uid;
};
/* 0 or -errno. */
int queue_list(struct ctx *c, const struct queue_list *l, FILE *out);
/* -bpc */
int queue_list_count(struct ctx *c, struct str queue_name, FILE *out);

enum queue_action {
  QUEUE_FREEZE,         /* -Mf */
  QUEUE_THAW,           /* -Mt */
  QUEUE_REMOVE,         /* -Mrm */
  QUEUE_MARK_ALL,       /* -Mmad */
  QUEUE_MARK,           /* -Mmd, with addresses */
  QUEUE_ADD_RECIPIENT,  /* -Mar, with addresses */
  QUEUE_EDIT_SENDER,    /* -Mes, with one address */
  QUEUE_MOVE,           /* -MG */
  QUEUE_SHOW_BODY,      /* -Mvb */
  QUEUE_SHOW_HEADER,    /* -Mvh */
  QUEUE_SHOW_LOG,       /* -Mvl */
  QUEUE_SHOW_COPY,      /* -Mvc */
};
struct queue_manage {
  enum queue_action action;
  struct str queue_name;
  struct str to_queue;            /* QUEUE_MOVE */
  const struct str *addresses;
  size_t n;
  const char *login;              /* who does it, for the log */
  uint32_t uid;
  bool admin;                     /* else only removing what one sent oneself is allowed */
};
/* Does it to one message. False: it could not be done (said on `out`). */
bool queue_manage(struct ctx *c, struct str id, const struct queue_manage *q, FILE *out);
/* A message that is passed over because another process works on it (log selector skip_delivery). */
void queue_log_locked(struct str id);
