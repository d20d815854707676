/* The loss of the outsiders in C99, against easytransfer_plugin.h alone: mean over all logits of squared difference to the one-hot label,
 * written with the same operations in the same order as its siblings in Rust and C++. */
#include "easytransfer_plugin.h"

#include <string.h>

static const et_host_tensor *T;
static const et_host_data *D;

static et_error *init(const et_host *host) {
  T = (const et_host_tensor *)host->get_interface(host, "et.tensor/1");
  D = (const et_host_data *)host->get_interface(host, "et.data/1");
  if (ET_HAS(T, cast) && ET_HAS(D, map_get)) return NULL;
  return host->error_new(ET_ERR_UNIMPLEMENTED, ET_STR("need et.tensor/1 and et.data/1"));
}

static et_error *create(et_str options, void **out) {
  (void)options;
  *out = NULL;
  return NULL;
}

static et_error *forward(void *self, const et_call *call, const et_map *outputs, const et_map *batch, et_tensor **out) {
  et_tensor *logits = NULL, *labels = NULL, *column = NULL, *index = NULL, *equal = NULL, *target = NULL, *off = NULL,
            *square = NULL;
  size_t shape[2] = {0, 1}, classes = 0;
  et_error *error = D->map_get(outputs, ET_STR("logits"), &logits);
  (void)self;
  (void)call;
  if (!error) error = D->map_get(batch, ET_STR("labels"), &labels);
  if (!error) {
    shape[0] = T->shape(logits)[0];
    classes = T->shape(logits)[1];
    error = T->reshape(labels, shape, 2, &column);
  }
  if (!error) error = T->arange(ET_DTYPE_I64, 0, 1, classes, &index);
  if (!error) error = T->compare(ET_COMPARE_EQ, index, column, &equal);
  if (!error) error = T->cast(equal, ET_DTYPE_F32, &target);
  if (!error) error = T->binary(ET_BINARY_SUB, logits, target, &off);
  if (!error) error = T->unary(ET_UNARY_SQR, off, &square);
  if (!error) error = T->reduce(ET_REDUCE_MEAN, square, NULL, 0, 0, out);
  T->release(logits);
  T->release(labels);
  T->release(column);
  T->release(index);
  T->release(equal);
  T->release(target);
  T->release(off);
  T->release(square);
  return error;
}

static void drop(void *self) { (void)self; }

static const et_plugin_loss LOSS = {
    .struct_size = sizeof(et_plugin_loss),
    .name = "outsider-c",
    .schema = "{\"type\":\"object\",\"properties\":{}}",
    .create = create,
    .forward = forward,
    .release = drop,
};

static const void *component(const char *kind, size_t index) {
  return index == 0 && strcmp(kind, "et.loss/1") == 0 ? &LOSS : NULL;
}

static const et_plugin_record RECORD = {
    .magic = ET_PLUGIN_MAGIC,
    .abi_major = ET_ABI_MAJOR,
    .abi_minor = ET_ABI_MINOR,
    .struct_size = sizeof(et_plugin_record),
    .id = "outsider-c",
    .version = "0.1.0",
    .init = init,
    .component = component,
};

ET_EXPORT const et_plugin_record *et_plugin_entry(void) { return &RECORD; }
