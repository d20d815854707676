/* Turns the lines of a file into vectors: the width, then the first four values, separated by tabs. */
#define HOSTS_NEED_FILES
#define HOSTS_NEED_LINES
#define HOSTS_NEED_NUMBERS
#include "common.h"

int main(int argc, char **argv) {
  et_runtime *runtime = NULL;
  et_embedder *embedder = NULL;
  char *text;
  et_str *lines;
  float *vectors;
  size_t size, lines_len, width, row, column;
  if (argc < 2 || argc > 3) usage("embed ENCODER [TEXTS]");

  check(et_runtime_new(NULL, &runtime));
  check(et_embedder_load(runtime, argv[1], NULL, &embedder));
  text = read_file(argc > 2 ? argv[2] : "-", &size);
  lines = cut_lines(text, size, &lines_len);

  width = et_embedder_width(embedder);
  vectors = (float *)allocate(lines_len * width * sizeof(float));
  check(et_embedder_embed_texts(embedder, lines, lines_len, vectors, lines_len * width));
  for (row = 0; row < lines_len; ++row) {
    printf("%lu", (unsigned long)width);
    for (column = 0; column < width && column < 4; ++column) {
      printf("\t");
      print_number(vectors[row * width + column]);
    }
    printf("\n");
  }

  free(vectors);
  free(lines);
  free(text);
  et_embedder_release(embedder);
  et_runtime_release(runtime);
  return finish();
}
