/* events FIT_JSON BUNDLE EVALUATE_JSON PREDICT_JSON EMBED_JSON STOP: trains, evaluates, predicts and embeds, and prints each event as
 * "KIND STEP TOTAL_STEPS DONE TOTAL JSON". With STOP 1 work on files is ended at its first event. */
#include "easytransfer.h"

#include <stdio.h>
#include <stdlib.h>

static int stop;

static int32_t on_event(void *user, const et_event *event) {
  if (event->struct_size != sizeof(et_event)) exit(9);
  printf("%s %d %lu %lu %lu %lu %s\n", (const char *)user, (int)event->kind, (unsigned long)event->step,
         (unsigned long)event->total_steps, (unsigned long)event->done, (unsigned long)event->total, event->json.ptr);
  return !(stop && event->kind == ET_EVENT_ROWS);
}

static void show(const char *what, et_error *error, et_text *result) {
  if (error != NULL) {
    if (et_error_code(error) != ET_ERR_CANCELLED || result != NULL) {
      fprintf(stderr, "%s: %.*s\n", what, (int)et_error_message(error).len, et_error_message(error).ptr);
      exit(1);
    }
    printf("%s cancelled\n", what);
    et_error_release(error);
    return;
  }
  printf("%s %s\n", what, et_text_data(result));
  et_text_release(result);
}

int main(int argc, char **argv) {
  et_runtime *runtime = NULL;
  et_app *app = NULL;
  et_embedder *embedder = NULL;
  et_text *result = NULL;
  et_error *error;
  const et_host *host;
  if (argc != 7) return 2;
  stop = atoi(argv[6]);
  if (et_runtime_new(NULL, &runtime) != NULL) return 3;
  host = et_runtime_host(runtime);
  error = et_fit(runtime, argv[1], on_event, "fit", &result);
  show("fit", error, result);
  if (et_app_load(runtime, argv[2], &app) != NULL) return 4;
  if (et_embedder_load(runtime, argv[2], NULL, &embedder) != NULL) return 5;
  result = NULL;
  error = et_app_evaluate(app, argv[3], on_event, "evaluate", &result);
  show("evaluate", error, result);
  result = NULL;
  error = et_app_predict_file(app, argv[4], on_event, "predict", &result);
  show("predict", error, result);
  result = NULL;
  error = et_embedder_embed_file(embedder, argv[5], on_event, "embed", &result);
  show("embed", error, result);
  et_embedder_release(embedder);
  et_app_release(app);
  et_runtime_release(runtime);
  return host->live_handles() == 0 ? 0 : 6;
}
