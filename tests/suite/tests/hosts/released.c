/* released BUNDLE CONFIG: a handle of every kind that was released, or is of another kind, is an error that says so; a
   second release is a message in the log. Prints the messages of the log. */
#include "easytransfer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void need(et_error *error, const char *what) {
  if (error == NULL) return;
  fprintf(stderr, "%s: %.*s\n", what, (int)et_error_message(error).len, et_error_message(error).ptr);
  exit(1);
}

/* BAD_HANDLE, with the kind that was expected and what was found. */
static void expect(et_error *error, const char *expected, const char *found, int line) {
  char text[512] = "";
  if (error != NULL)
    snprintf(text, sizeof text, "%.*s", (int)et_error_message(error).len, et_error_message(error).ptr);
  if (et_error_code(error) != ET_ERR_BAD_HANDLE || strstr(text, expected) == NULL || strstr(text, found) == NULL) {
    fprintf(stderr, "line %d: expected \"%s\" and \"%s\", found %d: %s\n", line, expected, found,
            (int)et_error_code(error), text);
    exit(1);
  }
  et_error_release(error);
}
#define GONE(call, kind) expect(call, "a live handle of " kind, "one of " kind " that was released", __LINE__)
#define OTHER(call, kind, other) expect(call, "a live handle of " kind, "found one of " other, __LINE__)
#define TRUE(condition)                                                                                                \
  if (!(condition)) {                                                                                                  \
    fprintf(stderr, "line %d: " #condition "\n", __LINE__);                                                            \
    return 1;                                                                                                          \
  }

static void log_line(void *user, int32_t level, et_str target, et_str message) {
  int *lines = (int *)user;
  *lines += 1;
  printf("%d %.*s %.*s\n", (int)level, (int)target.len, target.ptr, (int)message.len, message.ptr);
}

int main(int argc, char **argv) {
  const char *texts[] = {"where is my parcel"};
  et_str request = {"\"hello\"", 7};
  et_runtime *runtime = NULL;
  et_app *app = NULL, *other_app = NULL;
  et_embedder *embedder = NULL;
  et_loss *loss = NULL;
  et_model *model = NULL;
  et_optimizer *optimizer = NULL, *lone = NULL;
  et_predictions *answers = NULL, *none = NULL;
  et_text *text = NULL;
  et_tensor *tensor = NULL;
  float room[1] = {0.0f};
  int lines = 0;
  if (argc != 3) return 1;
  need(et_runtime_new(NULL, &runtime), "runtime");
  need(et_app_load(runtime, argv[1], &app), "app");
  need(et_embedder_load(runtime, argv[1], NULL, &embedder), "embedder");
  need(et_loss_new(runtime, "cross-entropy", NULL, &loss), "loss");
  need(et_model_new(runtime, "bert", argv[2], 1, &model), "model");
  need(et_optimizer_new(runtime, "adamw", NULL, model, &optimizer), "optimizer");
  need(et_app_predict(app, texts, 1, &answers), "predict");
  need(et_app_predict_request(app, request, &text), "request");
  TRUE(et_text_len(text) > 0 && et_text_data(text)[0] == '{');

  /* Of another kind. */
  OTHER(et_app_predict((et_app *)(void *)embedder, texts, 1, &none), "an app", "an embedder");
  OTHER(et_embedder_embed((et_embedder *)(void *)app, texts, 1, room, 1), "an embedder", "an app");
  OTHER(et_app_load((et_runtime *)(void *)answers, argv[1], &other_app), "a runtime", "predictions");
  OTHER(et_model_load_weights((et_model *)(void *)loss, argv[1]), "a model", "a loss");
  OTHER(et_optimizer_step((et_optimizer *)(void *)model, model, 0.1), "an optimizer", "a model");
  OTHER(et_loss_forward((et_loss *)(void *)text, NULL, NULL, &tensor), "a loss", "a text");
  TRUE(et_predictions_len((et_predictions *)(void *)app) == 0);
  TRUE(et_app_labels_len((et_app *)(void *)answers) == 0);

  /* Released. A release of another kind takes nothing. */
  need(et_log_to(log_line, &lines), "log");
  et_app_release((et_app *)(void *)embedder);
  TRUE(lines == 1 && et_embedder_width(embedder) > 0);
  et_optimizer_release(optimizer);
  et_app_release(app);
  et_embedder_release(embedder);
  et_loss_release(loss);
  et_model_release(model);
  et_predictions_release(answers);
  et_text_release(text);
  TRUE(lines == 1);
  GONE(et_app_predict(app, texts, 1, &none), "an app");
  GONE(et_app_predict_request(app, request, &text), "an app");
  GONE(et_embedder_embed(embedder, texts, 1, room, 1), "an embedder");
  GONE(et_model_load_weights(model, argv[1]), "a model");
  GONE(et_optimizer_step(optimizer, model, 0.1), "an optimizer");
  GONE(et_optimizer_new(runtime, "adamw", NULL, model, &lone), "a model");
  TRUE(et_app_labels_len(app) == 0 && et_embedder_width(embedder) == 0 && et_text_data(text) == NULL);
  TRUE(et_predictions_len(answers) == 0 && et_predictions_label(answers, 0) == NULL);
  TRUE(et_model_params(model) == NULL && none == NULL && lone == NULL);
  et_runtime_release(runtime);
  GONE(et_app_load(runtime, argv[1], &other_app), "a runtime");
  TRUE(et_runtime_host(runtime) == NULL && other_app == NULL);
  et_runtime_cancel(runtime);
  et_app_release(app);
  et_runtime_release(runtime);
  et_predictions_release(answers);
  TRUE(lines == 4);
  /* The default again: to standard error. */
  need(et_log_to(NULL, NULL), "log");
  et_app_release(app);
  TRUE(lines == 4 && et_live_handles() == 0);
  return 0;
}
