/* Answers the lines of a file with a trained bundle. Lines are texts, or with --records JSON objects from role to value
   ({"question": .., "context": ..}). Written are the label and the probability of every class, separated by tabs; with
   --records, and for apps that say no label, the whole answer as JSON. */
#define HOSTS_NEED_FILES
#define HOSTS_NEED_LINES
#define HOSTS_NEED_NUMBERS
#include "common.h"

static void print_answer(const et_predictions *answers, size_t row, int whole) {
  const char *label = et_predictions_label(answers, row);
  size_t class_index;
  if (whole || label == NULL) {
    const et_str answer = et_predictions_answer(answers, row);
    fwrite(answer.ptr, 1, answer.len, stdout);
  } else {
    printf("%s", label);
    for (class_index = 0; class_index < et_predictions_classes_len(answers); ++class_index) {
      printf("\t");
      print_number(et_predictions_probability(answers, row, class_index));
    }
  }
  printf("\n");
}

int main(int argc, char **argv) {
  et_runtime *runtime = NULL;
  et_app *app = NULL;
  et_predictions *answers = NULL;
  int records = argc > 1 && strcmp(argv[1], "--records") == 0;
  char *text;
  et_str *lines;
  size_t size, lines_len, row;
  argc -= records;
  argv += records;
  if (argc < 2 || argc > 3) usage("predict [--records] BUNDLE [TEXTS]");

  check(et_runtime_new(NULL, &runtime));
  check(et_app_load(runtime, argv[1], &app));
  text = read_file(argc > 2 ? argv[2] : "-", &size);
  lines = cut_lines(text, size, &lines_len);

  if (records) check(et_app_predict_records(app, lines, lines_len, &answers));
  else check(et_app_predict_texts(app, lines, lines_len, &answers));
  for (row = 0; row < et_predictions_len(answers); ++row) print_answer(answers, row, records);

  free(lines);
  free(text);
  et_predictions_release(answers);
  et_app_release(app);
  et_runtime_release(runtime);
  return finish();
}
