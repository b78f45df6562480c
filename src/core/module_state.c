#include "core/module.h"

#include "core/session.h"
#include "message/message.h"

void *message_module_state(struct message *m, const struct module *mod) {
  size_t n = module_number(mod);
  if (m->module_state == NULL)
    m->module_state = arena_array(m->arena, void *, module_count());
  if (m->module_state[n] == NULL && mod->message_state.size > 0)
    m->module_state[n] = arena_alloc(m->arena, mod->message_state.size);
  return m->module_state[n];
}

void *session_module_state(struct session *s, const struct module *mod) {
  size_t n = module_number(mod);
  if (s->module_state == NULL)
    s->module_state = arena_array(s->arena, void *, module_count());
  if (s->module_state[n] == NULL && mod->session_state.size > 0) {
    s->module_state[n] = arena_alloc(s->arena, mod->session_state.size);
    if (mod->session_state.init != NULL)
      mod->session_state.init(s, s->module_state[n]);
  }
  return s->module_state[n];
}
