/* A loop by hand in C: the optimizer of another model and a gradient that would be wrong are errors, and a model is
   saved and read back. Arguments: the content of config.json, a directory for the model. */
#include "easytransfer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const et_host_tensor *tensors;
static const et_host_autograd *autograd;
static const et_host_param *params;

static void ok(et_error *error, int line) {
  if (error == NULL) return;
  fprintf(stderr, "line %d: %.*s\n", line, (int)et_error_message(error).len, et_error_message(error).ptr);
  exit(1);
}
#define OK(call) ok(call, __LINE__)

static void fails(et_error *error, int32_t code, const char *words, int line) {
  char message[2000] = "";
  size_t len = et_error_message(error).len;
  if (len >= sizeof message) len = sizeof message - 1;
  if (len > 0) memcpy(message, et_error_message(error).ptr, len);
  if (et_error_code(error) != code || strstr(message, words) == NULL) {
    fprintf(stderr, "line %d: expected error %d with %s, found %d: %s\n", line, (int)code, words,
            (int)et_error_code(error), message);
    exit(1);
  }
  et_error_release(error);
}

/* The sum of the squares of a parameter, on the tape. */
static et_tensor *loss_of(et_model *model, et_str name) {
  et_param *param = NULL;
  et_tensor *value = NULL, *squares = NULL, *sum = NULL;
  OK(params->params_find(et_model_params(model), name, &param));
  OK(params->tensor(param, &value));
  OK(tensors->unary(ET_UNARY_SQR, value, &squares));
  OK(tensors->reduce(ET_REDUCE_SUM, squares, NULL, 0, 0, &sum));
  tensors->release(squares);
  tensors->release(value);
  params->release(param);
  return sum;
}

static float value_of(et_tensor *loss) {
  float value = 0;
  OK(tensors->read(loss, &value, sizeof value));
  return value;
}

int main(int argc, char **argv) {
  static const char text[] = "pooler.dense.weight";
  const et_str name = {text, sizeof text - 1};
  et_runtime *runtime = NULL;
  et_model *first = NULL, *second = NULL;
  et_optimizer *optimizer = NULL;
  et_tensor *loss, *stale, *copy;
  const et_host *host;
  if (argc != 3) return 2;
  OK(et_runtime_new(NULL, &runtime));
  host = et_runtime_host(runtime);
  tensors = host->get_interface(host, "et.tensor/1");
  autograd = host->get_interface(host, "et.autograd/1");
  params = host->get_interface(host, "et.param/1");
  OK(et_model_new(runtime, "bert", argv[1], 1, &first));
  OK(et_model_new(runtime, "bert", argv[1], 2, &second));
  OK(et_optimizer_new(runtime, "adamw", NULL, first, &optimizer));

  fails(et_optimizer_step(optimizer, second, 0.1), ET_ERR_INVALID_ARGUMENT, "the optimizer was made for", __LINE__);

  stale = loss_of(first, name);
  loss = loss_of(first, name);
  OK(autograd->backward(loss, NULL));
  OK(et_optimizer_step(optimizer, first, 0.1));
  fails(autograd->backward(stale, NULL), ET_ERR_FAILED_PRECONDITION, "\"pooler.dense.weight\" has changed", __LINE__);
  tensors->release(loss);
  tensors->release(stale);
  loss = loss_of(first, name);
  OK(autograd->backward(loss, NULL));

  fails(et_model_save(first, NULL), ET_ERR_INVALID_ARGUMENT, "directory", __LINE__);
  OK(et_model_save(first, argv[2]));
  OK(et_model_load_weights(second, argv[2]));
  copy = loss_of(second, name);
  if (value_of(copy) != value_of(loss)) {
    fprintf(stderr, "read back: %g, saved: %g\n", value_of(copy), value_of(loss));
    return 1;
  }
  tensors->release(copy);
  tensors->release(loss);
  et_model_release(first); /* before its optimizer */
  et_model_release(second);
  et_optimizer_release(optimizer);
  et_runtime_release(runtime);
  if (et_live_handles() != 0) {
    fprintf(stderr, "%lld handles are left\n", (long long)et_live_handles());
    return 1;
  }
  return 0;
}
