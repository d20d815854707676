/* Answers the lines of a file with a trained bundle: the label, then the probability of every class, separated by tabs. */
#define HOSTS_NEED_FILES
#define HOSTS_NEED_LINES
#define HOSTS_NEED_NUMBERS
#include "common.h"

int main(int argc, char **argv) {
  et_runtime *runtime = NULL;
  et_app *app = NULL;
  et_predictions *answers = NULL;
  char *text, **lines;
  size_t lines_len, row, class_index;
  if (argc < 2 || argc > 3) usage("predict BUNDLE [TEXTS]");

  check(et_runtime_new(NULL, &runtime));
  check(et_app_load(runtime, argv[1], &app));
  text = read_file(argc > 2 ? argv[2] : "-");
  lines = cut_lines(text, &lines_len);

  check(et_app_predict(app, (const char *const *)lines, lines_len, &answers));
  for (row = 0; row < et_predictions_len(answers); ++row) {
    printf("%s", et_predictions_label(answers, row));
    for (class_index = 0; class_index < et_predictions_classes_len(answers); ++class_index) {
      printf("\t");
      print_number(et_predictions_probability(answers, row, class_index));
    }
    printf("\n");
  }

  free(lines);
  free(text);
  et_predictions_release(answers);
  et_app_release(app);
  et_runtime_release(runtime);
  return finish();
}
