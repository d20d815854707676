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
/* A whole file for free(), with a NUL behind it; "-" is standard input. */
static char *read_file(const char *path, size_t *len) {
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
  *len = size;
  return text;
}
#endif

#if defined(HOSTS_NEED_LINES)
/* The lines of a text, which go on belonging to it; a line may hold NULs. The array is for free(). */
static et_str *cut_lines(const char *text, size_t size, size_t *len) {
  const char *at, *end = text + size;
  size_t count = 1;
  et_str *lines;
  for (at = text; at < end; ++at) count += *at == '\n';
  lines = (et_str *)allocate(count * sizeof(et_str));
  for (*len = 0, at = text; at < end; ++*len) {
    const char *stop = (const char *)memchr(at, '\n', (size_t)(end - at));
    const char *next = stop == NULL ? end : stop + 1;
    if (stop == NULL) stop = end;
    if (stop > at && stop < next && stop[-1] == '\r') --stop;
    lines[*len].ptr = at;
    lines[*len].len = (size_t)(stop - at);
    at = next;
  }
  return lines;
}
#endif

#if defined(HOSTS_NEED_NUMBERS)
/* Nine digits, from which the same single precision number can be read back. All languages write numbers so. */
static void print_number(double value) { printf("%.8e", value); }
#endif

#endif
