/* Any text as an ACL: as lines of the configuration, and as text that is known at run time only. What was understood is run
where a recipient and where a message is judged, unless it would touch the machine or wait. */
#include <ctype.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "acl/acl.h"
#include "acl/internal.h"
#include "config/config.h"
#include "core/session.h"
#include "expand/expand.h"
#include "log/log.h"
#include "match/match.h"
#include "message/message.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char root[64];

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw) { return remove(path); }
static void clean_up(void) { nftw(root, remove_one, 16, FTW_DEPTH | FTW_PHYS); }

static bool has_word(struct str text, const char *word) {
  size_t n = strlen(word);
  for (uint32_t i = 0; i + n <= text.len; i++)
    if (str_ieq(str_slice(text, i, i + n), str_n(word, n)))
      return true;
  return false;
}

/* Nothing that asks others, opens files or sleeps. */
static bool harmless(struct str text) {
  static const char *const outside[] = {"delay", "lookup", "run", "read", "dns", "ratelimit", "seen", "verify", "logwrite", "stat", "exists",
      "host", "net-", ";", "/", "udpsend", "continue", "crypteq", "encrypted", "authenticated"};
  for (size_t i = 0; i < sizeof outside / sizeof *outside; i++)
    if (has_word(text, outside[i]))
      return false;
  return true;
}

/* One line of the configuration each; no directives, which are its reader's own matter. */
static bool fits_section(struct str text) {
  bool start = true;
  for (uint32_t i = 0; i < text.len; i++) {
    if (text.p[i] == '\0' || (start && (text.p[i] == '.' || isupper((unsigned char)text.p[i]))))
      return false;
    start = text.p[i] == '\n' || (start && (text.p[i] == ' ' || text.p[i] == '\t'));
  }
  return !has_word(text, "begin");
}

static void run_it(struct config *config, struct str name) {
  struct arena *a = arena_new("fuzz run");
  struct session session = {.arena = a, .kind = SESSION_TEST};
  struct acl_recipient recipient = {.address = str_tainted(STR("u@dom.test")), .local_part = STR("u"), .local_part_lower = STR("u"),
      .domain = STR("dom.test")};
  struct ctx *c = ctx_new(a, config);
  c->client = &session.client;
  c->session = &session;
  c->is_test = true;
  c->message = message_new("fuzz");
  c->message->reverse_path = str_tainted(STR("a@b.test"));
  message_add_recipient(c->message, str_tainted(STR("u@dom.test")));
  message_add_header(c->message, 'T', str_tainted(STR("To: a@b, c@d\n")));
  acl_session(c)->recipient = &recipient;
  (void)acl_run(c, ACL_RCPT, name, NULL, 0, 0);
  acl_session(c)->recipient = NULL;
  (void)acl_run(c, ACL_DATA, name, NULL, 0, 0);
  if (c->acl != NULL || c->depth != 0)
    abort(); /* left on the way */
  message_free(c->message);
  arena_free(a);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  if (!root[0]) {
    snprintf(root, sizeof root, "/tmp/acl_fuzz.XXXXXX");
    if (!mkdtemp(root))
      abort();
    atexit(clean_up);
  }
  if (size > 4096)
    return 0;
  struct arena *a = arena_new("fuzz");
  struct str text = str_n((const char *)data, size), errors = STR_EMPTY;
  struct acl *acl;
  (void)acl_parse(a, text, STR("fuzz"), &acl, &errors);
  if (fits_section(text)) {
    struct config *config;
    struct config_source s = {.paths = STR("fuzz"), .no_files = true};
    s.text = str_printf(a, "primary_hostname = me.test\nspool_directory = %s\nlog_file_path = %s/%%slog\nbegin acl\none:\n%.*s\n", root, root,
        STRF(text));
    if (config_read(&s, a, &config, &errors) == 0) {
      expand_compile_config(config);
      match_compile_config(config);
      log_init(config);
      if (harmless(text))
        run_it(config, STR("one"));
      log_done();
    }
  }
  arena_free(a);
  return 0;
}
