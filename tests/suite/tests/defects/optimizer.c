/* The optimizer `under-check`: gradient descent with momentum and decay, over the parameters by themselves. As it
 * stands it keeps every promise of `et.optimizer/1`; with -DDEFECT_NAME it breaks one. */
#include "easytransfer_plugin.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const et_host *host;
static const et_host_tensor *T;
static const et_host_param *P;
static const et_host_stream *S;
static const et_host_autograd *A;

static et_error *init(const et_host *given) {
  host = given;
  T = (const et_host_tensor *)host->get_interface(host, "et.tensor/1");
  P = (const et_host_param *)host->get_interface(host, "et.param/1");
  S = (const et_host_stream *)host->get_interface(host, "et.stream/1");
  A = (const et_host_autograd *)host->get_interface(host, "et.autograd/1");
  if (ET_HAS(T, cast) && ET_HAS(P, has_decay) && ET_HAS(S, read) && ET_HAS(A, detach)) return NULL;
  return host->error_new(ET_ERR_UNIMPLEMENTED, ET_STR("under-check needs a newer host"));
}

enum { MOST = 16 };

/* The momentum of each parameter. */
typedef struct {
  size_t len;
  size_t lens[MOST];
  float *momenta[MOST];
} optimizer;

#ifdef DEFECT_shared_state
static float shared[1 << 16];
#endif

static void drop(void *instance) {
  optimizer *self = (optimizer *)instance;
  size_t i;
  for (i = 0; self != NULL && i < self->len; i += 1) free(self->momenta[i]);
  free(self);
}

static size_t len_of(const et_param *param) {
  size_t len = 1, axis;
  for (axis = 0; axis < P->rank(param); axis += 1) len *= P->shape(param)[axis];
  return len;
}

static et_error *create(et_str options, et_params *params, void **out) {
  optimizer *self = (optimizer *)calloc(1, sizeof *self);
  size_t i;
  (void)options;
  self->len = P->params_len(params);
  if (self->len > MOST) return host->error_new(ET_ERR_UNIMPLEMENTED, ET_STR("too many parameters"));
  for (i = 0; i < self->len; i += 1) {
    et_param *param = P->params_at(params, i);
    self->lens[i] = len_of(param);
    self->momenta[i] = (float *)calloc(self->lens[i], sizeof(float));
    P->release(param);
  }
  *out = self;
  return NULL;
}

static et_error *move(optimizer *self, et_param *param, size_t index, double lr) {
  et_tensor *tracked = NULL, *value = NULL, *gradient = NULL, *next = NULL;
  const size_t len = self->lens[index];
  float *x = (float *)malloc(len * sizeof(float)), *g = (float *)malloc(len * sizeof(float));
  float *m = self->momenta[index];
  size_t i;
  et_error *error = P->tensor(param, &tracked);
  double rate = lr * P->lr_scale(param);
  double norm = 0.0;
#ifdef DEFECT_ignores_scale
  rate = lr;
#endif
#ifdef DEFECT_ignores_rate
  rate = 0.02 * P->lr_scale(param);
#endif
#ifdef DEFECT_shared_state
  m = shared;
#endif
  if (!error) error = A->detach(tracked, &value);
  if (!error) error = P->grad(param, &gradient);
  if (!error) error = T->read(value, x, len * sizeof(float));
  if (!error) error = T->read(gradient, g, len * sizeof(float));
  if (!error) {
    for (i = 0; i < len; i += 1) norm += (double)g[i] * g[i];
    (void)norm;
#ifdef DEFECT_divides_by_norm
    for (i = 0; i < len; i += 1) g[i] = (float)(0.2 * g[i] / sqrt(norm));
#endif
#ifdef DEFECT_leaves_the_tail
    for (i = 0; i < len / 8 * 8 + (len < 8 ? len : 0); i += 1) {
#else
    for (i = 0; i < len; i += 1) {
#endif
      m[i] = 0.5f * m[i] + g[i];
      x[i] -= (float)(rate * (m[i] + (P->has_decay(param) ? 0.01 * x[i] : 0.0)));
    }
#ifdef DEFECT_decays_without_rate
    for (i = 0; i < len; i += 1) x[i] *= 0.9999f;
#endif
    error = T->from_data(ET_DTYPE_F32, T->shape(value), T->rank(value), x, len * sizeof(float), &next);
  }
  if (!error) error = P->assign(param, next);
#ifdef DEFECT_leaks_gradient
  gradient = NULL;
#endif
  T->release(tracked), T->release(value), T->release(gradient), T->release(next);
  free(x), free(g);
  return error;
}

static et_error *step(void *instance, et_params *params, double lr, uint64_t number) {
  optimizer *self = (optimizer *)instance;
  et_error *error = NULL;
  size_t i;
  (void)number;
  for (i = 0; i < self->len && !error; i += 1) {
    et_param *param = P->params_at(params, i);
    int moves = P->is_trainable(param) && P->has_grad(param);
#ifdef DEFECT_moves_frozen
    if (!P->is_trainable(param)) {
      et_tensor *value = NULL, *next = NULL;
      error = P->tensor(param, &value);
      if (!error) error = T->affine(value, 0.99, 0.0, &next);
      if (!error) error = P->assign(param, next);
      T->release(value), T->release(next);
    }
#endif
#ifdef DEFECT_crash_without_gradient
    if (P->is_trainable(param) && !P->has_grad(param)) *(volatile int *)8 = 1;
#endif
#ifdef DEFECT_climbs
    if (moves && !error) error = move(self, param, i, -lr);
#else
    if (moves && !error) error = move(self, param, i, lr);
#endif
    P->release(param);
  }
  return error;
}

static et_error *state_save(void *instance, et_stream *stream) {
  optimizer *self = (optimizer *)instance;
  et_error *error = NULL;
  size_t i;
#ifdef DEFECT_saves_nothing
  return NULL;
#endif
  for (i = 0; i < self->len && !error; i += 1)
    error = S->write(stream, self->momenta[i], self->lens[i] * sizeof(float));
  return error;
}

static et_error *state_load(void *instance, et_stream *stream) {
  optimizer *self = (optimizer *)instance;
  et_error *error = NULL;
  size_t i;
#ifdef DEFECT_loads_nothing
  return NULL;
#endif
  for (i = 0; i < self->len && !error; i += 1) {
#ifdef DEFECT_saves_nothing
    return NULL;
#endif
    error = S->read(stream, self->momenta[i], self->lens[i] * sizeof(float));
  }
  return error;
}

static const et_plugin_optimizer OPTIMIZER = {
    .struct_size = sizeof(et_plugin_optimizer),
    .name = "under-check",
    .schema = "{\"type\":\"object\",\"properties\":{},\"additionalProperties\":false,\"default_lr\":0.01}",
    .create = create,
    .step = step,
    .state_save = state_save,
    .state_load = state_load,
    .release = drop,
};

#define KIND "et.optimizer/1"
#define TABLE OPTIMIZER
#include "entry.h"
