/* cancel_thread OPTIONS_JSON RESUMED_JSON: another thread ends a run after its third step, by the runtime. A later run
   of the same runtime is not asked any more, and goes on to the end. */
#include "easytransfer.h"

#include <pthread.h>
#include <stdio.h>

static et_runtime *runtime;
static int steps, over;

static int32_t on_step(void *user, const et_event *event) {
  (void)user;
  if (event->kind == ET_EVENT_STEP) __atomic_store_n(&steps, (int)event->step, __ATOMIC_RELEASE);
  return 1;
}

static void *cancel(void *unused) {
  (void)unused;
  while (__atomic_load_n(&steps, __ATOMIC_ACQUIRE) < 3 && !__atomic_load_n(&over, __ATOMIC_ACQUIRE)) {
  }
  et_runtime_cancel(runtime);
  return NULL;
}

int main(int argc, char **argv) {
  pthread_t thread;
  et_error *error;
  et_text *result = NULL;
  int32_t code;
  if (argc != 3 || et_runtime_new(NULL, &runtime) != NULL) return 1;
  pthread_create(&thread, NULL, cancel, NULL);
  error = et_fit(runtime, argv[1], on_step, NULL, &result);
  __atomic_store_n(&over, 1, __ATOMIC_RELEASE);
  pthread_join(thread, NULL);
  code = et_error_code(error);
  et_error_release(error);
  printf("%d %s\n", code == ET_ERR_CANCELLED && result == NULL, steps >= 3 ? "after three steps" : "early");
  error = et_fit(runtime, argv[2], on_step, NULL, &result);
  if (error != NULL) printf("%.*s\n", (int)et_error_message(error).len, et_error_message(error).ptr);
  printf("%d steps, %d\n", steps, et_text_len(result) > 0);
  et_error_release(error);
  et_text_release(result);
  et_runtime_release(runtime);
  return et_live_handles() == 0 ? 0 : 2;
}
