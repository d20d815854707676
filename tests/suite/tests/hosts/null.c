/* NULL where it may not be is an error with a message, never a crash; release functions accept it. */
#include "easytransfer.h"

#include <stdio.h>
#include <stdlib.h>

static void expect(et_error *error, int32_t code, int line) {
  if (error == NULL || et_error_code(error) != code || et_error_message(error).len == 0) {
    fprintf(stderr, "line %d: expected error %d, found %d: %.*s\n", line, (int)code, (int)et_error_code(error),
            (int)et_error_message(error).len, et_error_message(error).ptr);
    exit(1);
  }
  et_error_release(error);
}
#define INVALID(call) expect(call, ET_ERR_INVALID_ARGUMENT, __LINE__)
#define BAD(call) expect(call, ET_ERR_BAD_INPUT, __LINE__)
#define TRUE(condition)                                                                                                \
  if (!(condition)) {                                                                                                  \
    fprintf(stderr, "line %d: " #condition "\n", __LINE__);                                                            \
    return 1;                                                                                                          \
  }

int main(void) {
  et_runtime *runtime = NULL;
  et_app *app = NULL;
  et_text *text = NULL;
  et_model *model = NULL;
  et_loss *loss = NULL;
  const char *bad[1] = {"\xff"};
  float value = 0;

  TRUE(et_error_code(NULL) == 0 && et_error_message(NULL).len == 0);
  INVALID(et_runtime_new(NULL, NULL)); /* an error before there is a runtime */
  BAD(et_runtime_new("{\"plugin\": []}", &runtime));
  BAD(et_runtime_new("{", &runtime));
  BAD(et_runtime_new(bad[0], &runtime));
  TRUE(runtime == NULL);
  if (et_runtime_new(NULL, &runtime) != NULL) return 1;
  TRUE(et_runtime_host(runtime) != NULL && et_runtime_host(NULL) == NULL);

  INVALID(et_app_load(NULL, "x", &app));
  INVALID(et_app_load(runtime, NULL, &app));
  INVALID(et_app_load(runtime, "x", NULL));
  BAD(et_app_load(runtime, "no-such-folder", &app));
  BAD(et_app_load(runtime, bad[0], &app));
  INVALID(et_app_load_with(NULL, "x", NULL, &app));
  INVALID(et_app_load_with(runtime, "x", NULL, NULL));
  BAD(et_app_load_with(runtime, "no-such-folder", NULL, &app));
  BAD(et_app_load_with(runtime, "no-such-folder", "{\"precision\": \"f64\"}", &app));
  TRUE(app == NULL);
  INVALID(et_app_predict(NULL, bad, 1, NULL));
  INVALID(et_app_predict_texts(NULL, NULL, 0, NULL));
  INVALID(et_app_predict_records(NULL, NULL, 0, NULL));
  INVALID(et_app_predict_json(NULL, "{}", &text));
  INVALID(et_embedder_embed(NULL, bad, 1, &value, 1));
  INVALID(et_fit(runtime, NULL, NULL, NULL, &text));
  BAD(et_fit(runtime, "{}", NULL, NULL, &text));
  INVALID(et_runtime_plugins_json(NULL, &text));
  INVALID(et_runtime_register_plugin(runtime, NULL));
  BAD(et_runtime_load_plugin(runtime, "no-such-plugin"));
  BAD(et_model_new(runtime, "no-such-model", "{}", 1, &model));
  BAD(et_loss_new(runtime, "no-such-loss", NULL, &loss));
  INVALID(et_loss_forward(NULL, NULL, NULL, NULL));
  INVALID(et_model_forward(NULL, NULL, 0, 0, NULL));
  INVALID(et_optimizer_step(NULL, NULL, 1.0));
  TRUE(et_model_params(NULL) == NULL && text == NULL && model == NULL && loss == NULL);

  TRUE(et_predictions_len(NULL) == 0 && et_predictions_label(NULL, 0) == NULL && et_predictions_json(NULL, 0) == NULL);
  TRUE(et_predictions_answer(NULL, 0).ptr == NULL && et_predictions_answer(NULL, 0).len == 0);
  TRUE(et_predictions_score(NULL, 0) != et_predictions_score(NULL, 0)); /* NaN */
  TRUE(et_app_labels_len(NULL) == 0 && et_app_label(NULL, 0) == NULL && et_embedder_width(NULL) == 0);
  TRUE(et_text_data(NULL) == NULL && et_text_len(NULL) == 0);

  et_app_release(NULL);
  et_predictions_release(NULL);
  et_embedder_release(NULL);
  et_model_release(NULL);
  et_loss_release(NULL);
  et_optimizer_release(NULL);
  et_text_release(NULL);
  et_error_release(NULL);
  et_runtime_release(NULL);
  et_runtime_release(runtime);
  TRUE(et_live_handles() == 0);
  return 0;
}
