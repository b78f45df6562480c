/* main() for a fuzz target in builds without libFuzzer: runs the files of the directories that are named, and some inputs
that every reader of foreign bytes should bear, so that what a fuzzer once found stays found in `make check`. */
#include <dirent.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerInitialize(int *argc, char ***argv) __attribute__((weak));

#define INPUT_MAX (1u << 20)

static bool run_file(const char *path, uint8_t *space) {
  FILE *f = fopen(path, "rbe");
  if (!f) {
    perror(path);
    return false;
  }
  size_t n = fread(space, 1, INPUT_MAX, f);
  fclose(f);
  printf("%s: %zu bytes\n", path, n);
  fflush(stdout);
  /* In memory of its own size, for the sanitizer to see reads beyond it. */
  uint8_t *exact = xmalloc(n + !n);
  memcpy(exact, space, n);
  (void)LLVMFuzzerTestOneInput(exact, n);
  free(exact);
  return true;
}

static int run_directory(const char *name, uint8_t *space) {
  struct dirent **v;
  int ran = 0, n = scandir(name, &v, NULL, alphasort);
  for (int i = 0; i < n; i++) {
    char path[4096];
    bool ok = v[i]->d_name[0] == '.' ||
              ((size_t)snprintf(path, sizeof path, "%s/%s", name, v[i]->d_name) < sizeof path && run_file(path, space));
    ran = ok ? ran + (v[i]->d_name[0] != '.') : -INPUT_MAX;
    free(v[i]);
  }
  if (n >= 0)
    free(v);
  return n < 0 ? -1 : ran;
}

static void run_filled(uint8_t *space, int byte, size_t n) {
  memset(space, byte, n);
  (void)LLVMFuzzerTestOneInput(space, n);
}

int main(int argc, char **argv) {
  static const int bytes[] = {0, 'a', '(', '{', '"', '\\', '\n', 0xff};
  uint8_t *space = xmalloc(INPUT_MAX);
  if (LLVMFuzzerInitialize)
    (void)LLVMFuzzerInitialize(&argc, &argv);
  (void)LLVMFuzzerTestOneInput(space, 0);
  for (size_t i = 0; i < sizeof bytes / sizeof *bytes; i++)
    for (size_t n = 1; n <= 4096; n *= 64)
      run_filled(space, bytes[i], n);
  int status = 0;
  for (int i = 1; i < argc; i++)
    if (run_directory(argv[i], space) <= 0) {
      fprintf(stderr, "%s: nothing to run\n", argv[i]);
      status = 1;
    }
  free(space);
  return status;
}
