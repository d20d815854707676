/* What the four programs share: how errors end a program, how texts are read and how numbers are written. A program names what it
 * needs in HOSTS_NEED_ macros, because unused static functions are warned about. */
#ifndef HOSTS_COMMON_H
#define HOSTS_COMMON_H

#include "easytransfer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Ends with code 2 when bad input is the cause, else with 1. */
static void check(et_error *error) {
  int32_t code;
  et_str message;
  if (error == NULL) return;
  code = et_error_code(error);
  message = et_error_message(error);
  fprintf(stderr, "error: %.*s\n", (int)message.len, message.ptr);
  et_error_release(error);
  exit(code == ET_ERR_BAD_INPUT || code == ET_ERR_NOT_FOUND || code == ET_ERR_INVALID_ARGUMENT ? 2 : 1);
}

static void usage(const char *text) {
  fprintf(stderr, "usage: %s\n", text);
  exit(2);
}

/* The end of a program that gave everything back; what is left is a mistake of the program. */
static int finish(void) {
  if (et_live_handles() == 0) return 0;
  fprintf(stderr, "error: %lld handles were not given back\n", (long long)et_live_handles());
  return 1;
}

static void *allocate(size_t size) {
  void *memory = malloc(size > 0 ? size : 1);
  if (memory == NULL) {
    fprintf(stderr, "error: no memory is left\n");
    exit(1);
  }
  return memory;
}

#if defined(HOSTS_NEED_FILES)
/* A whole file, NUL-terminated, for free(); "-" is standard input. */
static char *read_file(const char *path) {
  FILE *file = strcmp(path, "-") == 0 ? stdin : fopen(path, "rb");
  size_t size = 0, room = 65536, got;
  char *text;
  if (file == NULL) {
    fprintf(stderr, "error: read `%s`: expected a file that can be read\n", path);
    exit(2);
  }
  text = (char *)allocate(room);
  while ((got = fread(text + size, 1, room - size - 1, file)) > 0) {
    size += got;
    if (room - size < 2) {
      char *larger = (char *)allocate(room * 2);
      memcpy(larger, text, size);
      free(text);
      text = larger;
      room *= 2;
    }
  }
  text[size] = '\0';
  if (file != stdin) fclose(file);
  return text;
}
#endif

#if defined(HOSTS_NEED_LINES)
/* Cuts a text into lines where it lies; the array is for free(). */
static char **cut_lines(char *text, size_t *len) {
  size_t count = 0;
  char *at, **lines;
  for (at = text; *at != '\0'; ++at) count += *at == '\n';
  lines = (char **)allocate((count + 1) * sizeof(char *));
  for (*len = 0, at = text; *at != '\0'; ++*len) {
    char *end = strchr(at, '\n');
    lines[*len] = at;
    if (end == NULL) end = at + strlen(at);
    at = *end == '\0' ? end : end + 1;
    if (end > lines[*len] && end[-1] == '\r') --end;
    *end = '\0';
  }
  return lines;
}
#endif

#if defined(HOSTS_NEED_NUMBERS)
/* Nine digits, from which the same single precision number can be read back. All languages write numbers so. */
static void print_number(double value) { printf("%.8e", value); }
#endif

#endif
