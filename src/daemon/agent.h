/* The agent: the only root process that handles mail (DESIGN §4). Workers send
it local delivery plans; it checks each against its own copy of the
configuration and hands it to a process that has become the plan's user.

Wire: SOCK_SEQPACKET datagrams, `struct agent_head` and the encoded plan (or
result); one that is too long for a datagram travels in a memfd, sealed. File
descriptors come along as SCM_RIGHTS: the memfd first, then the body. */
#pragma once

#include "config/config.h"
#include "transport/plan.h"

struct agent_head {
  uint32_t number;   /* of the request, the worker's choice */
  uint32_t in_memfd; /* 1: the text is in the first descriptor */
  uint32_t has_body;
};

#define AGENT_INLINE_MAX (48u << 10)
#define AGENT_TEXT_MAX (80u << 20)

/* The agent's process: serves the channels of n workers, and takes new ones from `control` (one descriptor a datagram)
until that closes. Never returns. */
_Noreturn void agent_run(struct config *c, int control);

/* Sends head, text and body over a channel. 0 or -errno (-EAGAIN: full). */
int agent_send(int channel, uint32_t number, struct str text, int body_fd);
/* Receives one datagram; strings are in `a`. 1, 0 at end of file, or -errno. *ret_body is -1 or a descriptor of ours. */
int agent_receive(int channel, struct arena *a, uint32_t *ret_number, struct str *ret_text, int *ret_body);

/* The worker's side: plans run through the agent. [suspends] */
void agent_client_start(int channel);
/* Does a fiber wait for answers? It does until it is told to stop, or the agent is gone. */
bool agent_client_listens(void);
void agent_client_stop(void);
extern const struct plan_runner plan_runner_agent;
