/* The loss `under-check`: softmax cross entropy, times an option `scale`. As it stands it keeps every promise of
 * `et.loss/1`; with -DDEFECT_NAME it breaks one. */
#define _GNU_SOURCE
#include "easytransfer_plugin.h"

#include <fenv.h>
#include <locale.h>
#include <math.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const et_host *host;
static const et_host_tensor *T;
static const et_host_nn *N;
static const et_host_data *D;
static const et_host_config *C;
static const et_host_autograd *A;

#ifdef DEFECT_global_options
static double shared_scale = 1.0;
#endif

#ifdef DEFECT_two_symbols
ET_EXPORT int loss_helper(int x) { return x + 1; }
#endif

#ifdef DEFECT_thread_left
static void *forever(void *nothing) {
  for (;;) sleep(1);
  return nothing;
}
#endif

#ifdef DEFECT_signal_handler
static void ignore(int signal) { (void)signal; }
#endif

#ifdef DEFECT_init_once
static int was_initialised;
#endif

static et_error *init(const et_host *given) {
  host = given;
  T = (const et_host_tensor *)host->get_interface(host, "et.tensor/1");
  N = (const et_host_nn *)host->get_interface(host, "et.nn/1");
  D = (const et_host_data *)host->get_interface(host, "et.data/1");
  C = (const et_host_config *)host->get_interface(host, "et.config/1");
  A = (const et_host_autograd *)host->get_interface(host, "et.autograd/1");
#ifdef DEFECT_slow_init
  sleep(2);
#endif
#ifdef DEFECT_crash_in_init
  *(volatile int *)16 = 1;
#endif
#ifdef DEFECT_init_once
  if (was_initialised++) return host->error_new(ET_ERR_FAILED_PRECONDITION, ET_STR("init was called before"));
#endif
  if (ET_HAS(T, gather) && ET_HAS(N, log_softmax) && ET_HAS(D, map_has) && ET_HAS(C, f64_at)) return NULL;
  return host->error_new(ET_ERR_UNIMPLEMENTED, ET_STR("under-check needs a newer host"));
}

typedef struct {
  double scale;
  double calls;
} loss;

static et_error *bad(const char *text) {
#ifdef DEFECT_error_without_message
  text = "";
#endif
  et_str message;
  message.ptr = text;
  message.len = strlen(text);
  return host->error_new(ET_ERR_BAD_INPUT, message);
}

static et_error *create(et_str options, void **out) {
  loss *self = (loss *)calloc(1, sizeof *self);
  et_config *config = NULL;
  et_error *error = NULL;
  double scale = 1.0;
#ifdef DEFECT_slow_create
  static int made;
  if (made++ == 0) usleep(1200000);
#endif
#ifdef DEFECT_default_differs
  scale = 2.0;
#endif
  if (options.len > 0) error = C->parse(options, &config);
#ifdef DEFECT_abort_on_bad_option
  if (error) abort();
#endif
#ifdef DEFECT_exit_on_bad_option
  if (config && C->has(config, ET_STR("scale")) && (C->release(NULL), error = C->f64_at(config, ET_STR("scale"), &scale)))
    exit(3);
#endif
  if (!error && config && C->has(config, ET_STR("scale"))) error = C->f64_at(config, ET_STR("scale"), &scale);
#ifdef DEFECT_hidden_option
  if (!error && config && C->has(config, ET_STR("temper"))) {
    double temper = 1.0;
    host->error_release(C->f64_at(config, ET_STR("temper"), &temper));
    scale *= temper;
  }
#endif
  C->release(config);
#ifdef DEFECT_allowed_refused
  if (!error && scale > 5.0) error = bad("scale: expected at most 5");
#endif
#ifdef DEFECT_default_refused
  if (!error && scale == 1.0) error = bad("scale: 1 is none");
#endif
#ifdef DEFECT_option_unread
  scale = 1.0;
#endif
  if (!error && (scale < 0.1 || scale > 10.0)) error = bad("scale: expected 0.1 to 10");
  if (error) {
    free(self);
    return error;
  }
  self->scale = scale;
#ifdef DEFECT_global_options
  shared_scale = scale;
#endif
  *out = self;
  return NULL;
}

static void drop(void *self) {
#ifdef DEFECT_release_of_null
  ((volatile loss *)self)->scale = 0.0;
#endif
#ifndef DEFECT_release_keeps
  free(self);
#endif
}

#ifdef DEFECT_naive_exponentials
/* log softmax without taking the largest away. */
static et_error *log_softmax(const et_tensor *x, et_tensor **out) {
  et_tensor *e = NULL, *sum = NULL, *log = NULL;
  const int64_t axis = 1;
  et_error *error = T->unary(ET_UNARY_EXP, x, &e);
  if (!error) error = T->reduce(ET_REDUCE_SUM, e, &axis, 1, 1, &sum);
  if (!error) error = T->unary(ET_UNARY_LOG, sum, &log);
  if (!error) error = T->binary(ET_BINARY_SUB, x, log, out);
  T->release(e), T->release(sum), T->release(log);
  return error;
}
#else
static et_error *log_softmax(const et_tensor *x, et_tensor **out) { return N->log_softmax(x, out); }
#endif

#ifdef DEFECT_computes_in_a_thread
typedef struct {
  const et_tensor *x;
  et_tensor **out;
  et_error *error;
} work;

static void *compute(void *given) {
  work *asked = (work *)given;
  asked->error = N->log_softmax(asked->x, asked->out);
  return NULL;
}
#endif

static et_error *rows(void *instance, const et_call *call, const et_map *outputs, const et_map *batch,
                      et_tensor **out) {
  loss *self = (loss *)instance;
  et_tensor *logits = NULL, *labels = NULL, *places = NULL, *logs = NULL, *picked = NULL, *log_p = NULL;
  size_t shape[2] = {0, 1};
  double scale = self->scale;
  et_error *error = D->map_get(outputs, ET_STR("logits"), &logits);
#ifdef DEFECT_crashes_in_training
  if (call->training) *(volatile int *)8 = 1;
#endif
#ifdef DEFECT_random_numbers
  scale *= 1.0 + 1e-6 * (double)rand() / RAND_MAX;
#endif
  (void)call;
#ifdef DEFECT_global_options
  scale = shared_scale;
#endif
#ifdef DEFECT_counts_calls
  scale *= 1.0 + 1e-3 * (double)(int)self->calls++;
#endif
  if (!error) error = D->map_get(batch, ET_STR("labels"), &labels);
  if (!error) shape[0] = T->len(labels);
#ifdef DEFECT_crash_without_rows
  if (!error && shape[0] == 0) *(volatile int *)8 = 1;
#endif
#ifdef DEFECT_division_by_rows
  {
    volatile size_t part = shape[0];
    if (!error) part = 100 / part;
  }
#endif
#ifdef DEFECT_fixed_buffer
  if (!error) {
    /* Twenty rows fit, and what lies far beyond is not there. */
    volatile char *copy = (volatile char *)malloc(20);
    if (shape[0] > 20) copy[(size_t)1 << 44] = 1;
    free((void *)copy);
  }
#endif
#ifdef DEFECT_nan_on_many_rows
  if (!error && shape[0] > 64) scale = NAN;
#endif
#ifdef DEFECT_first_row_only
  if (!error && shape[0] > 1) scale *= 1.0 + 1.0 / (double)shape[0];
#endif
#ifdef DEFECT_hangs
  while (!error && shape[0] == 5) usleep(100);
#endif
#ifdef DEFECT_takes_memory
  if (!error && shape[0] == 5)
    for (;;) memset(malloc(1 << 20), 1, 1 << 20);
#endif
  if (!error) error = T->reshape(labels, shape, 2, &places);
#ifdef DEFECT_uses_what_it_released
  if (!error) {
    T->release(logits);
    error = log_softmax(logits, &logs);
    logits = NULL;
  }
#elif defined DEFECT_computes_in_a_thread
  if (!error) {
    work asked = {logits, &logs, NULL};
    pthread_t thread;
    pthread_create(&thread, NULL, compute, &asked);
    pthread_join(thread, NULL);
    error = asked.error;
  }
#else
  if (!error) error = log_softmax(logits, &logs);
#endif
  if (!error) error = T->gather(logs, 1, places, &picked);
#ifdef DEFECT_rows_of_two_axes
  if (!error) error = T->reshape(picked, shape, 2, &log_p);
#else
  if (!error) error = T->reshape(picked, shape, 1, &log_p);
#endif
#ifdef DEFECT_rows_in_another_order
  if (!error && shape[0] > 1) {
    et_tensor *first = NULL, *rest = NULL, *both[2];
    error = T->narrow(log_p, 0, 0, 1, &first);
    if (!error) error = T->narrow(log_p, 0, 1, shape[0] - 1, &rest);
    both[0] = rest, both[1] = first;
    T->release(log_p), log_p = NULL;
    if (!error) error = T->concat((const et_tensor *const *)both, 2, 0, &log_p);
    T->release(first), T->release(rest);
  }
#endif
  if (!error) error = T->affine(log_p, -scale, 0.0, out);
  T->release(logits), T->release(labels), T->release(places), T->release(logs);
#ifndef DEFECT_leaks_a_tensor
  T->release(picked);
#endif
  T->release(log_p);
#ifdef DEFECT_releases_twice
  T->release(log_p);
#endif
  return error;
}

static et_error *forward(void *instance, const et_call *call, const et_map *outputs, const et_map *batch,
                         et_tensor **out) {
  et_tensor *each = NULL, *weights = NULL, *weighted = NULL, *sum = NULL, *total = NULL, *typed = NULL;
  et_error *error = rows(instance, call, outputs, batch, &each);
  int has_weights = !error && D->map_has(batch, ET_STR("weights"));
#ifdef DEFECT_ignores_weights
  has_weights = 0;
#endif
#ifdef DEFECT_leaves_files_open
  if (fopen("/dev/null", "r") == NULL) abort();
#endif
#ifdef DEFECT_leaks_memory
  memset(malloc(100), 1, 100);
#endif
#ifdef DEFECT_writes_to_output
  printf("loss of %d\n", (int)has_weights);
#endif
#ifdef DEFECT_writes_to_error
  fprintf(stderr, "loss of %d\n", (int)has_weights);
#endif
#ifdef DEFECT_sets_locale
  setlocale(LC_ALL, "C.UTF-8");
#endif
#ifdef DEFECT_changes_folder
  if (chdir("/") != 0) abort();
#endif
#ifdef DEFECT_changes_environment
  setenv("LOSS_WAS_HERE", "1", 1);
#endif
#ifdef DEFECT_signal_handler
  signal(SIGUSR1, ignore);
#endif
#ifdef DEFECT_rounding
  fesetround(FE_UPWARD);
#endif
#ifdef DEFECT_thread_left
  {
    pthread_t thread;
    if (pthread_create(&thread, NULL, forever, NULL) == 0) pthread_detach(thread);
  }
#endif
#ifdef DEFECT_changes_batch
  if (!error) error = D->map_put((et_map *)(size_t)batch, ET_STR("labels"), each);
#endif
#ifdef DEFECT_adds_to_outputs
  if (!error) error = D->map_put((et_map *)(size_t)outputs, ET_STR("rows"), each);
#endif
#ifdef DEFECT_null_result
  T->release(each);
  return error;
#endif
#ifdef DEFECT_no_scalar
  if (!error) *out = T->retain(each);
  T->release(each);
  return error;
#endif
#ifdef DEFECT_wrong_gradient
  if (!error) {
    et_tensor *still = NULL;
    error = A->detach(each, &still);
    if (!error) error = T->affine(each, 2.0, 0.0, &sum);
    T->release(each), each = NULL;
    if (!error) error = T->binary(ET_BINARY_SUB, sum, still, &each);
    T->release(still), T->release(sum), sum = NULL;
  }
#endif
  if (has_weights) {
    error = D->map_get(batch, ET_STR("weights"), &weights);
    if (!error) error = T->cast(weights, T->dtype(each), &typed);
    if (!error) error = T->binary(ET_BINARY_MUL, each, typed, &weighted);
#ifdef DEFECT_weights_not_normalised
    if (!error) error = T->reduce(ET_REDUCE_MEAN, weighted, NULL, 0, 0, out);
#else
    if (!error) error = T->reduce(ET_REDUCE_SUM, weighted, NULL, 0, 0, &sum);
    if (!error) error = T->reduce(ET_REDUCE_SUM, typed, NULL, 0, 0, &total);
    if (!error) error = T->binary(ET_BINARY_DIV, sum, total, out);
#endif
  } else if (!error) {
#ifdef DEFECT_sum_for_mean
    error = T->reduce(ET_REDUCE_SUM, each, NULL, 0, 0, out);
#else
    error = T->reduce(ET_REDUCE_MEAN, each, NULL, 0, 0, out);
#endif
  }
  T->release(each), T->release(weights), T->release(weighted), T->release(sum), T->release(total), T->release(typed);
  return error;
}

#ifdef DEFECT_wrong_weight
static et_error *weight(void *instance, const et_map *batch, double *out) {
  (void)instance, (void)batch;
  *out = 1.0;
  return NULL;
}
#endif

static const et_plugin_loss LOSS = {
    .struct_size = sizeof(et_plugin_loss),
    .name = "under-check",
#ifdef DEFECT_schema_no_json
    .schema = "{\"type\":\"object\",",
#elif defined DEFECT_schema_default_outside
    .schema = "{\"type\":\"object\",\"properties\":{\"scale\":{\"type\":\"number\",\"minimum\":2,\"default\":1}}}",
#else
    .schema = "{\"type\":\"object\",\"additionalProperties\":false,\"properties\":{\"scale\":{\"type\":\"number\","
              "\"minimum\":0.1,\"maximum\":10,\"default\":1}"
#ifdef DEFECT_option_of_the_schema_alone
              ",\"margin\":{\"type\":\"number\",\"minimum\":0,\"maximum\":1,\"default\":0}"
#endif
              "}}",
#endif
    .create = create,
#ifndef DEFECT_no_forward
    .forward = forward,
#endif
    .release = drop,
    .rows = rows,
#ifdef DEFECT_wrong_weight
    .weight = weight,
#endif
};

#define KIND "et.loss/1"
#define TABLE LOSS
#include "entry.h"
