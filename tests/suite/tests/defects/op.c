/* The operation `under-check`: the square of every element. As it stands it keeps every promise of `et.op/1`; with
 * -DDEFECT_NAME it breaks one. */
#include "easytransfer_plugin.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const et_host *host;
static const et_host_tensor *T;

static et_error *init(const et_host *given) {
  host = given;
  T = (const et_host_tensor *)host->get_interface(host, "et.tensor/1");
  if (ET_HAS(T, affine)) return NULL;
  return host->error_new(ET_ERR_UNIMPLEMENTED, ET_STR("under-check needs a newer host"));
}

static et_error *infer(void *state, const et_view *const *inputs, int32_t *dtypes, int32_t *ranks,
                       int64_t *const *shapes) {
  int32_t axis;
  (void)state;
  if (inputs[0]->dtype != ET_DTYPE_F32) return host->error_new(ET_ERR_DTYPE, ET_STR("under-check: expected f32"));
#ifdef DEFECT_crash_without_rows
  if (inputs[0]->rank > 0 && inputs[0]->shape[0] == 0) abort();
#endif
  dtypes[0] = inputs[0]->dtype;
  ranks[0] = inputs[0]->rank;
  for (axis = 0; axis < inputs[0]->rank; axis += 1) shapes[0][axis] = inputs[0]->shape[axis];
  return NULL;
}

static et_error *forward(const et_op_call *call) {
  const et_view *x = call->inputs[0], *y = call->outputs[0];
  const float *from = (const float *)((const char *)x->data + x->byte_offset);
  float *to = (float *)((char *)y->data + y->byte_offset);
  int64_t len = 1, i;
  int32_t axis;
  for (axis = 0; axis < x->rank; axis += 1) len *= x->shape[axis];
#ifdef DEFECT_leaves_the_tail
  for (i = 0; i < len; i += 1) to[i] = NAN;
  len = len / 4 * 4 - (len % 3 == 0 && len > 16 ? 1 : 0);
#endif
  for (i = 0; i < len; i += 1) to[i] = from[i] * from[i];
#ifdef DEFECT_changes_input
  if (len > 0) ((float *)(size_t)from)[0] += 1.0f;
#endif
#ifdef DEFECT_random
  if (len > 0) to[0] += (float)rand() / (float)RAND_MAX;
#endif
  return NULL;
}

static et_error *backward(void *state, const et_tensor *const *inputs, const et_tensor *const *outputs,
                          const et_tensor *const *output_grads, et_tensor **input_grads) {
  et_tensor *slope = NULL;
  double two = 2.0;
  et_error *error;
  (void)state, (void)outputs;
#ifdef DEFECT_wrong_gradient
  two = 1.0;
#endif
  if (output_grads[0] == NULL) return NULL;
  error = T->affine(inputs[0], two, 0.0, &slope);
  if (!error) error = T->binary(ET_BINARY_MUL, slope, output_grads[0], &input_grads[0]);
#ifndef DEFECT_leaks_slope
  T->release(slope);
#endif
  return error;
}

static const et_plugin_op OP = {
    .struct_size = sizeof(et_plugin_op),
    .name = "under-check",
    .flags = ET_OP_HAS_BACKWARD,
    .inputs_len = 1,
    .outputs_len = 1,
    .infer = infer,
    .forward = forward,
    .backward = backward,
};

#define KIND "et.op/1"
#define TABLE OP
#include "entry.h"
