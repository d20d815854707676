/*
 * A loss as version 0.2 lets one write it: the mean squared error of "logits" against "labels".
 *
 * The labels are converted to the type and the shape of the logits, so logits [B] and [B, 1] both work.
 * Once 0.2 is released this file and the header beside it never change: they stand for the plugins that are out there.
 */
#include "easytransfer_plugin.h"

#include <string.h>

static const et_host_tensor *tensor;
static const et_host_data *data;

static et_error *init(const et_host *host) {
  tensor = (const et_host_tensor *)host->get_interface(host, "et.tensor/1");
  data = (const et_host_data *)host->get_interface(host, "et.data/1");
  if (ET_HAS(tensor, cast) && ET_HAS(data, map_get)) return NULL;
  return host->error_new(ET_ERR_UNIMPLEMENTED,
                         ET_STR("this host lacks a slot of et.tensor/1 or et.data/1"));
}

static et_error *create(et_str options, void **out) {
  (void)options;
  *out = NULL;
  return NULL;
}

static et_error *forward(void *instance, const et_call *call, const et_map *outputs,
                         const et_map *batch, et_tensor **out) {
  et_tensor *logits = NULL, *labels = NULL, *typed = NULL, *shaped = NULL;
  et_tensor *difference = NULL, *square = NULL;
  et_error *error = data->map_get(outputs, ET_STR("logits"), &logits);
  (void)instance;
  (void)call;
  if (!error) error = data->map_get(batch, ET_STR("labels"), &labels);
  if (!error) error = tensor->cast(labels, tensor->dtype(logits), &typed);
  if (!error) error = tensor->reshape(typed, tensor->shape(logits), tensor->rank(logits), &shaped);
  if (!error) error = tensor->binary(ET_BINARY_SUB, logits, shaped, &difference);
  if (!error) error = tensor->unary(ET_UNARY_SQR, difference, &square);
  if (!error) error = tensor->reduce(ET_REDUCE_MEAN, square, NULL, 0, 0, out);
  tensor->release(logits);
  tensor->release(labels);
  tensor->release(typed);
  tensor->release(shaped);
  tensor->release(difference);
  tensor->release(square);
  return error;
}

static void release(void *instance) { (void)instance; }

static const et_plugin_loss LOSS = {
    .struct_size = sizeof(et_plugin_loss),
    .name = "frozen-mse",
    .schema = "{\"type\":\"object\",\"additionalProperties\":false}",
    .create = create,
    .forward = forward,
    .release = release,
};

static const void *component(const char *kind, size_t index) {
  return index == 0 && strcmp(kind, "et.loss/1") == 0 ? &LOSS : NULL;
}

static const et_plugin_record RECORD = {
    .magic = ET_PLUGIN_MAGIC,
    .abi_major = ET_ABI_MAJOR,
    .abi_minor = ET_ABI_MINOR,
    .struct_size = sizeof(et_plugin_record),
    .id = "frozen-loss",
    .version = "0.1.0",
    .init = init,
    .component = component,
};

ET_EXPORT const et_plugin_record *et_plugin_entry(void) { return &RECORD; }
