/* Trains a text classifier on a table with the columns "text" and "label", and writes its bundle. */
#define HOSTS_NEED_NUMBERS
#include "common.h"

static int32_t on_event(void *user, const et_event *event) {
  (void)user;
  if (event->kind == ET_EVENT_STEP) {
    printf("step %lu/%lu loss ", (unsigned long)event->step, (unsigned long)event->total_steps);
    print_number(event->loss);
    printf("\n");
  }
  return 1; /* 0 would end the run */
}

/* Appends a JSON string, or null for "-". */
static void append(char *json, const char *key, const char *value) {
  strcat(json, key);
  if (strcmp(value, "-") == 0) {
    strcat(json, "null");
    return;
  }
  strcat(json, "\"");
  for (json += strlen(json); *value != '\0'; ++value) {
    if (*value == '"' || *value == '\\') *json++ = '\\';
    *json++ = *value;
  }
  *json++ = '"';
  *json = '\0';
}

int main(int argc, char **argv) {
  et_runtime *runtime = NULL;
  et_text *result = NULL;
  char *json;
  size_t size = 256;
  int i, scratch = argc > 1 && strcmp(argv[1], "--scratch") == 0;
  char **arguments = argv + scratch;
  const int arguments_len = argc - scratch;
  if (arguments_len < 5 || arguments_len > 6) usage("train [--scratch] ENCODER TRAIN VALID|- OUTPUT [CONFIG_JSON]");

  for (i = 1; i < arguments_len; ++i) size += 2 * strlen(arguments[i]);
  json = (char *)allocate(size);
  json[0] = '\0';
  append(json, "{\"encoder\":", arguments[1]);
  append(json, ",\"train\":", arguments[2]);
  append(json, ",\"valid\":", arguments[3]);
  append(json, ",\"output\":", arguments[4]);
  strcat(json, scratch ? ",\"from_scratch\":true,\"config\":" : ",\"config\":");
  strcat(json, arguments_len > 5 ? arguments[5] : "{}");
  strcat(json, "}");

  check(et_runtime_new(NULL, &runtime));
  check(et_fit(runtime, json, on_event, NULL, &result));
  printf("%s\n", et_text_data(result));

  free(json);
  et_text_release(result);
  et_runtime_release(runtime);
  return finish();
}
