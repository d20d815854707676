/*
 * easytransfer.h: EasyTransfer for programs in C and C++.
 *
 * GENERATED from the Rust crate capi by `cargo xtask header`. Do not edit.
 *
 * Link libeasytransfer. C++ authors may prefer easytransfer.hpp, a wrapper over this file.
 *
 * Conventions are those of easytransfer_plugin.h: arguments are borrowed, an out pointer receives
 * one owned reference for the matching release function, release functions accept NULL, functions
 * that can fail return et_error* (NULL for success) and leave every out untouched on error, no
 * panic crosses. Unlike there, text is NUL-terminated UTF-8 here in both directions, except where a
 * type is et_str: for texts and requests of users, which may hold a NUL, and for messages.
 *
 * What a caller passes wrongly is an error, not a crash: NULL, a handle that was released or is of
 * another kind, a text that is not UTF-8, options that make no sense, a count that was negative.
 * Functions without an error answer 0, NULL or NaN then, and release functions leave alone what is
 * no live handle. A handle that was released is recognised for certain until 16384 others were
 * released after it. What cannot be noticed: an array shorter than the count that is said, a text
 * without its NUL, a pointer that is not one (of records, arrays, texts, and of the engine's
 * objects: maps, tensors, errors), and a callback that throws or jumps out.
 *
 * [any-thread] and [one-at-a-time] are as there; calls of several threads on one [one-at-a-time]
 * object wait for each other, and an object that is released during a call goes after it.
 *
 * Plugins are found as easytransfer_plugin.h says: beside the library, so a program needs no
 * ET_PLUGIN_PATH to use those of the installation that it was linked against. A program that is
 * fully static (-static) opens no plugins: loading one is an error that says so.
 *
 * Files of models are read when they are loaded, and not looked at again.
 *
 * A program in seven calls:
 *
 *   et_runtime *runtime = NULL; et_app *app = NULL; et_predictions *answers = NULL;
 *   const char *texts[] = {"a gripping film"};
 *   et_error *error = et_runtime_new(NULL, &runtime);
 *   if (!error) error = et_app_load(runtime, "runs/sst2", &app);
 *   if (!error) error = et_app_predict(app, texts, 1, &answers);
 *   if (error) fprintf(stderr, "%.*s\n", (int)et_error_message(error).len, et_error_message(error).ptr);
 *   else printf("%s\n", et_predictions_label(answers, 0));
 *   et_predictions_release(answers); et_app_release(app); et_runtime_release(runtime);
 *   et_error_release(error);
 *
 * Licensed under the Apache License, Version 2.0.
 */
#ifndef EASYTRANSFER_H
#define EASYTRANSFER_H

#include "easytransfer_plugin.h"

#ifdef __cplusplus
extern "C" {
#endif

/**
 * Everything is set up, and the first step is next.
 */
#define ET_EVENT_START 1

/**
 * A step was made.
 */
#define ET_EVENT_STEP 2

/**
 * The validation data was evaluated; the figures are in the JSON text, under "metrics".
 */
#define ET_EVENT_EVALUATION 3

/**
 * An epoch ended.
 */
#define ET_EVENT_EPOCH 4

/**
 * A checkpoint was written; its path is in the JSON text.
 */
#define ET_EVENT_CHECKPOINT 5

/**
 * Something that the caller may not expect: "message" in the JSON text. The log has it too.
 */
#define ET_EVENT_WARNING 6

/**
 * Records were predicted, evaluated or turned into vectors.
 */
#define ET_EVENT_ROWS 7

/**
 * A trained bundle.
 */
typedef struct et_app et_app;

/**
 * An encoder that turns texts into vectors.
 */
typedef struct et_embedder et_embedder;

/**
 * A loss.
 */
typedef struct et_loss et_loss;

/**
 * A model with its parameters.
 */
typedef struct et_model et_model;

/**
 * An optimizer for the parameters of one model.
 */
typedef struct et_optimizer et_optimizer;

/**
 * Answers of an app, one row per text or record.
 */
typedef struct et_predictions et_predictions;

/**
 * One engine and the plugins found for it.
 */
typedef struct et_runtime et_runtime;

/**
 * A text that belongs to the caller.
 */
typedef struct et_text et_text;

/**
 * Something that happened. Borrowed for the call of `et_on_event`. Later versions append members. since 0.2
 */
typedef struct et_event {
  /**
   * Bytes of this structure.
   */
  size_t struct_size;
  /**
   * One of the ET_EVENT_ constants; there may be more in later versions.
   */
  int32_t kind;
  /**
   * Steps done; 0 for events of work on files.
   */
  uint64_t step;
  /**
   * Steps of the whole run, 0 where that is not said.
   */
  uint64_t total_steps;
  /**
   * Loss: of a step, or of an evaluation; NaN for all other events.
   */
  double loss;
  /**
   * Learning rate of a step; NaN for all other events.
   */
  double lr;
  /**
   * Rows done (ET_EVENT_ROWS), or epochs done (ET_EVENT_EPOCH).
   */
  uint64_t done;
  /**
   * Rows or epochs in all; 0 where that is not known.
   */
  uint64_t total;
  /**
   * All of it as the JSON text of an object, NUL-terminated: {"event": "step", "step": 1, "total_steps": 30, "loss":
   * 0.7, "lr": 5e-5}, {"event": "evaluation", "step": 10, "metrics": {"accuracy": 0.9, ..}, "is_best": true},
   * {"event": "checkpoint", "step": 10, "path": ".."} and so on.
   */
  et_str json;
} et_event;

/**
 * Called for each event, on the thread that made the call. Returns 0 to end the work, which is then reported as
 * CANCELLED; everything else goes on. It must neither throw nor `longjmp` out. [callback-thread] since 0.2
 */
typedef int32_t (*et_on_event)(void *user, const struct et_event *event);

/**
 * Gets a message: its level (an ET_LOG_ constant), the name of the writer ("engine", "train", the id of a plugin) and
 * the text, both borrowed for the call. Called on the thread that has something to say, so on several at once; it must
 * not wait for another thread of the library's, and neither throw nor `longjmp` out. What the library is asked to do
 * from inside of it logs to standard error. [any-thread] since 0.2
 */
typedef void (*et_log_callback)(void *user, int32_t level, et_str target, et_str message);

/**
 * Loads a trained bundle. `*out` is for `et_app_release`. Errors: BAD_INPUT naming the file and what is wrong with
 * it. [any-thread] since 0.1
 */
et_error *et_app_load(const struct et_runtime *runtime,
                      const char *directory,
                      struct et_app **out);

/**
 * Loads a trained bundle that answers in another way than usual. `options` is JSON, or NULL for the defaults:
 * {"precision": "f32" | "bf16" | "int8"}. `*out` is for `et_app_release`. Errors: BAD_INPUT naming the file or key.
 * [any-thread] since 0.1
 */
et_error *et_app_load_with(const struct et_runtime *runtime,
                           const char *directory,
                           const char *options,
                           struct et_app **out);

/**
 * Gives an app back. Accepts NULL. [any-thread] since 0.1
 */
void et_app_release(struct et_app *app);

/**
 * Number of classes; 0 for NULL and for apps without classes. [any-thread] since 0.1
 */
size_t et_app_labels_len(const struct et_app *app);

/**
 * Name of class `index`, valid while the app lives; NULL past the end. [any-thread] since 0.1
 */
const char *et_app_label(const struct et_app *app, size_t index);

/**
 * Answers `texts_len` texts, which are borrowed for the call. `*out` is for `et_predictions_release`; it does not
 * need the app any more. Errors: BAD_INPUT for text that is not UTF-8, naming its index, and for an app that needs
 * more than a text. [any-thread] since 0.1
 */
et_error *et_app_predict(const struct et_app *app,
                         const char *const *texts,
                         size_t texts_len,
                         struct et_predictions **out);

/**
 * As `et_app_predict`, for texts with their lengths, which may hold NULs. [any-thread] since 0.2
 */
et_error *et_app_predict_texts(const struct et_app *app,
                               const et_str *texts,
                               size_t texts_len,
                               struct et_predictions **out);

/**
 * Answers `records_len` records, each the JSON text of an object from role to value, for instance {"question": ..,
 * "context": ..}, or of a string, which is a text alone. `*out` is as that of `et_app_predict`. Errors: BAD_INPUT
 * naming the index of a record and what is wrong with it. [any-thread] since 0.2
 */
et_error *et_app_predict_records(const struct et_app *app,
                                 const et_str *records,
                                 size_t records_len,
                                 struct et_predictions **out);

/**
 * Answers a JSON text: an object like {"text": ".."}, a string, or an array of them; `*out` is one object or an
 * array, for `et_text_release`. Errors: BAD_INPUT saying what is wrong with the request. [any-thread] since 0.1
 */
et_error *et_app_predict_json(const struct et_app *app,
                              const char *request,
                              struct et_text **out);

/**
 * Figures on labelled data. `options` is JSON: {"data": "file" | [records], "report": "file", "columns": {"text":
 * "sentence"}, "format": "auto" | "tsv" | "csv" | "jsonl" | "text", "schema": "..", "on_bad_row": "stop" | "skip",
 * "metrics": ["name"]}, of which data is required; records are objects like {"text": "..", "label": ".."}, report is
 * an HTML page that is written, and metrics are of any plugin, beside those of the app. `on_event` is told of the
 * rows that are done (ET_EVENT_ROWS) and may end it; it may be NULL; `user` is handed to it. `*out` is a JSON object
 * with "rows", "skipped" and "metrics", for `et_text_release`. Errors: BAD_INPUT naming file and line, record or key;
 * CANCELLED, without a page. [any-thread] since 0.2
 */
et_error *et_app_evaluate(struct et_app *app,
                          const char *options,
                          et_on_event on_event,
                          void *user,
                          struct et_text **out);

/**
 * Predictions for data, written to a file. `options` is JSON: as for `et_app_evaluate` without report, and "output":
 * "file" (its name ends in .tsv, .csv or .jsonl, or "output_format" says which), which is required too. `on_event` is
 * told of the rows that are done (ET_EVENT_ROWS) and may end it; it may be NULL; `user` is handed to it. `*out` is a
 * JSON object with "rows", for `et_text_release`. Errors: BAD_INPUT naming file and line, record or key; CANCELLED;
 * nothing of the output remains. [any-thread] since 0.2
 */
et_error *et_app_predict_file(struct et_app *app,
                              const char *options,
                              et_on_event on_event,
                              void *user,
                              struct et_text **out);

/**
 * As `et_app_predict_json`, for a text with its length, of which nothing is left out: a NUL in it is an error, since
 * JSON escapes it. [any-thread] since 0.2
 */
et_error *et_app_predict_request(const struct et_app *app,
                                 et_str request,
                                 struct et_text **out);

/**
 * Number of rows; 0 for NULL. [any-thread] since 0.1
 */
size_t et_predictions_len(const struct et_predictions *predictions);

/**
 * Number of classes; 0 for NULL and for apps without classes. [any-thread] since 0.1
 */
size_t et_predictions_classes_len(const struct et_predictions *predictions);

/**
 * Name of class `index`, valid while the predictions live; NULL past the end. [any-thread] since 0.1
 */
const char *et_predictions_class(const struct et_predictions *predictions,
                                 size_t index);

/**
 * The whole answer in a row as the JSON text of an object, with whatever the app says ({"label": ..}, {"answer": ..,
 * "start": ..}, {"text": ..}). NUL-terminated, valid while the predictions live; NULL and 0 past the end. The text is
 * made when it is asked for first. [any-thread] since 0.2
 */
et_str et_predictions_answer(const struct et_predictions *predictions,
                             size_t index);

/**
 * The characters of `et_predictions_answer` alone. [any-thread] since 0.1
 */
const char *et_predictions_json(const struct et_predictions *predictions, size_t index);

/**
 * The label in a row, valid while the predictions live: the most probable class; with several labels all of them,
 * joined by commas, and "" where none of them was given. NULL where the app says no label (numbers, spans, texts:
 * `et_predictions_answer` has what it says), and past the end. [any-thread] since 0.1
 */
const char *et_predictions_label(const struct et_predictions *predictions,
                                 size_t index);

/**
 * The score in a row: the label's probability, that of a span, or the predicted number; NaN where the app says none
 * of these, and past the end. [any-thread] since 0.1
 */
float et_predictions_score(const struct et_predictions *predictions,
                           size_t index);

/**
 * Probability of class `class_index` in a row; NaN where the app says none, and past the end. [any-thread] since 0.1
 */
float et_predictions_probability(const struct et_predictions *predictions,
                                 size_t index,
                                 size_t class_index);

/**
 * Gives predictions back. Accepts NULL. [any-thread] since 0.1
 */
void et_predictions_release(struct et_predictions *predictions);

/**
 * Loads an encoder. `options` is JSON, or NULL for what the directory says: {"pooling": "mean" | "cls" | "max" |
 * "mean_sqrt_len_tokens" | "weightedmean" | "lasttoken" | "pooled", "normalize": true, "max_length": 128, "prompt":
 * "query: ", "prompt_name": "query", "precision": "f32" | "bf16" | "int8"}. `*out` is for `et_embedder_release`.
 * Errors: BAD_INPUT naming the file or key. [any-thread] since 0.1
 */
et_error *et_embedder_load(const struct et_runtime *runtime,
                           const char *directory,
                           const char *options,
                           struct et_embedder **out);

/**
 * Number of values of a vector; 0 for NULL. [any-thread] since 0.1
 */
size_t et_embedder_width(const struct et_embedder *embedder);

/**
 * Writes the vectors of `texts_len` texts to `out`, row-major [texts_len, width]; `out_len` is the number of values
 * that `out` has room for, exactly texts_len * width; without texts `out` may be NULL. Errors: SHAPE when it is not.
 * [any-thread] since 0.1
 */
et_error *et_embedder_embed(const struct et_embedder *embedder,
                            const char *const *texts,
                            size_t texts_len,
                            float *out,
                            size_t out_len);

/**
 * As `et_embedder_embed`, for texts with their lengths, which may hold NULs. [any-thread] since 0.2
 */
et_error *et_embedder_embed_texts(const struct et_embedder *embedder,
                                  const et_str *texts,
                                  size_t texts_len,
                                  float *out,
                                  size_t out_len);

/**
 * Vectors of data, written to a file: a NumPy array of float32 [texts, width] if its name ends in .npy, otherwise JSON
 * Lines. `options` is JSON: {"data": "file" | [records], "output": "file", "columns": {"text": "sentence"}, "format":
 * "auto" | "tsv" | "csv" | "jsonl" | "text", "schema": "..", "on_bad_row": "stop" | "skip"}, of which data and output
 * are required. `on_event` is told of the rows that are done (ET_EVENT_ROWS) and may end it; it may be NULL; `user` is
 * handed to it. `*out` is a JSON object with "rows", for `et_text_release`. Errors: BAD_INPUT naming file and line,
 * record or key; CANCELLED; nothing of the output remains. [any-thread] since 0.2
 */
et_error *et_embedder_embed_file(struct et_embedder *embedder,
                                 const char *options,
                                 et_on_event on_event,
                                 void *user,
                                 struct et_text **out);

/**
 * Gives an embedder back. Accepts NULL. [any-thread] since 0.1
 */
void et_embedder_release(struct et_embedder *embedder);

/**
 * Code of an error, one of the ET_ERR_ constants; 0 for NULL. Also for errors of the tables. [any-thread] since 0.1
 */
int32_t et_error_code(const et_error *error);

/**
 * Message of an error, valid until the error is released; empty for NULL. Not NUL-terminated. [any-thread] since 0.1
 */
et_str et_error_message(const et_error *error);

/**
 * Gives an error back. Accepts NULL. [any-thread] since 0.1
 */
void et_error_release(et_error *error);

/**
 * Trains an app and writes its bundle. `options` is JSON: {"app": "text-classify", "encoder": "dir", "train": "file" |
 * [records], "valid": "file" | [records], "output": "dir", "config": {"epochs": 3, "lr": 5e-5, ..}, "from_scratch":
 * false, "allow_missing": false, "columns": {"text": "sentence"}, "valid_columns": {}, "format": "auto" | "tsv" | "csv"
 * | "jsonl" | "text", "schema": "content:str:1,label:str:1", "on_bad_row": "stop" | "skip", "resume": false,
 * "overwrite": false, "progress": "silent" | "plain" | "auto"}, of which train and output are required. Records are
 * objects like {"text": "..", "label": ".."}; a run over them and one over a file of JSON Lines with them give the
 * same bytes. Without encoder the model is what "config": {"encoder": {"model_type": ..}} says,
 * from scratch. What is in the output directory already is kept: `resume` goes on from its checkpoint, `overwrite`
 * replaces its bundle, else the call fails; so does a second run into a directory while the first one is under way.
 * `on_event` is told of everything that happens and may end the run; it may be NULL; `user` is handed to it. A run
 * ends early when `on_event` says so or `et_runtime_cancel` is called, which is looked at between the parts of setting
 * up, while data is read and turned into features, after every step, and between the batches of an evaluation. Before
 * the first step that leaves an output directory as it was, but for parts of a directory that had to be made; from
 * then on a checkpoint, from which `resume` goes on to the same result (an evaluation that was broken off is made
 * again). `*out` is a JSON object with "metrics", "best_step", "steps", "mean_loss", "skipped_rows", "seconds",
 * "step_seconds" and "tokens", for `et_text_release`; `out` may be NULL. Errors: BAD_INPUT
 * naming file and line, option or key; CANCELLED. [any-thread] since 0.1
 */
et_error *et_fit(const struct et_runtime *runtime,
                 const char *options,
                 et_on_event on_event,
                 void *user,
                 struct et_text **out);

/**
 * Sends the messages of the whole process to `callback`, which gets `user`; NULL restores the default, one line each
 * to standard error. When this returns, the callback of before is not called any more, so what its `user` points to
 * may go. Errors: FAILED_PRECONDITION from inside a callback. [any-thread] since 0.2
 */
et_error *et_log_to(et_log_callback callback,
                    void *user);

/**
 * Makes a model with random parameters that depend on `seed` and their names alone. `config` is the content of a
 * config.json. `*out` is for `et_model_release`. Errors: BAD_INPUT for an unknown name or a wrong configuration.
 * [any-thread] since 0.1
 */
et_error *et_model_new(const struct et_runtime *runtime,
                       const char *name,
                       const char *config,
                       uint64_t seed,
                       struct et_model **out);

/**
 * Loads weights from a Hugging Face directory. Errors: BAD_INPUT naming file and tensor; every parameter must be
 * there. [one-at-a-time] since 0.1
 */
et_error *et_model_load_weights(struct et_model *model,
                                const char *directory);

/**
 * Writes config.json and model.safetensors into a directory, which is made where there is none; other files in it stay.
 * `et_model_load_weights` and transformers read them. Both files are written aside and take the places of older ones
 * at once. Errors: BAD_INPUT for a file or a trained bundle in its place; the directory is then as it was.
 * [one-at-a-time] since 0.2
 */
et_error *et_model_save(struct et_model *model,
                        const char *directory);

/**
 * The parameters, borrowed: valid while the model lives, not to be released. For et.param/1: list, freeze, read
 * gradients, declare a head. NULL for what is no live model. [one-at-a-time] since 0.1
 */
et_params *et_model_params(struct et_model *model);

/**
 * Runs the model on a batch (made by et.data/1, `batch_from_rows`), with dropout when `training` is not 0. `want` is
 * a set of ET_WANT_ bits. `*out` holds the outputs, for `map_release` of et.data/1. [one-at-a-time] since 0.1
 */
et_error *et_model_forward(struct et_model *model,
                           const et_map *batch,
                           int32_t training,
                           uint32_t want,
                           et_map **out);

/**
 * Gives a model back. Tensors that came from it stay valid. Accepts NULL. [any-thread] since 0.1
 */
void et_model_release(struct et_model *model);

/**
 * Version of the library, for instance "0.1.0"; lives until the process ends. [any-thread] since 0.1
 */
const char *et_version(void);

/**
 * Number of objects of the engine that are alive (tensors, parameters, maps, errors ...); 0 when a program has given
 * everything back. [any-thread] since 0.1
 */
int64_t et_live_handles(void);

/**
 * Starts the engine and reads the manifests of all plugins that can be found; libraries are opened when they are
 * used. `options` is JSON, or NULL for the defaults: {"plugins": ["dir"], "only_these": false, "policy": "any" |
 * "hash-pinned" | "hash-required", "choose": ["loss=my-losses/focal"], "device": "cpu" | "cuda" | "cuda:N" | "auto",
 * "precision": "f32" | "tf32" | "bf16" | "f16", "threads": 4}; the first runtime of a process decides on device and
 * threads for all. "choose" says which plugin is meant where several offer one name. `*out` is for
 * `et_runtime_release`. Errors: BAD_INPUT for options, also for those that differ from the first runtime's.
 * [any-thread] since 0.1
 */
et_error *et_runtime_new(const char *options,
                         struct et_runtime **out);

/**
 * Gives a runtime back. Apps, models and so on that came from it stay valid. Accepts NULL. [any-thread] since 0.1
 */
void et_runtime_release(struct et_runtime *runtime);

/**
 * Asks the runs of `et_fit` that are under way with this runtime to end; each is asked once, and later runs are not.
 * `et_fit` says where they look and what they leave. Returns at once. [any-thread] since 0.2
 */
void et_runtime_cancel(const struct et_runtime *runtime);

/**
 * The engine's tables, the same that plugins get: tensors by hand. Lives until the process ends; NULL for what is no
 * live runtime. [any-thread] since 0.1
 */
const et_host *et_runtime_host(const struct et_runtime *runtime);

/**
 * Loads a plugin by its manifest or its folder. Errors: BAD_INPUT saying what was required and found. [any-thread]
 * since 0.1
 */
et_error *et_runtime_load_plugin(const struct et_runtime *runtime,
                                 const char *path);

/**
 * Registers a plugin that is linked into the program; `record` is complete and lives until the process ends. Errors:
 * BAD_INPUT saying what is wrong with it. [any-thread] since 0.1
 */
et_error *et_runtime_register_plugin(const struct et_runtime *runtime,
                                     const et_plugin_record *record);

/**
 * All plugins as JSON: [{"id": "loss-basic", "version": "0.1.0", "path": "..", "provides": [{"kind": "loss", "name":
 * "mse"}], "description": "..", "problem": null}]. `*out` is for `et_text_release`. [any-thread] since 0.1
 */
et_error *et_runtime_plugins_json(const struct et_runtime *runtime,
                                  struct et_text **out);

/**
 * The characters of a text, NUL-terminated, valid until the text is released; NULL for NULL. [any-thread] since 0.1
 */
const char *et_text_data(const struct et_text *text);

/**
 * Length in bytes without the NUL; 0 for NULL. [any-thread] since 0.1
 */
size_t et_text_len(const struct et_text *text);

/**
 * Gives a text back. Accepts NULL. [any-thread] since 0.1
 */
void et_text_release(struct et_text *text);

/**
 * Makes a loss by name, for instance "cross-entropy". `options` is JSON or NULL. `*out` is for `et_loss_release`.
 * Errors: BAD_INPUT for an unknown name or a wrong option. [any-thread] since 0.1
 */
et_error *et_loss_new(const struct et_runtime *runtime,
                      const char *name,
                      const char *options,
                      struct et_loss **out);

/**
 * The loss of `outputs` ("logits") and `batch` ("labels") as a scalar; `*out` is for `release` of et.tensor/1.
 * [one-at-a-time] since 0.1
 */
et_error *et_loss_forward(struct et_loss *loss,
                          const et_map *outputs,
                          const et_map *batch,
                          et_tensor **out);

/**
 * Gives a loss back. Accepts NULL. [any-thread] since 0.1
 */
void et_loss_release(struct et_loss *loss);

/**
 * Makes an optimizer by name, for instance "adamw", for the parameters of a model, which it seals.
 * `options` is JSON or NULL. `*out` is for `et_optimizer_release`. Errors: BAD_INPUT for an unknown name or a wrong
 * option. [one-at-a-time] since 0.1
 */
et_error *et_optimizer_new(const struct et_runtime *runtime,
                           const char *name,
                           const char *options,
                           struct et_model *model,
                           struct et_optimizer **out);

/**
 * One step of learning rate `lr` with the gradients present, which are forgotten then. `model` is the one that the
 * optimizer was made for. Errors: INVALID_ARGUMENT for another one. [one-at-a-time] since 0.1
 */
et_error *et_optimizer_step(struct et_optimizer *optimizer,
                            struct et_model *model,
                            double lr);

/**
 * Gives an optimizer back, before or after its model. Accepts NULL. [any-thread] since 0.1
 */
void et_optimizer_release(struct et_optimizer *optimizer);

#ifdef __cplusplus
}
#endif

#endif /* EASYTRANSFER_H */
