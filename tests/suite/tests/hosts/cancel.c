/* cancel OPTIONS_JSON OUTPUT STEP: trains and ends the run from the callback after STEP steps (0: never). Prints "cancelled" or
 * the result. What a cancelled run leaves is no bundle, and nothing stays alive in the engine. */
#include "easytransfer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
  uint64_t stop_at, calls;
} watch;

static int32_t on_event(void *user, const et_event *event) {
  watch *seen = (watch *)user;
  if (event->kind != ET_EVENT_STEP) return 1;
  seen->calls += 1;
  return event->step != seen->stop_at;
}

static void fail(const char *what, et_error *error) {
  fprintf(stderr, "%s: error %d: %.*s\n", what, (int)et_error_code(error), (int)et_error_message(error).len,
          et_error_message(error).ptr);
  exit(1);
}

int main(int argc, char **argv) {
  et_runtime *runtime = NULL;
  et_text *result = NULL;
  et_app *app = NULL;
  et_error *error;
  watch seen = {0, 0};
  const et_host *host;
  if (argc != 4) return 2;
  seen.stop_at = (uint64_t)atoi(argv[3]);
  if ((error = et_runtime_new(NULL, &runtime)) != NULL) fail("runtime", error);
  host = et_runtime_host(runtime);

  error = et_fit(runtime, argv[1], on_event, &seen, &result);
  if (seen.stop_at == 0) {
    if (error != NULL) fail("fit", error);
    printf("%s\n", et_text_data(result));
    et_text_release(result);
  } else {
    if (error == NULL || et_error_code(error) != ET_ERR_CANCELLED) fail("expected a cancelled run", error);
    if (result != NULL) fail("a cancelled run has a result", error);
    et_error_release(error);
    error = et_app_load(runtime, argv[2], &app);
    if (error == NULL || app != NULL) fail("what a cancelled run left was loaded as a bundle", error);
    et_error_release(error);
    printf("cancelled after %lu calls\n", (unsigned long)seen.calls);
  }
  et_runtime_release(runtime);
  if (host->live_handles() != 0) {
    fprintf(stderr, "%ld handles are alive at the end\n", (long)host->live_handles());
    return 1;
  }
  return 0;
}
