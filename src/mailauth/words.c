#include "mailauth/words.h"

#include "log/log.h"
#include "match/match.h"

static const struct result_word *find(const struct result_word *words, struct str item) {
  for (; words->name; words++)
    if (str_ieq_c(item, words->name))
      return words;
  return NULL;
}

static struct str without_mark(struct str item) {
  return item.len > 0 && item.p[0] == '!' ? str_ltrim(str_from(item, 1)) : item;
}

int result_words_check(struct config_reader *r, const char *condition, struct str list, const struct result_word *words) {
  struct list_iter iter;
  struct str item;
  if (str_find_byte(list, '$') >= 0 || str_find_byte(list, '\\') >= 0)
    return 0;
  list_iter_init(&iter, config_reader_arena(r), list);
  while (list_next(&iter, &item)) {
    struct str word = without_mark(item);
    const struct result_word *w = find(words, word);
    if (w == NULL && !str_eq_c(word, "*"))
      return config_error(r, "error in ACL: \"%.*s\" is not a result of \"%s\"", STRF(word), condition);
    if (w != NULL && w->alias_of != NULL)
      config_warning(r, "\"%s\" is a deprecated name for \"%s\"", w->name, w->alias_of);
  }
  return 0;
}

int result_words_match(struct ctx *c, const char *condition, struct str list, int value, const struct result_word *words) {
  struct list_iter iter;
  struct str item;
  list_iter_init(&iter, c->arena, list);
  while (list_next(&iter, &item)) {
    struct str word = without_mark(item);
    bool other = word.len < item.len;
    const struct result_word *w = find(words, word);
    if (str_eq_c(word, "*"))
      return other ? OUTCOME_FAIL : OUTCOME_OK;
    if (w == NULL)
      log_write(LOG_MAIN | LOG_PANIC, c->message, "\"%.*s\" is not a result of \"%s\": it matches nothing",
          STRF(log_printable(c->arena, word)), condition);
    else if ((w->value == value) != other)
      return OUTCOME_OK;
  }
  return OUTCOME_FAIL;
}
