/* The app `under-check`: two classes by the mean of the tokens. As it stands it keeps every promise of `et.app/1`;
 * with -DDEFECT_NAME it breaks one. */
#define _GNU_SOURCE
#include "easytransfer_plugin.h"

#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const et_host *host;
static const et_host_tensor *T;
static const et_host_nn *N;
static const et_host_data *D;
static const et_host_tokenizer *K;
static const et_host_config *C;
static const et_host_param *P;
static const et_host_net *X;

static et_error *init(const et_host *given) {
  host = given;
  T = (const et_host_tensor *)host->get_interface(host, "et.tensor/1");
  N = (const et_host_nn *)host->get_interface(host, "et.nn/1");
  D = (const et_host_data *)host->get_interface(host, "et.data/1");
  K = (const et_host_tokenizer *)host->get_interface(host, "et.tokenizer/1");
  C = (const et_host_config *)host->get_interface(host, "et.config/1");
  P = (const et_host_param *)host->get_interface(host, "et.param/1");
  X = (const et_host_net *)host->get_interface(host, "et.net/1");
  if (ET_HAS(D, rows_get) && ET_HAS(P, scope_param) && ET_HAS(X, run) && ET_HAS(N, pool)) return NULL;
  return host->error_new(ET_ERR_UNIMPLEMENTED, ET_STR("under-check needs a newer host"));
}

enum { MOST = 8, LONG = 16 };

/* The classes as they were seen, and the head. */
typedef struct {
  size_t len;
  char labels[MOST][LONG];
  et_param *weight;
  int64_t rows_made;
} app;

static et_error *put(const char *json, et_buffer **out) { return D->buffer_new(json, strlen(json), out); }

static et_error *refuse(const char *role, const char *expected) {
#ifdef DEFECT_no_details
  (void)role;
  {
    et_str message;
    message.ptr = expected, message.len = strlen(expected);
    return host->error_new(ET_ERR_BAD_INPUT, message);
  }
#else
  char details[128];
  et_str text;
  snprintf(details, sizeof details, "{\"role\":\"%s\",\"expected\":\"%s\",\"found\":\"something else\"}", role, expected);
  text.ptr = details, text.len = strlen(details);
  return host->error_new_detailed(ET_ERR_BAD_INPUT, ET_STR("a value cannot be used"), text);
#endif
}

static void drop(void *self) {
  if (self != NULL) P->release(((app *)self)->weight);
  free(self);
}

static et_error *learn(app *self, et_str label) {
  size_t i;
  if (label.len == 0 || label.len >= LONG) return refuse("label", "a class of up to 15 letters");
  for (i = 0; i < label.len; i += 1)
    if (label.ptr[i] < ' ' || label.ptr[i] > '~' || label.ptr[i] == '"' || label.ptr[i] == '\\')
      return refuse("label", "a class of plain letters");
  for (i = 0; i < self->len; i += 1)
    if (strlen(self->labels[i]) == label.len && memcmp(self->labels[i], label.ptr, label.len) == 0) return NULL;
  if (self->len == MOST) return refuse("label", "one of up to 8 classes");
  memcpy(self->labels[self->len], label.ptr, label.len);
  self->labels[self->len++][label.len] = '\0';
  return NULL;
}

static et_error *create(et_str options, et_str state, void **out) {
  app *self = (app *)calloc(1, sizeof(app));
  et_config *config = NULL;
  et_error *error = NULL;
  (void)options;
#ifndef DEFECT_state_not_read
  if (state.len > 0) error = C->parse(state, &config);
  if (!error && state.len > 0 && C->has(config, ET_STR("labels"))) {
    size_t len = 0, i;
    error = C->len_at(config, ET_STR("labels"), &len);
    for (i = 0; i < len && !error; i += 1) {
      char key[32];
      et_str at, label = {NULL, 0};
      snprintf(key, sizeof key, "labels.%u", (unsigned)i);
      at.ptr = key, at.len = strlen(key);
      error = C->str_at(config, at, &label);
      if (!error) error = learn(self, label);
    }
  }
  C->release(config);
#else
  (void)state, (void)config;
#endif
  if (error) {
    free(self);
    return error;
  }
  *out = self;
  return NULL;
}

static et_error *columns(void *self, et_buffer **out) {
  (void)self;
#ifdef VARIANT_lists
  return put("[{\"role\":\"tokens\",\"names\":[\"tokens\"],\"required\":true,\"target\":false},"
             "{\"role\":\"label\",\"names\":[\"label\"],\"required\":true,\"target\":true}]",
             out);
#endif
#ifdef DEFECT_columns_without_names
  return put("[{\"role\":\"text\",\"names\":[],\"required\":true,\"target\":false}]", out);
#else
  return put("[{\"role\":\"text\",\"names\":[\"text\"],\"required\":true,\"target\":false},"
             "{\"role\":\"label\",\"names\":[\"label\"],\"required\":true,\"target\":true}]",
             out);
#endif
}

/* The text of a role, which lives as long as the document. */
static et_error *text_of(const et_config *record, const char *role, et_str *out) {
  et_str key;
  et_error *error;
  key.ptr = role, key.len = strlen(role);
  error = C->str_at(record, key, out);
  if (!error) return NULL;
  host->error_release(error);
  return refuse(role, "a text");
}

/* The text of a record: a column of text, or the words of a column of lists. */
static et_error *words_of(const et_config *record, char *text, size_t size, et_str *out) {
#ifdef VARIANT_lists
  size_t len = 0, i, used = 0;
  et_error *error = C->len_at(record, ET_STR("tokens"), &len);
  for (i = 0; i < len && !error; i += 1) {
    char key[32];
    et_str at, word = {NULL, 0};
    snprintf(key, sizeof key, "tokens.%u", (unsigned)i);
    at.ptr = key, at.len = strlen(key);
    error = C->str_at(record, at, &word);
    if (error || used + word.len + 1 >= size) break;
    memcpy(text + used, word.ptr, word.len);
    used += word.len;
    text[used++] = ' ';
  }
  out->ptr = text, out->len = used;
  if (!error) return NULL;
  host->error_release(error);
  return refuse("tokens", "a list of words");
#else
  et_error *error = text_of(record, "text", out);
#ifdef DEFECT_static_buffer
  static char shared[1 << 16];
  if (!error && out->len < sizeof shared) {
    memcpy(shared, out->ptr, out->len);
    usleep(100);
    out->ptr = shared;
  }
#endif
  (void)text, (void)size;
  return error;
#endif
}

static et_error *observe(void *self, et_str record) {
  et_config *values = NULL;
  et_str label = {NULL, 0}, text = {NULL, 0};
  char buffer[4096];
  et_error *error = C->parse(record, &values);
  (void)buffer;
  if (!error) error = words_of(values, buffer, sizeof buffer, &text);
  if (!error) error = text_of(values, "label", &label);
  if (!error) error = learn((app *)self, label);
  (void)text;
  C->release(values);
  return error;
}

static et_error *observed(void *self) {
  (void)self;
  return NULL;
}

static void labels_of(const app *self, char *json) {
  size_t i;
  strcpy(json, "[");
  for (i = 0; i < self->len; i += 1) {
    if (i > 0) strcat(json, ",");
    strcat(json, "\""), strcat(json, self->labels[i]), strcat(json, "\"");
  }
  strcat(json, "]");
}

static et_error *state(void *self, et_buffer **out) {
  char labels[512], json[600];
#ifdef DEFECT_state_is_empty
  (void)self, (void)labels, (void)json;
  return put("{}", out);
#else
  labels_of((const app *)self, labels);
  snprintf(json, sizeof json, "{\"labels\":%s}", labels);
  return put(json, out);
#endif
}

static et_error *describe(void *self, et_buffer **out) {
  char labels[512], json[700];
  labels_of((const app *)self, labels);
  snprintf(json, sizeof json,
           "{\"loss\":{\"name\":\"cross-entropy\",\"options\":{}},\"metrics\":[],\"best\":\"loss\",\"best_is\":\"%s\","
           "\"labels\":%s,\"longest\":%d%s}",
#ifdef DEFECT_best_is_nothing
           "lowest",
#else
           "min",
#endif
           labels,
#ifdef DEFECT_longer_than_said
           2,
#else
           32,
#endif
#ifdef DEFECT_no_finish
           ",\"finish\":true"
#else
           ""
#endif
  );
  return put(json, out);
}

static et_error *features(void *instance, et_context *context, const et_tokenizer *tokenizer, et_str record,
                          et_rows *rows) {
  app *self = (app *)instance;
  const et_encode_options options = {sizeof(et_encode_options), 32, 1, 0};
  et_config *values = NULL;
  et_encoding *encoding = NULL;
  et_str text = {NULL, 0}, label = {NULL, 0};
  et_row *row = NULL;
  char buffer[4096];
  et_error *error = C->parse(record, &values);
  (void)context;
#ifdef DEFECT_crash_without_text
  if (!error && !C->has(values, ET_STR("text"))) *(volatile int *)8 = 1;
#endif
  if (!error) error = words_of(values, buffer, sizeof buffer, &text);
  if (!error) error = K->encode(tokenizer, text, NULL, &options, &encoding);
#ifndef DEFECT_no_row
  if (!error) error = D->rows_add(rows, &row);
#endif
  if (row != NULL && !error)
    error = D->row_put_tokens(row, ET_STR("ids"), K->encoding_ids(encoding), K->encoding_len(encoding));
#ifdef DEFECT_counts_records
  self->rows_made += 1;
  if (row != NULL && !error) error = D->row_put_i64(row, ET_STR("number"), &self->rows_made, 1);
#endif
  if (row != NULL && !error && C->has(values, ET_STR("label"))) {
    int64_t found = -1;
    size_t i;
    error = text_of(values, "label", &label);
    for (i = 0; i < self->len && !error; i += 1)
      if (strlen(self->labels[i]) == label.len && memcmp(self->labels[i], label.ptr, label.len) == 0) found = (int64_t)i;
    if (!error && found < 0) error = refuse("label", "a class that was seen");
    if (!error) error = D->row_put_i64(row, ET_STR("labels"), &found, 1);
  }
  K->encoding_release(encoding);
  C->release(values);
  return error;
}

static et_error *build(void *self, const et_scope *scope, et_str model) {
  const et_init normal = {ET_INIT_NORMAL, 0, 0.0, 0.5};
  et_config *values = NULL;
  int64_t width = 0;
  size_t shape[2] = {2, 0};
  et_error *error = C->parse(model, &values);
  if (!error) error = C->i64_at(values, ET_STR("hidden_size"), &width);
  shape[1] = (size_t)width;
  P->release(((app *)self)->weight), ((app *)self)->weight = NULL;
  if (!error) error = P->scope_param(scope, ET_STR("head"), shape, 2, &normal, &((app *)self)->weight);
  C->release(values);
  return error;
}

#ifdef DEFECT_net_from_thread
typedef struct {
  et_net *net;
  const et_call *call;
  const et_map *batch;
  et_map *outputs;
  et_error *error;
} asked;

static void *ask(void *given) {
  asked *a = (asked *)given;
  a->error = X->run(a->net, ET_STR(""), a->call, a->batch, a->outputs);
  return NULL;
}
#endif

static et_error *forward(void *self, const et_call *call, et_net *net, const et_map *batch, et_map *outputs) {
  et_tensor *last = NULL, *starts = NULL, *mean = NULL, *weight = NULL, *logits = NULL;
  et_error *error;
#ifdef DEFECT_net_from_thread
  asked a = {net, call, batch, outputs, NULL};
  pthread_t thread;
  pthread_create(&thread, NULL, ask, &a);
  pthread_join(thread, NULL);
  error = a.error;
#else
  error = X->run(net, ET_STR(""), call, batch, outputs);
#endif
  if (!error) error = D->map_get(outputs, ET_STR("last"), &last);
  if (!error) error = D->map_get(batch, ET_STR("starts"), &starts);
#ifdef DEFECT_crash_without_rows
  if (!error && T->len(starts) < 2) abort();
#endif
#ifdef DEFECT_mean_of_all
  if (!error) {
    /* The mean over all tokens of the batch, for every row. */
    const int64_t axis = 0;
    size_t shape[2] = {T->len(starts) - 1, T->shape(last)[1]};
    et_tensor *one = NULL;
    error = T->reduce(ET_REDUCE_MEAN, last, &axis, 1, 1, &one);
    if (!error) error = T->broadcast_to(one, shape, 2, &mean);
    T->release(one);
  }
#else
  if (!error) error = N->pool(last, starts, ET_POOL_MEAN, &mean);
#endif
  if (!error) error = P->tensor(((app *)self)->weight, &weight);
  if (!error) error = N->linear(mean, weight, NULL, ET_ACTIVATION_NONE, &logits);
  if (!error) error = D->map_put(outputs, ET_STR("logits"), logits);
#ifdef DEFECT_changes_batch
  if (!error) D->map_remove((et_map *)(size_t)batch, ET_STR("labels"));
  if (!error) error = D->map_put((et_map *)(size_t)batch, ET_STR("pooled"), mean);
#endif
  T->release(last), T->release(starts), T->release(mean), T->release(weight);
#ifndef DEFECT_leaks_logits
  T->release(logits);
#endif
  return error;
}

static et_error *decode(void *self, const et_map *batch, const et_map *outputs, et_buffer **out) {
  static char parts[1 << 16];
  char part[96];
  float *values = NULL;
  et_tensor *logits = NULL;
  size_t rows = 0, row;
  et_error *error = D->map_get(outputs, ET_STR("logits"), &logits);
  const app *app_self = (const app *)self;
  (void)batch;
  if (error) return error;
  rows = T->shape(logits)[0];
  values = (float *)malloc((rows + 1) * 2 * sizeof(float));
  error = T->read(logits, values, rows * 2 * sizeof(float));
  T->release(logits);
#ifdef DEFECT_too_few_parts
  rows -= rows > 3;
#endif
  strcpy(parts, "[");
  for (row = 0; row < rows && row < 500 && !error; row += 1) {
    size_t from = row;
#ifdef DEFECT_parts_reversed
    from = rows - 1 - row;
#endif
    size_t best = values[2 * from + 1] > values[2 * from] ? 1 : 0;
    const char *label = best < app_self->len ? app_self->labels[best] : "none";
#ifdef DEFECT_naive_softmax
    snprintf(part, sizeof part, "%s{\"label\":\"%s\",\"score\":%.6g}", row > 0 ? "," : "", label,
             exp(values[2 * from + best]) / (exp(values[2 * from]) + exp(values[2 * from + 1])));
#elif defined DEFECT_parts_are_texts
    snprintf(part, sizeof part, "%s\"%s\"", row > 0 ? "," : "", label);
#else
    snprintf(part, sizeof part, "%s{\"label\":\"%s\",\"score\":%.6g}", row > 0 ? "," : "", label,
             (double)values[2 * from + best]);
#endif
    strcat(parts, part);
  }
  strcat(parts, "]");
  free(values);
  if (error) return error;
#ifdef DEFECT_null_result
  return NULL;
#endif
  return put(parts, out);
}

static const et_plugin_app APP = {
    .struct_size = sizeof(et_plugin_app),
    .name = "under-check",
    .schema = "{\"type\":\"object\",\"properties\":{},\"additionalProperties\":false}",
    .create = create,
    .columns = columns,
    .observe = observe,
    .observed = observed,
    .state = state,
    .describe = describe,
    .features = features,
    .build = build,
    .forward = forward,
    .decode = decode,
    .release = drop,
};

#define KIND "et.app/1"
#define TABLE APP
#include "entry.h"
