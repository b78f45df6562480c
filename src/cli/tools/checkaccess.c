/* exim_checkaccess: may this host send to this address? (Exim manual, section "Checking access policy".) A session of -bh. */

#include <string.h>

#include "base/ascii.h"
#include "cli/tools/tools.h"

#define WORDS_MAX 60

/* The reply to each command, of as many lines as it has. */
static struct str next_reply(struct str *text) {
  const char *start = text->p;
  uint32_t all = text->len;
  while (str_is_set(*text) && text->len) {
    struct str line = str_cut(text, '\n');
    if (line.len >= 4 && ascii_is_digit(line.p[0]) && ascii_is_digit(line.p[1]) && ascii_is_digit(line.p[2]) && line.p[3] == '-')
      continue;
    return str_trim(str_n(start, (size_t)(line.p + line.len - start)));
  }
  return str_trim(str_n(start, all));
}

int tool_checkaccess(struct tool *t) {
  const char *words[WORDS_MAX] = {"-bh"}, *sender = "";
  struct str output;
  if (t->argc < 2 || t->argc > WORDS_MAX - 4) {
    fputs("Usage: exim_checkaccess <IP address> <email address> [exim options]\n", stderr);
    return 1;
  }
  words[1] = t->argv[0];
  for (int i = 2; i < t->argc; i++) {
    words[i] = t->argv[i];
    if (!strcmp(t->argv[i], "-f") && i + 1 < t->argc)
      sender = strcmp(t->argv[i + 1], "<>") ? t->argv[i + 1] : "";
    else if (!strncmp(t->argv[i], "-f", 2))
      sender = t->argv[i] + 2;
  }
  if (strpbrk(t->argv[1], "\r\n") || strpbrk(sender, "\r\n"))
    return 1;
  struct str input = str_printf(t->arena, "HELO [%s]\r\nMAIL FROM:<%s>\r\nRCPT TO:<%s>\r\nQUIT\r\n", t->argv[0], sender, t->argv[1]);
  t->quiet = true; /* -bh shows there how it comes to its replies */
  int status = tool_ask(t, words, input, &output);
  if (status < 0)
    return 1;
  /* -bh says some lines of its own first. */
  while (str_is_set(output) && output.len && !(output.len > 3 && ascii_is_digit(output.p[0]) && ascii_is_digit(output.p[2])))
    (void)str_cut(&output, '\n');
  for (int i = 0; i < 4 && str_is_set(output) && output.len; i++) { /* greeting, HELO, MAIL, RCPT */
    struct str reply = next_reply(&output);
    if (!reply.len || reply.p[0] != '2') {
      printf("Rejected:\n%.*s\n", STRF(reply));
      return 1;
    }
    if (i == 3) {
      puts("Accepted");
      return 0;
    }
  }
  fprintf(stderr, "exim_checkaccess: no answer; \"exim -bh %s\" tells why\n", t->argv[0]);
  return 1;
}
