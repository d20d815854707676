/*
 * easytransfer_plugin.h: the boundary between EasyTransfer and its plugins.
 *
 * GENERATED from the Rust crate sdk/abi by `cargo xtask header`. Do not edit.
 *
 * A plugin is a shared library that exports one function, et_plugin_entry, which returns a
 * pointer to a constant et_plugin_record. The library links nothing of EasyTransfer: it fills
 * tables of function pointers, and gets tables of the host in return. C90 to C17 and C++11 to
 * C++20 read this file; C++ authors may prefer easytransfer_plugin.hpp, which is over it.
 *
 * Conventions, for every table
 * - The first field is struct_size: the number of bytes that the writer filled. Fill it with
 *   sizeof of the table. Use a slot of somebody else's table only if ET_HAS(table, slot) is true;
 *   larger than known is fine, equality is never tested. ET_HAS evaluates `table` more than once.
 * - Tables only grow at the end. A slot never changes meaning, ownership or thread tag; what
 *   breaks gets a new interface id (et.tensor/2) beside the old one.
 * - Arguments are borrowed for the call. An out pointer receives one owned reference, which the
 *   caller gives back with the matching release function. Release functions accept NULL. On error
 *   every out is left untouched.
 * - Functions that can fail return et_error*, NULL for success. Errors are made by the host
 *   (et_host.error_new), so they outlive any plugin; their codes are the ET_ERR_ constants.
 * - Text is UTF-8 as et_str (pointer and length, not NUL-terminated); names and ids of tables are
 *   NUL-terminated char*.
 * - No exception and no panic crosses: each side catches its own and returns an error with
 *   ET_ERR_PANIC.
 * - Thread tags: [any-thread] may be called from any thread at any time; [one-at-a-time] from any
 *   thread, but calls on the same object never overlap; [callback-thread] is called on the thread
 *   that made the outer call.
 * - A library is never unloaded. The host and its tables live until the process ends.
 * - Codes, element types and opcodes are only ever added: treat unknown ones as
 *   ET_ERR_UNIMPLEMENTED.
 *
 * Search path
 * A plugin is found by its manifest, <id>.toml, which names the library and its SHA-256. Manifests
 * are looked for in this order; of two with the same id the first wins, the other is reported:
 *   1. the path that the program or the user gave,
 *   2. the directories of the environment variable ET_PLUGIN_PATH,
 *   3. plugins/ and ../lib/easytransfer/plugins next to the executable,
 *   4. easytransfer/plugins and plugins/ next to libeasytransfer.so, links followed, where the
 *      program uses that,
 *   5. the user's data directory,
 *   6. the system's directory.
 * Never the current directory, unless it was asked for.
 *
 * A plugin, complete: the loss mean((logits - labels)^2), over rows that may have weights. Build it with
 *   cc -shared -fPIC -O2 -o libloss-mine.so loss.c
 *
 *   #include "easytransfer_plugin.h"
 *   static const et_host_tensor *T;
 *   static const et_host_data *D;
 *   static et_error *init(const et_host *host) {
 *     T = (const et_host_tensor *)host->get_interface(host, "et.tensor/1");
 *     D = (const et_host_data *)host->get_interface(host, "et.data/1");
 *     if (ET_HAS(T, reduce) && ET_HAS(D, map_get)) return NULL;
 *     return host->error_new(ET_ERR_UNIMPLEMENTED, ET_STR("need et.tensor/1 and et.data/1"));
 *   }
 *   static et_error *create(et_str options, void **out) { (void)options; *out = NULL; return NULL; }
 *   static et_error *forward(void *self, const et_call *call, const et_map *outputs,
 *                            const et_map *batch, et_tensor **out) {
 *     const int64_t last = -1;
 *     et_tensor *x = NULL, *y = NULL, *z = NULL, *d = NULL, *s = NULL, *rows = NULL;
 *     et_tensor *w = NULL, *product = NULL, *sum = NULL, *total = NULL;
 *     et_error *e = D->map_get(outputs, ET_STR("logits"), &x);
 *     if (!e) e = D->map_get(batch, ET_STR("labels"), &y);
 *     if (!e) e = T->reshape(y, T->shape(x), T->rank(x), &z);
 *     if (!e) e = T->binary(ET_BINARY_SUB, x, z, &d);
 *     if (!e) e = T->unary(ET_UNARY_SQR, d, &s);
 *     if (!e) e = T->reduce(ET_REDUCE_MEAN, s, &last, 1, 0, &rows);
 *     if (!e && D->map_has(batch, ET_STR("weights"))) { // the mean is weighted by them
 *       e = D->map_get(batch, ET_STR("weights"), &w);
 *       if (!e) e = T->binary(ET_BINARY_MUL, rows, w, &product);
 *       if (!e) e = T->reduce(ET_REDUCE_SUM, product, NULL, 0, 0, &sum);
 *       if (!e) e = T->reduce(ET_REDUCE_SUM, w, NULL, 0, 0, &total);
 *       if (!e) e = T->binary(ET_BINARY_DIV, sum, total, out);
 *     } else if (!e) {
 *       e = T->reduce(ET_REDUCE_MEAN, rows, NULL, 0, 0, out);
 *     }
 *     T->release(x); T->release(y); T->release(z); T->release(d); T->release(s);
 *     T->release(rows); T->release(w); T->release(product); T->release(sum); T->release(total);
 *     (void)self; (void)call;
 *     return e;
 *   }
 *   static void drop(void *self) { (void)self; }
 *   static const et_plugin_loss LOSS = {.struct_size = sizeof LOSS, .name = "mine", .schema = "{}",
 *     .create = create, .forward = forward, .release = drop};
 *   static const void *component(const char *kind, size_t index) {
 *     return index == 0 && strcmp(kind, "et.loss/1") == 0 ? &LOSS : NULL;
 *   }
 *   static const et_plugin_record RECORD = {.magic = ET_PLUGIN_MAGIC, .abi_major = ET_ABI_MAJOR,
 *     .abi_minor = ET_ABI_MINOR, .struct_size = sizeof RECORD, .id = "loss-mine",
 *     .version = "0.1.0", .init = init, .component = component};
 *   ET_EXPORT const et_plugin_record *et_plugin_entry(void) { return &RECORD; }
 *
 * (plus #include <string.h> for strcmp). Name the fields of tables, as here: what you leave out is NULL,
 * and tables that grow later do not touch your code. `easytransfer plugin new KIND NAME --language c`
 * starts a loss, metric, operation or strategy; docs/plugin-manifest.md describes the manifest beside the library.
 *
 * Licensed under the Apache License, Version 2.0.
 */
#ifndef EASYTRANSFER_PLUGIN_H
#define EASYTRANSFER_PLUGIN_H

#include <stddef.h>
#include <stdint.h>

/* True if `table` is not NULL and its writer filled `slot`. */
#if defined(__cplusplus)
#define ET_HAS(table, slot)                                                    \
  ((table) != nullptr &&                                                       \
   static_cast<size_t>(reinterpret_cast<const char *>(&(table)->slot + 1) -    \
                       reinterpret_cast<const char *>(table)) <=               \
       (table)->struct_size &&                                                 \
   (table)->slot != nullptr)
#else
#define ET_HAS(table, slot)                                                    \
  ((table) != NULL &&                                                          \
   (size_t)((const char *)(&(table)->slot + 1) - (const char *)(table)) <=     \
       (table)->struct_size &&                                                 \
   (table)->slot != NULL)
#endif

/* A string literal as et_str. C90 has no compound literals: fill the two fields by hand there. */
#if defined(__cplusplus)
#define ET_STR(literal) (et_str{(literal), sizeof(literal) - 1})
#elif defined(__STDC_VERSION__) && __STDC_VERSION__ >= 199901L
#define ET_STR(literal) ((et_str){(literal), sizeof(literal) - 1})
#endif

/* Makes a symbol of a shared library visible. */
#if defined(_WIN32)
#define ET_EXPORT __declspec(dllexport)
#elif defined(__GNUC__)
#define ET_EXPORT __attribute__((visibility("default")))
#else
#define ET_EXPORT
#endif

/* Version of EasyTransfer that this header belongs to. */
#define ET_VERSION_MAJOR 0
#define ET_VERSION_MINOR 1
#define ET_VERSION_PATCH 0
#define ET_VERSION "0.1.0"

#ifdef __cplusplus
extern "C" {
#endif

/**
 * Major version of the entry record and the calling conventions.
 */
#define ET_ABI_MAJOR 0

/**
 * Minor version: grows whenever a slot, an interface or a constant is added.
 */
#define ET_ABI_MINOR 2

/**
 * Oldest minor version of `ET_ABI_MAJOR` whose plugins a host of this version takes: 0.2 gave slots of 0.1 another
 * meaning, which happens no more from 1.0 on.
 */
#define ET_ABI_MINOR_OLDEST 2

/**
 * First eight bytes of a plugin record, "ETPLUGIN" in little-endian order.
 */
#define ET_PLUGIN_MAGIC 5641118439936382021

/**
 * First field of the record of a loadable engine: "ETENGINE" in little-endian order.
 */
#define ET_ENGINE_MAGIC 4994009607405130821

/**
 * First field of the record of a library of communication: "ETGROUP1" in little-endian order.
 */
#define ET_GROUP_MAGIC 3553433905166505029

/**
 * Any failure without a better code.
 */
#define ET_ERR_UNKNOWN 1

/**
 * An argument is out of range, NULL where it may not be, or contradicts another.
 */
#define ET_ERR_INVALID_ARGUMENT 2

/**
 * Shapes do not fit the operation.
 */
#define ET_ERR_SHAPE 3

/**
 * Element types do not fit the operation.
 */
#define ET_ERR_DTYPE 4

/**
 * A name, key, file or interface does not exist.
 */
#define ET_ERR_NOT_FOUND 5

/**
 * The name is taken.
 */
#define ET_ERR_ALREADY_EXISTS 6

/**
 * The operation, opcode or interface exists in principle but not in this build or on this device.
 */
#define ET_ERR_UNIMPLEMENTED 7

/**
 * The object is in a state that does not allow the call (sealed, poisoned, shut down).
 */
#define ET_ERR_FAILED_PRECONDITION 8

/**
 * A panic or an exception was caught inside the callee.
 */
#define ET_ERR_PANIC 9

/**
 * Reading or writing a file or stream failed.
 */
#define ET_ERR_IO 10

/**
 * Input data or an option is malformed; the message names the place.
 */
#define ET_ERR_BAD_INPUT 11

/**
 * The device has no memory left.
 */
#define ET_ERR_OUT_OF_MEMORY 12

/**
 * The caller asked to stop.
 */
#define ET_ERR_CANCELLED 13

/**
 * The device or its driver failed.
 */
#define ET_ERR_DEVICE 14

/**
 * A handle is not a live object of the expected kind.
 */
#define ET_ERR_BAD_HANDLE 15

/**
 * Unsigned 8 bit; also the result type of comparisons (0 or 1).
 */
#define ET_DTYPE_U8 1

/**
 * Unsigned 32 bit.
 */
#define ET_DTYPE_U32 2

/**
 * Signed 64 bit; ids, positions, starts and class labels have this type.
 */
#define ET_DTYPE_I64 3

/**
 * bfloat16.
 */
#define ET_DTYPE_BF16 4

/**
 * IEEE half precision.
 */
#define ET_DTYPE_F16 5

/**
 * IEEE single precision, the default of parameters and activations.
 */
#define ET_DTYPE_F32 6

/**
 * IEEE double precision.
 */
#define ET_DTYPE_F64 7

/**
 * `-x`
 */
#define ET_UNARY_NEG 1

/**
 * `e^x`
 */
#define ET_UNARY_EXP 2

/**
 * Natural logarithm.
 */
#define ET_UNARY_LOG 3

/**
 * Square root.
 */
#define ET_UNARY_SQRT 4

/**
 * `x * x`
 */
#define ET_UNARY_SQR 5

/**
 * Absolute value; derivative 0 at 0.
 */
#define ET_UNARY_ABS 6

/**
 * `1 / x`
 */
#define ET_UNARY_RECIP 7

/**
 * Sine, radians.
 */
#define ET_UNARY_SIN 8

/**
 * Cosine, radians.
 */
#define ET_UNARY_COS 9

/**
 * Hyperbolic tangent.
 */
#define ET_UNARY_TANH 10

/**
 * Logistic function.
 */
#define ET_UNARY_SIGMOID 11

/**
 * `max(x, 0)`; derivative 0 at 0.
 */
#define ET_UNARY_RELU 12

/**
 * Gauss error linear unit, exact form `x * Phi(x)`.
 */
#define ET_UNARY_GELU 13

/**
 * Gauss error linear unit, tanh approximation.
 */
#define ET_UNARY_GELU_TANH 14

/**
 * `x * sigmoid(x)`
 */
#define ET_UNARY_SILU 15

/**
 * Error function.
 */
#define ET_UNARY_ERF 16

/**
 * -1, 0 or 1. Has no gradient (it is treated as a constant).
 */
#define ET_UNARY_SIGN 17

/**
 * `a + b`, with broadcasting as in NumPy (this holds for every binary operation).
 */
#define ET_BINARY_ADD 1

/**
 * `a - b`
 */
#define ET_BINARY_SUB 2

/**
 * `a * b`
 */
#define ET_BINARY_MUL 3

/**
 * `a / b`
 */
#define ET_BINARY_DIV 4

/**
 * Larger of the two; where equal the gradient goes to `a`.
 */
#define ET_BINARY_MAXIMUM 5

/**
 * Smaller of the two; where equal the gradient goes to `a`.
 */
#define ET_BINARY_MINIMUM 6

/**
 * `a == b`
 */
#define ET_COMPARE_EQ 1

/**
 * `a != b`
 */
#define ET_COMPARE_NE 2

/**
 * `a < b`
 */
#define ET_COMPARE_LT 3

/**
 * `a <= b`
 */
#define ET_COMPARE_LE 4

/**
 * `a > b`
 */
#define ET_COMPARE_GT 5

/**
 * `a >= b`
 */
#define ET_COMPARE_GE 6

/**
 * Sum.
 */
#define ET_REDUCE_SUM 1

/**
 * Arithmetic mean; an error over zero elements.
 */
#define ET_REDUCE_MEAN 2

/**
 * Maximum; ties share the gradient equally. An error over zero elements.
 */
#define ET_REDUCE_MAX 3

/**
 * Minimum; ties share the gradient equally. An error over zero elements.
 */
#define ET_REDUCE_MIN 4

/**
 * Index of the first maximum (I64); exactly one axis. No gradient.
 */
#define ET_REDUCE_ARGMAX 5

/**
 * Index of the first minimum (I64); exactly one axis. No gradient.
 */
#define ET_REDUCE_ARGMIN 6

/**
 * Identity.
 */
#define ET_ACTIVATION_NONE 0

/**
 * `max(x, 0)`
 */
#define ET_ACTIVATION_RELU 1

/**
 * Exact GELU.
 */
#define ET_ACTIVATION_GELU 2

/**
 * GELU by tanh.
 */
#define ET_ACTIVATION_GELU_TANH 3

/**
 * Hyperbolic tangent.
 */
#define ET_ACTIVATION_TANH 4

/**
 * Logistic function.
 */
#define ET_ACTIVATION_SIGMOID 5

/**
 * `x * sigmoid(x)`
 */
#define ET_ACTIVATION_SILU 6

/**
 * Mean over the tokens of a run.
 */
#define ET_POOL_MEAN 1

/**
 * The first token of a run.
 */
#define ET_POOL_FIRST 2

/**
 * Elementwise maximum over the tokens of a run; ties go to the first.
 */
#define ET_POOL_MAX 3

/**
 * The members of `et_attention` from `window` on, asked for with the family "attention" of `et_host_nn.supports`.
 */
#define ET_ATTENTION_TERMS 1

/**
 * All zeros.
 */
#define ET_INIT_ZEROS 1

/**
 * The constant `a`.
 */
#define ET_INIT_CONSTANT 2

/**
 * Normal with mean `a` and standard deviation `b`.
 */
#define ET_INIT_NORMAL 3

/**
 * Normal with mean `a` and standard deviation `b`, values outside two deviations drawn again.
 */
#define ET_INIT_TRUNCATED_NORMAL 4

/**
 * Uniform in `[a, b)`.
 */
#define ET_INIT_UNIFORM 5

/**
 * Uniform in +-sqrt(6 / (fan_in + fan_out)) (Glorot and Bengio 2010).
 */
#define ET_INIT_XAVIER_UNIFORM 6

/**
 * Uniform in +-sqrt(1 / fan_in), the default of PyTorch's Linear.
 */
#define ET_INIT_KAIMING_UNIFORM 7

/**
 * AdamW, decoupled weight decay (Loshchilov and Hutter 2019).
 */
#define ET_OPTIM_ADAMW 1

/**
 * Adam with L2 in the gradient (Kingma and Ba 2015).
 */
#define ET_OPTIM_ADAM 2

/**
 * Stochastic gradient descent, optional momentum and Nesterov.
 */
#define ET_OPTIM_SGD 3

/**
 * LAMB (You et al. 2020), one trust ratio per parameter.
 */
#define ET_OPTIM_LAMB 4

/**
 * Adafactor (Shazeer and Stern 2018) with an external learning rate.
 */
#define ET_OPTIM_ADAFACTOR 5

/**
 * Model output `hidden_states/0` ... `hidden_states/N` is wanted.
 */
#define ET_WANT_HIDDEN_STATES 1

/**
 * Model output `pooled` is wanted.
 */
#define ET_WANT_POOLED 2

/**
 * Model output `logits` over the model's own vocabulary is wanted: of every token of the runs that can be continued
 * [T, V], or, where the call has a cache, of the last token of each run [B, V].
 */
#define ET_WANT_LOGITS 4

/**
 * Log level: something failed.
 */
#define ET_LOG_ERROR 1

/**
 * Log level: something is probably not what the user wants.
 */
#define ET_LOG_WARN 2

/**
 * Log level: progress.
 */
#define ET_LOG_INFO 3

/**
 * Log level: detail.
 */
#define ET_LOG_DEBUG 4

/**
 * Strategy hook `on_setup` is used.
 */
#define ET_PHASE_SETUP 1

/**
 * Strategy hook `on_batch` is used.
 */
#define ET_PHASE_BATCH 2

/**
 * Strategy hook `on_outputs` is used.
 */
#define ET_PHASE_OUTPUTS 4

/**
 * Strategy hook `combine` is used. At most one strategy of a run may claim it.
 */
#define ET_PHASE_COMBINE 8

/**
 * Strategy hook `on_gradients` is used.
 */
#define ET_PHASE_GRADIENTS 16

/**
 * Strategy hook `on_epoch` is used.
 */
#define ET_PHASE_EPOCH 32

/**
 * The strategy drives the whole fit. At most one strategy of a run may claim it.
 */
#define ET_PHASE_FIT 64

/**
 * Module flag: the run's app builds its head in the module, too, and `forward` runs the app over it.
 */
#define ET_MODULE_HEAD 1

/**
 * Module flag: the module starts with the values of the model under training, parameter by parameter of one name.
 */
#define ET_MODULE_COPY 2

/**
 * `params_arena`: the values.
 */
#define ET_ARENA_VALUES 1

/**
 * `params_arena`: the gradients.
 */
#define ET_ARENA_GRADS 2

/**
 * Reduction over the members of a group: the sum.
 */
#define ET_GROUP_SUM 1

/**
 * Reduction over the members of a group: the mean.
 */
#define ET_GROUP_MEAN 2

/**
 * Reduction over the members of a group: the maximum.
 */
#define ET_GROUP_MAX 3

/**
 * `set_recompute`: the backward pass finds all that it needs.
 */
#define ET_RECOMPUTE_NONE 0

/**
 * `set_recompute`: outputs of activations and layer norms are computed again.
 */
#define ET_RECOMPUTE_CHEAP 1

/**
 * `set_recompute`: the segments that models mark by `checkpoint` run again.
 */
#define ET_RECOMPUTE_LAYER 2

/**
 * Plugin record flag: built with panic = abort, so a panic would end the process.
 */
#define ET_PLUGIN_FLAG_PANIC_ABORT 1

/**
 * Op flag: `forward` accepts inputs that are not contiguous.
 */
#define ET_OP_ACCEPTS_STRIDED 1

/**
 * Op flag: `forward` accepts views of CUDA memory.
 */
#define ET_OP_HAS_CUDA 2

/**
 * Op flag: `backward` is implemented.
 */
#define ET_OP_HAS_BACKWARD 4

/**
 * Device type of a view: host memory (DLPack's kDLCPU).
 */
#define ET_DEVICE_CPU 1

/**
 * Device type of a view: CUDA memory (DLPack's kDLCUDA).
 */
#define ET_DEVICE_CUDA 2

/**
 * Bytes owned by the host, possibly a mapped file.
 */
typedef struct et_buffer et_buffer;

/**
 * A parsed JSON document.
 */
typedef struct et_config et_config;

/**
 * What the features of one record are made for.
 */
typedef struct et_context et_context;

/**
 * The result of encoding one text.
 */
typedef struct et_encoding et_encoding;

/**
 * An error made by the host: a code and a message. Outlives every plugin.
 */
typedef struct et_error et_error;

/**
 * The machines of a run, as one of them sees them.
 */
typedef struct et_group et_group;

/**
 * Named tensors in insertion order: a batch, the outputs of a model, the state of an optimizer.
 */
typedef struct et_map et_map;

/**
 * The encoder and the modules of an app while its `forward` runs.
 */
typedef struct et_net et_net;

/**
 * One named parameter, reference counted.
 */
typedef struct et_param et_param;

/**
 * A set of parameters: the arenas of one model.
 */
typedef struct et_params et_params;

/**
 * A counted random number generator.
 */
typedef struct et_rng et_rng;

/**
 * The features of one record before batching.
 */
typedef struct et_row et_row;

/**
 * The rows that the features of one record become.
 */
typedef struct et_rows et_rows;

/**
 * A named place in a set where parameters are declared.
 */
typedef struct et_scope et_scope;

/**
 * A running fit.
 */
typedef struct et_session et_session;

/**
 * An optimizer that a strategy opened in a session.
 */
typedef struct et_session_optimizer et_session_optimizer;

/**
 * A byte stream of a checkpoint.
 */
typedef struct et_stream et_stream;

/**
 * An immutable value on the tape, reference counted.
 */
typedef struct et_tensor et_tensor;

/**
 * A loaded tokenizer.
 */
typedef struct et_tokenizer et_tokenizer;

/**
 * Borrowed UTF-8 text: pointer and length in bytes, not NUL-terminated. `ptr` may be NULL when `len` is 0.
 */
typedef struct et_str {
  /**
   * First byte.
   */
  const char *ptr;
  /**
   * Length in bytes.
   */
  size_t len;
} et_str;

/**
 * A kernel and how often it runs. Three-part extents are x, y, z.
 */
typedef struct et_cuda_launch {
  /**
   * Bytes filled by the caller.
   */
  size_t struct_size;
  /**
   * PTX text. The engine compiles a text once and keeps it until the process ends.
   */
  struct et_str ptx;
  /**
   * Name of an `.entry` of the text.
   */
  struct et_str kernel;
  /**
   * Blocks of the grid; nothing runs when one extent is 0.
   */
  uint32_t grid_x;
  /**
   * As `grid_x`.
   */
  uint32_t grid_y;
  /**
   * As `grid_x`.
   */
  uint32_t grid_z;
  /**
   * Threads of a block.
   */
  uint32_t block_x;
  /**
   * As `block_x`.
   */
  uint32_t block_y;
  /**
   * As `block_x`.
   */
  uint32_t block_z;
  /**
   * Bytes of dynamic shared memory.
   */
  size_t shared_size;
  /**
   * Where each argument lies in host memory, in the kernel's order and with its types; they are copied before the
   * call returns.
   */
  const void *const *args;
  /**
   * Number of arguments, which must be the kernel's.
   */
  size_t args_len;
} et_cuda_launch;

/**
 * `et.cuda/1`: the card that the engine computes on. Only an engine for CUDA has this table; with every other one
 * `get_interface` answers NULL.
 */
typedef struct et_host_cuda {
  /**
   * Bytes filled by the host.
   */
  size_t struct_size;
  /**
   * Number of the card, as views of `et.op/1` carry it in `device_id`. [any-thread] since 0.1
   */
  int32_t (*device)(void);
  /**
   * The stream (a `CUstream`) that the engine's work runs on, in the order of the calls; work of a plugin goes
   * there too. The card's context is current on the calling thread afterwards. The stream lives until the process
   * ends; the caller neither destroys nor captures it. Errors: DEVICE. [any-thread] since 0.1
   */
  struct et_error *(*stream)(void **out);
  /**
   * Puts a kernel on the stream; it has not run yet when this returns. Errors: INVALID_ARGUMENT for text that does
   * not compile (with the compiler's message), a kernel that is not in it, or another number of arguments than it
   * has; DEVICE for what the card refuses. [any-thread] since 0.1
   */
  struct et_error *(*launch)(const struct et_cuda_launch *args);
} et_host_cuda;

/**
 * `et.data/1`: buffers, maps and rows.
 */
typedef struct et_host_data {
  /**
   * Bytes filled by the host.
   */
  size_t struct_size;
  /**
   * Copies `size` bytes into a new buffer. [any-thread] since 0.1
   */
  struct et_error *(*buffer_new)(const void *data, size_t size, struct et_buffer **out);
  /**
   * The bytes of a regular file, which stay as they are whatever becomes of the file: it is read, not mapped.
   * Errors: NOT_FOUND, IO. [any-thread] since 0.1
   */
  struct et_error *(*buffer_map_file)(struct et_str path, struct et_buffer **out);
  /**
   * First byte, valid while the buffer lives; NULL when it is empty. [any-thread] since 0.1
   */
  const void *(*buffer_data)(const struct et_buffer *buffer);
  /**
   * Size in bytes. [any-thread] since 0.1
   */
  size_t (*buffer_size)(const struct et_buffer *buffer);
  /**
   * Gives a buffer back. Accepts NULL. [any-thread] since 0.1
   */
  void (*buffer_release)(struct et_buffer *buffer);
  /**
   * Makes an empty map. [any-thread] since 0.1
   */
  struct et_error *(*map_new)(struct et_map **out);
  /**
   * Gives a map back with the references it holds. Accepts NULL. [any-thread] since 0.1
   */
  void (*map_release)(struct et_map *map);
  /**
   * Number of entries. [one-at-a-time] since 0.1
   */
  size_t (*map_len)(const struct et_map *map);
  /**
   * Name of entry `index` in insertion order, valid until the map changes; empty past the end.
   * [one-at-a-time] since 0.1
   */
  struct et_str (*map_name)(const struct et_map *map, size_t index);
  /**
   * An owned reference to the tensor of that name. Errors: NOT_FOUND, naming the entries that exist.
   * [one-at-a-time] since 0.1
   */
  struct et_error *(*map_get)(const struct et_map *map, struct et_str name, struct et_tensor **out);
  /**
   * 1 if there is an entry of that name, else 0. [one-at-a-time] since 0.1
   */
  int32_t (*map_has)(const struct et_map *map, struct et_str name);
  /**
   * Adds or replaces an entry; the map takes a reference of its own. [one-at-a-time] since 0.1
   */
  struct et_error *(*map_put)(struct et_map *map, struct et_str name, const struct et_tensor *tensor);
  /**
   * Removes an entry if it is there. [one-at-a-time] since 0.1
   */
  void (*map_remove)(struct et_map *map, struct et_str name);
  /**
   * Makes an empty row. [any-thread] since 0.1
   */
  struct et_error *(*row_new)(struct et_row **out);
  /**
   * Gives a row back. Accepts NULL. [any-thread] since 0.1
   */
  void (*row_release)(struct et_row *row);
  /**
   * Adds a field with one value per token, for instance "ids" or "segments". All token fields of one name space
   * (the text before the last '/' of the name) have the same length; the values are copied. Errors: SHAPE,
   * ALREADY_EXISTS. [one-at-a-time] since 0.1
   */
  struct et_error *(*row_put_tokens)(struct et_row *row,
                                     struct et_str name,
                                     const int64_t *values,
                                     size_t len);
  /**
   * Adds a field of `len` integers per row, for instance "labels"; the values are copied. Batches have shape [B]
   * when `len` is 1, else [B, len]; every row of a batch must agree. [one-at-a-time] since 0.1
   */
  struct et_error *(*row_put_i64)(struct et_row *row,
                                  struct et_str name,
                                  const int64_t *values,
                                  size_t len);
  /**
   * Adds a field of `len` single precision numbers per row; otherwise as `row_put_i64`. [one-at-a-time] since 0.1
   */
  struct et_error *(*row_put_f32)(struct et_row *row,
                                  struct et_str name,
                                  const float *values,
                                  size_t len);
  /**
   * Number of tokens of the row: the sum over its name spaces. [one-at-a-time] since 0.2
   */
  size_t (*row_tokens_len)(const struct et_row *row);
  /**
   * Copies every field of `source` into `row` under `prefix` + name. Errors: ALREADY_EXISTS. [one-at-a-time] since
   * 0.1
   */
  struct et_error *(*row_merge)(struct et_row *row,
                                struct et_str prefix,
                                const struct et_row *source);
  /**
   * Collates rows into a batch without padding. Token fields are concatenated to [T]; each name space with token
   * fields also gets "starts" [B+1] (cumulative lengths) and "positions" [T] (0, 1, ... within each run) unless a
   * field of that name exists. All integers are I64. Errors: SHAPE, naming the field and the row. [any-thread]
   * since 0.1
   */
  struct et_error *(*batch_from_rows)(const struct et_row *const *rows,
                                      size_t rows_len,
                                      struct et_map **out);
  /**
   * Makes an empty list of rows. [any-thread] since 0.2
   */
  struct et_error *(*rows_new)(struct et_rows **out);
  /**
   * Gives a list back with its rows. Accepts NULL. [any-thread] since 0.2
   */
  void (*rows_release)(struct et_rows *rows);
  /**
   * Adds an empty row to the list; it is borrowed and lives as long as the list. [one-at-a-time] since 0.2
   */
  struct et_error *(*rows_add)(struct et_rows *rows, struct et_row **out);
  /**
   * Number of rows. [one-at-a-time] since 0.2
   */
  size_t (*rows_len)(const struct et_rows *rows);
  /**
   * An owned reference to row `index`. Errors: NOT_FOUND. [one-at-a-time] since 0.2
   */
  struct et_error *(*rows_get)(const struct et_rows *rows, size_t index, struct et_row **out);
} et_host_data;

/**
 * `et.stream/1`: bytes of a checkpoint. Streams given to `state_save` and `state_load` belong to the caller.
 */
typedef struct et_host_stream {
  /**
   * Bytes filled by the host.
   */
  size_t struct_size;
  /**
   * Appends `size` bytes. Errors: IO, FAILED_PRECONDITION on a stream opened for reading. [one-at-a-time] since 0.1
   */
  struct et_error *(*write)(struct et_stream *stream, const void *data, size_t size);
  /**
   * Reads exactly `size` bytes. Errors: BAD_INPUT when fewer are left, saying how many. [one-at-a-time] since 0.1
   */
  struct et_error *(*read)(struct et_stream *stream, void *data, size_t size);
  /**
   * Bytes left to read. [one-at-a-time] since 0.1
   */
  size_t (*remaining)(const struct et_stream *stream);
  /**
   * Makes a stream in memory: empty and for writing when `data` is NULL, else for reading a copy of `data`.
   * [any-thread] since 0.1
   */
  struct et_error *(*memory_new)(const void *data, size_t size, struct et_stream **out);
  /**
   * Everything that was written so far. [one-at-a-time] since 0.1
   */
  struct et_error *(*bytes)(const struct et_stream *stream, struct et_buffer **out);
  /**
   * Gives a stream back. Accepts NULL. [any-thread] since 0.1
   */
  void (*release)(struct et_stream *stream);
} et_host_stream;

/**
 * `et.config/1`: reading JSON without a JSON library. Keys are dotted paths, for instance "optimizer.lr".
 */
typedef struct et_host_config {
  /**
   * Bytes filled by the host.
   */
  size_t struct_size;
  /**
   * Parses JSON text. Errors: BAD_INPUT with line and column. [any-thread] since 0.1
   */
  struct et_error *(*parse)(struct et_str json, struct et_config **out);
  /**
   * Gives a document back. Accepts NULL. [any-thread] since 0.1
   */
  void (*release)(struct et_config *config);
  /**
   * 1 if the key exists and is not null, else 0. [any-thread] since 0.1
   */
  int32_t (*has)(const struct et_config *config, struct et_str key);
  /**
   * A number. Errors: NOT_FOUND, BAD_INPUT naming the key and the type found (so for the next three). [any-thread]
   * since 0.1
   */
  struct et_error *(*f64_at)(const struct et_config *config, struct et_str key, double *out);
  /**
   * An integer. [any-thread] since 0.1
   */
  struct et_error *(*i64_at)(const struct et_config *config, struct et_str key, int64_t *out);
  /**
   * A boolean as 0 or 1. [any-thread] since 0.1
   */
  struct et_error *(*bool_at)(const struct et_config *config, struct et_str key, int32_t *out);
  /**
   * A string, valid while the document lives. [any-thread] since 0.1
   */
  struct et_error *(*str_at)(const struct et_config *config, struct et_str key, struct et_str *out);
  /**
   * Length of an array or object. [any-thread] since 0.1
   */
  struct et_error *(*len_at)(const struct et_config *config, struct et_str key, size_t *out);
} et_host_config;

/**
 * How to encode a text.
 */
typedef struct et_encode_options {
  /**
   * Bytes filled by the caller.
   */
  size_t struct_size;
  /**
   * Longest result in tokens including special tokens; 0 for no limit. Pairs lose tokens from the longer side.
   */
  size_t max_len;
  /**
   * 1 to add the special tokens of the model, 0 for none.
   */
  int32_t add_special_tokens;
  /**
   * Must be 0.
   */
  int32_t reserved;
} et_encode_options;

/**
 * `et.tokenizer/1`: the host's tokenizers.
 */
typedef struct et_host_tokenizer {
  /**
   * Bytes filled by the host.
   */
  size_t struct_size;
  /**
   * Loads from a directory or a file: `tokenizer.json`, `vocab.txt`, SentencePiece `.model`, or `vocab.json` with
   * `merges.txt`. Padding and truncation that a file switches on are switched off. Errors: NOT_FOUND naming the
   * files looked for, BAD_INPUT. [any-thread] since 0.1
   */
  struct et_error *(*load)(struct et_str path, struct et_tokenizer **out);
  /**
   * Another reference to the same tokenizer. [any-thread] since 0.1
   */
  struct et_tokenizer *(*retain)(const struct et_tokenizer *tokenizer);
  /**
   * Gives a tokenizer back. Accepts NULL. [any-thread] since 0.1
   */
  void (*release)(struct et_tokenizer *tokenizer);
  /**
   * Number of tokens of the vocabulary, added tokens included. [any-thread] since 0.1
   */
  size_t (*vocab_len)(const struct et_tokenizer *tokenizer);
  /**
   * Id of a token, -1 if it is not in the vocabulary. [any-thread] since 0.1
   */
  int64_t (*token_id)(const struct et_tokenizer *tokenizer, struct et_str token);
  /**
   * Text of a token. Errors: NOT_FOUND. [any-thread] since 0.1
   */
  struct et_error *(*token_text)(const struct et_tokenizer *tokenizer,
                                 int64_t id,
                                 struct et_buffer **out);
  /**
   * Encodes a text, or a pair when `pair` is not NULL. `options` NULL means no limit with special tokens.
   * [any-thread] since 0.1
   */
  struct et_error *(*encode)(const struct et_tokenizer *tokenizer,
                             struct et_str text,
                             const struct et_str *pair,
                             const struct et_encode_options *options,
                             struct et_encoding **out);
  /**
   * Turns ids back into text. [any-thread] since 0.1
   */
  struct et_error *(*decode)(const struct et_tokenizer *tokenizer,
                             const int64_t *ids,
                             size_t len,
                             int32_t skip_special_tokens,
                             struct et_buffer **out);
  /**
   * Writes the tokenizer's files into an existing directory, so that `load` and Hugging Face can read them.
   * [any-thread] since 0.1
   */
  struct et_error *(*save)(const struct et_tokenizer *tokenizer, struct et_str directory);
  /**
   * Number of tokens. [any-thread] since 0.1
   */
  size_t (*encoding_len)(const struct et_encoding *encoding);
  /**
   * Token ids, `encoding_len` of them, valid while the encoding lives (so for the next three). [any-thread] since
   * 0.1
   */
  const int64_t *(*encoding_ids)(const struct et_encoding *encoding);
  /**
   * Segment of each token: 0 for the text, 1 for the pair. [any-thread] since 0.1
   */
  const int64_t *(*encoding_segments)(const struct et_encoding *encoding);
  /**
   * 1 for special tokens, else 0. [any-thread] since 0.1
   */
  const int64_t *(*encoding_special)(const struct et_encoding *encoding);
  /**
   * Begin and end of each token as byte offsets into its text, 2 * `encoding_len` values. [any-thread] since 0.1
   */
  const int64_t *(*encoding_offsets)(const struct et_encoding *encoding);
  /**
   * 1 if tokens were cut off by `max_len`, else 0. [any-thread] since 0.1
   */
  int32_t (*encoding_truncated)(const struct et_encoding *encoding);
  /**
   * Gives an encoding back. Accepts NULL. [any-thread] since 0.1
   */
  void (*encoding_release)(struct et_encoding *encoding);
  /**
   * Number of the word of its text that each token belongs to, counted from 0 (words as the tokenizer's
   * pre-tokenizer cuts them); -1 for special tokens. `encoding_len` values, valid while the encoding lives.
   * [any-thread] since 0.2
   */
  const int64_t *(*encoding_words)(const struct et_encoding *encoding);
  /**
   * Makes a model's input of one list of ids, or of two when `second` is not NULL: with special tokens and
   * segments, as `encode` of the texts behind them would. Nothing is cut, and offsets are 0. `encoding_words` of
   * the result tells the lists' ids from special tokens: places in their list. [any-thread] since 0.2
   */
  struct et_error *(*assemble)(const struct et_tokenizer *tokenizer,
                               const int64_t *first,
                               size_t first_len,
                               const int64_t *second,
                               size_t second_len,
                               struct et_encoding **out);
  /**
   * Number of special tokens that `assemble` adds: to one list, or with `pair` 1 to two. [any-thread] since 0.2
   */
  size_t (*added_len)(const struct et_tokenizer *tokenizer, int32_t pair);
  /**
   * Makes a tokenizer from the text of a `tokenizer.json`. An app that learns a vocabulary of words cuts its texts
   * by one of an empty vocabulary, to the same words as the tokenizer that the host will make. Errors: as for
   * `load` of such a file. [any-thread] since 0.2
   */
  struct et_error *(*from_json)(struct et_str json, struct et_tokenizer **out);
} et_host_tokenizer;

/**
 * `et.tensor/1`: fine-grained tensor operations, families by opcode. Every operation that has a gradient records
 * itself on the tape when an input is tracked and recording is on. Axes count from 0; negative axes count from the
 * end.
 */
typedef struct et_host_tensor {
  /**
   * Bytes filled by the host.
   */
  size_t struct_size;
  /**
   * Another reference to the same tensor. [any-thread] since 0.1
   */
  struct et_tensor *(*retain)(const struct et_tensor *tensor);
  /**
   * Gives a reference back. Accepts NULL. [any-thread] since 0.1
   */
  void (*release)(struct et_tensor *tensor);
  /**
   * Element type, an `ET_DTYPE_` constant. [any-thread] since 0.1
   */
  int32_t (*dtype)(const struct et_tensor *tensor);
  /**
   * Number of axes. [any-thread] since 0.1
   */
  size_t (*rank)(const struct et_tensor *tensor);
  /**
   * Extents, `rank` of them, valid while the tensor lives. [any-thread] since 0.1
   */
  const size_t *(*shape)(const struct et_tensor *tensor);
  /**
   * Number of elements. [any-thread] since 0.1
   */
  size_t (*len)(const struct et_tensor *tensor);
  /**
   * 1 if a gradient can flow into this tensor, else 0. [any-thread] since 0.1
   */
  int32_t (*is_tracked)(const struct et_tensor *tensor);
  /**
   * 1 if elements lie row-major without gaps, else 0. [any-thread] since 0.1
   */
  int32_t (*is_contiguous)(const struct et_tensor *tensor);
  /**
   * Copies host memory, row-major, `size` bytes, into a new tensor. Errors: SHAPE when the size does not fit.
   * [any-thread] since 0.1
   */
  struct et_error *(*from_data)(int32_t dtype,
                                const size_t *shape,
                                size_t rank,
                                const void *data,
                                size_t size,
                                struct et_tensor **out);
  /**
   * A tensor filled with `value`. [any-thread] since 0.1
   */
  struct et_error *(*full)(int32_t dtype,
                           const size_t *shape,
                           size_t rank,
                           double value,
                           struct et_tensor **out);
  /**
   * `start, start + step, ...`, `len` values. [any-thread] since 0.1
   */
  struct et_error *(*arange)(int32_t dtype,
                             double start,
                             double step,
                             size_t len,
                             struct et_tensor **out);
  /**
   * Copies all elements, row-major, to host memory of exactly `size` bytes. Waits for the device. [any-thread]
   * since 0.1
   */
  struct et_error *(*read)(const struct et_tensor *tensor, void *data, size_t size);
  /**
   * Applies an `ET_UNARY_` operation elementwise. [any-thread] since 0.1
   */
  struct et_error *(*unary)(int32_t op, const struct et_tensor *x, struct et_tensor **out);
  /**
   * Applies an `ET_BINARY_` operation with broadcasting; both sides have one dtype. [any-thread] since 0.1
   */
  struct et_error *(*binary)(int32_t op,
                             const struct et_tensor *a,
                             const struct et_tensor *b,
                             struct et_tensor **out);
  /**
   * Applies an `ET_COMPARE_` operation with broadcasting; the result is U8. [any-thread] since 0.1
   */
  struct et_error *(*compare)(int32_t op,
                              const struct et_tensor *a,
                              const struct et_tensor *b,
                              struct et_tensor **out);
  /**
   * `x * scale + shift`. [any-thread] since 0.1
   */
  struct et_error *(*affine)(const struct et_tensor *x,
                             double scale,
                             double shift,
                             struct et_tensor **out);
  /**
   * `x ^ exponent`. [any-thread] since 0.1
   */
  struct et_error *(*power)(const struct et_tensor *x, double exponent, struct et_tensor **out);
  /**
   * Values limited to `[low, high]`; the gradient is 0 outside. [any-thread] since 0.1
   */
  struct et_error *(*clamp)(const struct et_tensor *x,
                            double low,
                            double high,
                            struct et_tensor **out);
  /**
   * Applies an `ET_REDUCE_` operation over `axes`; over all axes when `axes_len` is 0. [any-thread] since 0.1
   */
  struct et_error *(*reduce)(int32_t op,
                             const struct et_tensor *x,
                             const int64_t *axes,
                             size_t axes_len,
                             int32_t keep_axes,
                             struct et_tensor **out);
  /**
   * Matrix product over the last two axes, leading axes broadcast. [any-thread] since 0.1
   */
  struct et_error *(*matmul)(const struct et_tensor *a,
                             const struct et_tensor *b,
                             struct et_tensor **out);
  /**
   * `a` where `condition` (U8) is not 0, else `b`, with broadcasting. [any-thread] since 0.1
   */
  struct et_error *(*select)(const struct et_tensor *condition,
                             const struct et_tensor *a,
                             const struct et_tensor *b,
                             struct et_tensor **out);
  /**
   * The same elements in another shape. [any-thread] since 0.1
   */
  struct et_error *(*reshape)(const struct et_tensor *x,
                              const size_t *shape,
                              size_t rank,
                              struct et_tensor **out);
  /**
   * Axes in another order; `axes` has `rank` entries. A view. [any-thread] since 0.1
   */
  struct et_error *(*permute)(const struct et_tensor *x,
                              const int64_t *axes,
                              size_t axes_len,
                              struct et_tensor **out);
  /**
   * `len` entries from `start` on one axis. A view. [any-thread] since 0.1
   */
  struct et_error *(*narrow)(const struct et_tensor *x,
                             int64_t axis,
                             size_t start,
                             size_t len,
                             struct et_tensor **out);
  /**
   * Axes of extent 1 stretched to `shape`. A view. [any-thread] since 0.1
   */
  struct et_error *(*broadcast_to)(const struct et_tensor *x,
                                   const size_t *shape,
                                   size_t rank,
                                   struct et_tensor **out);
  /**
   * The same values, row-major without gaps. [any-thread] since 0.1
   */
  struct et_error *(*contiguous)(const struct et_tensor *x, struct et_tensor **out);
  /**
   * Joins tensors on one axis. [any-thread] since 0.1
   */
  struct et_error *(*concat)(const struct et_tensor *const *tensors,
                             size_t len,
                             int64_t axis,
                             struct et_tensor **out);
  /**
   * Entries `index` (I64, rank 1) of one axis. Errors: INVALID_ARGUMENT naming an index out of range (so for the
   * next two). [any-thread] since 0.1
   */
  struct et_error *(*index_select)(const struct et_tensor *x,
                                   int64_t axis,
                                   const struct et_tensor *index,
                                   struct et_tensor **out);
  /**
   * `out[i][j] = x[i][index[i][j]]` on one axis; `index` (I64) has the rank of `x`. [any-thread] since 0.1
   */
  struct et_error *(*gather)(const struct et_tensor *x,
                             int64_t axis,
                             const struct et_tensor *index,
                             struct et_tensor **out);
  /**
   * `x` with entry `i` of `source` added at `index[i]` (I64, rank 1) on one axis. [any-thread] since 0.1
   */
  struct et_error *(*index_add)(const struct et_tensor *x,
                                int64_t axis,
                                const struct et_tensor *index,
                                const struct et_tensor *source,
                                struct et_tensor **out);
  /**
   * The values in another element type; the gradient is converted back. [any-thread] since 0.1
   */
  struct et_error *(*cast)(const struct et_tensor *x, int32_t dtype, struct et_tensor **out);
} et_host_tensor;

/**
 * A part of a model that can run twice, for `et_host_autograd.checkpoint`.
 */
typedef struct et_segment {
  /**
   * Bytes filled by the caller.
   */
  size_t struct_size;
  /**
   * First argument of the functions. It belongs to the host until `release`, and must keep alive whatever `run`
   * uses, such as parameters. May be NULL.
   */
  void *state;
  /**
   * Computes `outputs_len` owned tensors from borrowed inputs. It depends on its inputs, on parameters and on
   * `rng` alone (NULL when `checkpoint` got none), which lives for the call and must be used instead of the
   * generator that `checkpoint` got. Called once, and perhaps once more while a backward pass runs.
   * [callback-thread] since 0.1
   */
  struct et_error *(*run)(void *state,
                          const struct et_tensor *const *inputs,
                          size_t inputs_len,
                          struct et_rng *rng,
                          struct et_tensor **outputs,
                          size_t outputs_len);
  /**
   * Frees the state; called once, whatever happens. May be NULL. [callback-thread] since 0.1
   */
  void (*release)(void *state);
} et_segment;

/**
 * A borrowed view of a tensor's memory for the time of one call. Fields mean what DLPack's DLTensor fields mean;
 * strides count elements.
 */
typedef struct et_view {
  /**
   * Bytes filled by the host.
   */
  size_t struct_size;
  /**
   * First byte of the memory; the first element lies `byte_offset` further.
   */
  void *data;
  /**
   * An `ET_DEVICE_` constant.
   */
  int32_t device_type;
  /**
   * Ordinal of the device.
   */
  int32_t device_id;
  /**
   * An `ET_DTYPE_` constant.
   */
  int32_t dtype;
  /**
   * Number of axes.
   */
  int32_t rank;
  /**
   * Extents.
   */
  const int64_t *shape;
  /**
   * Strides in elements.
   */
  const int64_t *strides;
  /**
   * Bytes from `data` to the first element.
   */
  size_t byte_offset;
} et_view;

/**
 * What `et_plugin_op.forward` gets.
 */
typedef struct et_op_call {
  /**
   * Bytes filled by the host.
   */
  size_t struct_size;
  /**
   * Instance of the operation.
   */
  void *state;
  /**
   * Inputs, read only.
   */
  const struct et_view *const *inputs;
  /**
   * Number of inputs.
   */
  size_t inputs_len;
  /**
   * Outputs, allocated by the host, contiguous, not initialised.
   */
  const struct et_view *const *outputs;
  /**
   * Number of outputs.
   */
  size_t outputs_len;
  /**
   * CUDA stream on which the work must be enqueued; NULL on the CPU.
   */
  void *stream;
} et_op_call;

/**
 * `et.op/1`: an operation with code of its own.
 */
typedef struct et_plugin_op {
  /**
   * Bytes filled by the plugin.
   */
  size_t struct_size;
  /**
   * Name, for instance "cube".
   */
  const char *name;
  /**
   * `ET_OP_` bits.
   */
  uint32_t flags;
  /**
   * Number of inputs.
   */
  uint32_t inputs_len;
  /**
   * Number of outputs.
   */
  uint32_t outputs_len;
  /**
   * Must be 0.
   */
  uint32_t reserved;
  /**
   * Sets `dtype`, `rank` (at most 8) and the extents of each output from the inputs (whose `data` is NULL here).
   * `shapes[i]` has room for 8 extents. [callback-thread] since 0.1
   */
  struct et_error *(*infer)(void *state,
                            const struct et_view *const *inputs,
                            int32_t *dtypes,
                            int32_t *ranks,
                            int64_t *const *shapes);
  /**
   * Computes the outputs. [callback-thread] since 0.1
   */
  struct et_error *(*forward)(const struct et_op_call *call);
  /**
   * Gradients of the inputs from those of the outputs, by host operations: `input_grads[i]` receives an owned
   * reference, or stays NULL where no gradient flows; an entry of `output_grads` is NULL where none arrived. NULL
   * without `ET_OP_HAS_BACKWARD`. [callback-thread] since 0.1
   */
  struct et_error *(*backward)(void *state,
                               const struct et_tensor *const *inputs,
                               const struct et_tensor *const *outputs,
                               const struct et_tensor *const *output_grads,
                               struct et_tensor **input_grads);
} et_plugin_op;

/**
 * `et.autograd/1`: the tape.
 */
typedef struct et_host_autograd {
  /**
   * Bytes filled by the host.
   */
  size_t struct_size;
  /**
   * The same value with no history. [any-thread] since 0.1
   */
  struct et_error *(*detach)(const struct et_tensor *x, struct et_tensor **out);
  /**
   * The same value as a new leaf whose gradient `leaf_grad` returns after `backward`. [any-thread] since 0.1
   */
  struct et_error *(*leaf)(const struct et_tensor *x, struct et_tensor **out);
  /**
   * Gradient of a leaf, summed over the backward passes so far; `*out` becomes NULL when none has reached it.
   * [any-thread] since 0.1
   */
  struct et_error *(*leaf_grad)(const struct et_tensor *leaf, struct et_tensor **out);
  /**
   * Runs the tape backwards from `loss` and frees what it saved on the way. `seed` is the gradient of `loss`, NULL
   * for 1, for which `loss` must have one element. Gradients of parameters are added to their set's gradient
   * arena. Errors: INVALID_ARGUMENT when nothing is tracked, FAILED_PRECONDITION when this part of the tape was
   * freed before. [any-thread] since 0.1
   */
  struct et_error *(*backward)(const struct et_tensor *loss, const struct et_tensor *seed);
  /**
   * Stops recording on this thread until the matching `resume`; nests. [any-thread] since 0.1
   */
  void (*pause)(void);
  /**
   * Ends the innermost `pause` of this thread. [any-thread] since 0.1
   */
  void (*resume)(void);
  /**
   * 1 if operations on this thread record themselves, else 0. [any-thread] since 0.1
   */
  int32_t (*is_recording)(void);
  /**
   * Runs a custom operation of a plugin and records it. `state` is the operation's instance, which must live until
   * the process ends or the outputs are gone; `outputs` receives `op.outputs_len` owned references. [any-thread]
   * since 0.1
   */
  struct et_error *(*apply_op)(const struct et_plugin_op *op,
                               void *state,
                               const struct et_tensor *const *inputs,
                               size_t inputs_len,
                               struct et_tensor **outputs);
  /**
   * Runs `segment` on `inputs` and writes `outputs_len` owned references to `outputs`: gradient checkpointing
   * (Chen et al. 2016) of a layer. With ET_RECOMPUTE_LAYER only the inputs are kept, and `backward` runs the
   * segment again with the same random numbers, to the same bits; else it is as if the caller had run it. `rng`
   * may be NULL; it moves on by what the segment took. Segments may lie in segments. Errors: the segment's;
   * FAILED_PRECONDITION when it used `rng` itself, and from `backward` when its second run differs from the first.
   * [any-thread] since 0.1
   */
  struct et_error *(*checkpoint)(const struct et_segment *segment,
                                 const struct et_tensor *const *inputs,
                                 size_t inputs_len,
                                 struct et_rng *rng,
                                 struct et_tensor **outputs,
                                 size_t outputs_len);
  /**
   * Chooses what operations that this thread records from now on keep, an `ET_RECOMPUTE_` constant;
   * ET_RECOMPUTE_NONE at first. For hosts. Errors: INVALID_ARGUMENT for other values. [any-thread] since 0.1
   */
  struct et_error *(*set_recompute)(int32_t level);
} et_host_autograd;

/**
 * Where and how `et_host_rng` stands: the numbers that follow depend on these three alone.
 */
typedef struct et_rng_state {
  /**
   * Key, first half.
   */
  uint64_t seed;
  /**
   * Key, second half: one stream per use (weights, dropout, shuffling ...).
   */
  uint64_t stream;
  /**
   * Counter: the index of the next number.
   */
  uint64_t offset;
} et_rng_state;

/**
 * `et.rng/1`: Philox4x32-10 (Salmon et al. 2011), the same numbers on every device.
 */
typedef struct et_host_rng {
  /**
   * Bytes filled by the host.
   */
  size_t struct_size;
  /**
   * Makes a generator at offset 0. [any-thread] since 0.1
   */
  struct et_error *(*create)(uint64_t seed, uint64_t stream, struct et_rng **out);
  /**
   * Gives a generator back. Accepts NULL. [any-thread] since 0.1
   */
  void (*release)(struct et_rng *rng);
  /**
   * The present state. [one-at-a-time] since 0.1
   */
  struct et_rng_state (*state)(const struct et_rng *rng);
  /**
   * Sets the state. [one-at-a-time] since 0.1
   */
  void (*set_state)(struct et_rng *rng, struct et_rng_state state);
  /**
   * 64 random bits; moves the offset by 2. [one-at-a-time] since 0.1
   */
  uint64_t (*bits)(struct et_rng *rng);
  /**
   * Uniform numbers in `[low, high)`; dtype F32 or F64; moves the offset by the number of elements, rounded up to
   * 4. [one-at-a-time] since 0.1
   */
  struct et_error *(*uniform)(struct et_rng *rng,
                              int32_t dtype,
                              const size_t *shape,
                              size_t rank,
                              double low,
                              double high,
                              struct et_tensor **out);
  /**
   * Normal numbers; dtype F32 or F64; moves the offset by the number of elements, rounded up to 4. [one-at-a-time]
   * since 0.1
   */
  struct et_error *(*normal)(struct et_rng *rng,
                             int32_t dtype,
                             const size_t *shape,
                             size_t rank,
                             double mean,
                             double deviation,
                             struct et_tensor **out);
} et_host_rng;

/**
 * How a parameter starts: an `ET_INIT_` constant and its two numbers.
 */
typedef struct et_init {
  /**
   * An `ET_INIT_` constant.
   */
  int32_t kind;
  /**
   * Must be 0.
   */
  int32_t reserved;
  /**
   * First number of that kind, else 0.
   */
  double a;
  /**
   * Second number of that kind, else 0.
   */
  double b;
} et_init;

/**
 * `et.param/1`: named parameters in arenas. A set is built by declaring parameters through scopes; `seal` moves all
 * trainable parameters into one buffer, with one more for their gradients. Names are dotted paths, as in Hugging
 * Face checkpoints.
 */
typedef struct et_host_param {
  /**
   * Bytes filled by the host.
   */
  size_t struct_size;
  /**
   * Makes an empty set of dtype F32 or F64. Initial values depend on `seed` and the parameter's name alone.
   * [any-thread] since 0.1
   */
  struct et_error *(*params_new)(uint64_t seed, int32_t dtype, struct et_params **out);
  /**
   * Gives a set back; parameters and tensors taken from it stay valid. Accepts NULL. [any-thread] since 0.1
   */
  void (*params_release)(struct et_params *params);
  /**
   * The outermost scope, owned by the caller. [any-thread] since 0.1
   */
  struct et_scope *(*params_root)(const struct et_params *params);
  /**
   * Number of parameters. [one-at-a-time] since 0.1
   */
  size_t (*params_len)(const struct et_params *params);
  /**
   * Parameter `index` in declaration order, owned by the caller; NULL past the end. [one-at-a-time] since 0.1
   */
  struct et_param *(*params_at)(const struct et_params *params, size_t index);
  /**
   * Parameter by name, owned by the caller. Errors: NOT_FOUND naming the nearest name. [one-at-a-time] since 0.1
   */
  struct et_error *(*params_find)(const struct et_params *params,
                                  struct et_str name,
                                  struct et_param **out);
  /**
   * Moves trainable parameters into the arena, in declaration order. Afterwards no parameter may be declared, and
   * one that was frozen before stays frozen. Calling it again does nothing. [one-at-a-time] since 0.1
   */
  struct et_error *(*params_seal)(struct et_params *params);
  /**
   * Number of elements in the arena; 0 before `seal`. [one-at-a-time] since 0.1
   */
  size_t (*params_arena_len)(const struct et_params *params);
  /**
   * Forgets all gradients. [one-at-a-time] since 0.1
   */
  void (*params_zero_grads)(struct et_params *params);
  /**
   * Euclidean norm of all gradients together. Waits for the device. [one-at-a-time] since 0.1
   */
  struct et_error *(*params_grad_norm)(const struct et_params *params, double *out);
  /**
   * Multiplies all gradients. [one-at-a-time] since 0.1
   */
  struct et_error *(*params_scale_grads)(struct et_params *params, double factor);
  /**
   * A copy of all values, trainable or not; `restore` takes it back. [one-at-a-time] since 0.1
   */
  struct et_error *(*params_snapshot)(const struct et_params *params, struct et_buffer **out);
  /**
   * Sets all values from a snapshot of the same set. Errors: SHAPE. [one-at-a-time] since 0.1
   */
  struct et_error *(*params_restore)(struct et_params *params, const struct et_buffer *snapshot);
  /**
   * A scope below this one, owned by the caller; `name` may be dotted. [any-thread] since 0.1
   */
  struct et_error *(*scope_child)(const struct et_scope *scope,
                                  struct et_str name,
                                  struct et_scope **out);
  /**
   * Dotted path of a scope, valid while it lives; empty for the root. [any-thread] since 0.1
   */
  struct et_str (*scope_path)(const struct et_scope *scope);
  /**
   * Declares a trainable parameter, owned by the caller as well as by the set. Errors: ALREADY_EXISTS,
   * FAILED_PRECONDITION after `seal`. [one-at-a-time] since 0.1
   */
  struct et_error *(*scope_param)(const struct et_scope *scope,
                                  struct et_str name,
                                  const size_t *shape,
                                  size_t rank,
                                  const struct et_init *init,
                                  struct et_param **out);
  /**
   * Gives a scope back. Accepts NULL. [any-thread] since 0.1
   */
  void (*scope_release)(struct et_scope *scope);
  /**
   * Another reference to the same parameter. [any-thread] since 0.1
   */
  struct et_param *(*retain)(const struct et_param *param);
  /**
   * Gives a reference back. Accepts NULL. [any-thread] since 0.1
   */
  void (*release)(struct et_param *param);
  /**
   * Full dotted name, valid while the parameter lives. [any-thread] since 0.1
   */
  struct et_str (*name)(const struct et_param *param);
  /**
   * Number of axes. [any-thread] since 0.1
   */
  size_t (*rank)(const struct et_param *param);
  /**
   * Extents, valid while the parameter lives. [any-thread] since 0.1
   */
  const size_t *(*shape)(const struct et_param *param);
  /**
   * The present value as a tensor; tracked when the parameter is trainable. It is a view: an optimizer step
   * changes it. [one-at-a-time] since 0.1
   */
  struct et_error *(*tensor)(const struct et_param *param, struct et_tensor **out);
  /**
   * A copy of the gradient; `*out` becomes NULL when none has reached the parameter. [one-at-a-time] since 0.1
   */
  struct et_error *(*grad)(const struct et_param *param, struct et_tensor **out);
  /**
   * 1 if a gradient has reached the parameter since `params_zero_grads`, else 0. [one-at-a-time] since 0.1
   */
  int32_t (*has_grad)(const struct et_param *param);
  /**
   * Replaces the gradient. Errors: SHAPE, DTYPE, FAILED_PRECONDITION when frozen or not sealed. [one-at-a-time]
   * since 0.1
   */
  struct et_error *(*set_grad)(struct et_param *param, const struct et_tensor *grad);
  /**
   * Copies a tensor's values into the parameter. Errors: SHAPE, DTYPE. [one-at-a-time] since 0.1
   */
  struct et_error *(*assign)(struct et_param *param, const struct et_tensor *value);
  /**
   * Takes the value from a buffer at a byte offset, elements of `dtype` (F32, F16, BF16 or F64), row-major. Where
   * type and alignment allow, the parameter refers to the buffer's memory and keeps it alive instead of copying.
   * Errors: SHAPE when the buffer is too short. [one-at-a-time] since 0.1
   */
  struct et_error *(*assign_buffer)(struct et_param *param,
                                    int32_t dtype,
                                    const struct et_buffer *buffer,
                                    size_t offset);
  /**
   * 1 if optimizers change the parameter, else 0. [one-at-a-time] since 0.1
   */
  int32_t (*is_trainable)(const struct et_param *param);
  /**
   * Freezes (0) or unfreezes (1). Errors: FAILED_PRECONDITION when it was frozen at `seal`. [one-at-a-time] since
   * 0.1
   */
  struct et_error *(*set_trainable)(struct et_param *param, int32_t trainable);
  /**
   * Factor on the learning rate, 1 by default. [one-at-a-time] since 0.1
   */
  double (*lr_scale)(const struct et_param *param);
  /**
   * Sets the factor on the learning rate; not negative. [one-at-a-time] since 0.1
   */
  struct et_error *(*set_lr_scale)(struct et_param *param, double scale);
  /**
   * 1 if weight decay applies, else 0. By default it applies to parameters with two axes or more. [one-at-a-time]
   * since 0.1
   */
  int32_t (*has_decay)(const struct et_param *param);
  /**
   * Switches weight decay. [one-at-a-time] since 0.1
   */
  void (*set_decay)(struct et_param *param, int32_t decay);
  /**
   * Adds a low-rank update: `tensor` becomes W + scale * B A (Hu et al. 2021, LoRA) for W [o, i], A [r, i], B [o,
   * r], while W itself is frozen. Errors: SHAPE, FAILED_PRECONDITION after `seal`. [one-at-a-time] since 0.1
   */
  struct et_error *(*set_low_rank)(struct et_param *param,
                                   const struct et_param *a,
                                   const struct et_param *b,
                                   double scale);
  /**
   * The value that a saved model should carry, low-rank update included, with no history. [one-at-a-time] since 0.1
   */
  struct et_error *(*merged)(const struct et_param *param, struct et_tensor **out);
  /**
   * Another reference to the same set. [any-thread] since 0.2
   */
  struct et_params *(*params_retain)(const struct et_params *params);
  /**
   * The parameters of a sealed set whose names fit one of `len` patterns (`*` stands for any text) as a set of its
   * own: the same values and gradients, but `params_len`, steps, norms and `params_zero_grads` see these alone.
   * Errors: NOT_FOUND naming a pattern that fits no trainable parameter, FAILED_PRECONDITION before `seal`.
   * [one-at-a-time] since 0.2
   */
  struct et_error *(*params_part)(const struct et_params *params,
                                  const struct et_str *patterns,
                                  size_t len,
                                  struct et_params **out);
  /**
   * Moves the values of `to` towards those of `from`, parameter by parameter of one name: to + factor (from - to).
   * 1 copies, 0.001 follows slowly. Parameters that `from` has and `to` has not are left out. Errors: NOT_FOUND
   * naming a parameter that `from` lacks, SHAPE. [one-at-a-time] since 0.2
   */
  struct et_error *(*params_lerp)(struct et_params *to, const struct et_params *from, double factor);
  /**
   * Adds the gradients of `from`, times `factor`, to those of `to`, parameter by parameter of one name; those that
   * no gradient has reached in `from` are left out. Both are sealed. Errors: NOT_FOUND, SHAPE,
   * FAILED_PRECONDITION. [one-at-a-time] since 0.2
   */
  struct et_error *(*params_add_grads)(struct et_params *to,
                                       const struct et_params *from,
                                       double factor);
  /**
   * The arena of a sealed set as a tensor [`params_arena_len`] that shares its memory: `which` is an `ET_ARENA_`
   * constant. Gradients are settled: those that no pass has reached are zero, and count as having come. What is
   * written to it (by reductions over machines) is what optimizers see. It is asked for anew before each time that
   * values are written, because the call makes copies of them stale. Errors: FAILED_PRECONDITION before `seal`.
   * [one-at-a-time] since 0.2
   */
  struct et_error *(*params_arena)(struct et_params *params, int32_t which, struct et_tensor **out);
} et_host_param;

/**
 * Arguments of `layer_norm`: y = gamma * (h - mean) / sqrt(var + epsilon) + beta with h = residual + dropout(x),
 * over the last axis (Ba et al. 2016).
 */
typedef struct et_layer_norm {
  /**
   * Bytes filled by the caller.
   */
  size_t struct_size;
  /**
   * Input [.., h].
   */
  const struct et_tensor *x;
  /**
   * Added after dropout, same shape, or NULL.
   */
  const struct et_tensor *residual;
  /**
   * Scale [h].
   */
  const struct et_tensor *gamma;
  /**
   * Shift [h].
   */
  const struct et_tensor *beta;
  /**
   * Added to the variance.
   */
  double epsilon;
  /**
   * Probability of dropping an element of `x`, in [0, 1); 0 when `rng` is NULL.
   */
  double dropout;
  /**
   * Source of the dropout numbers, or NULL.
   */
  struct et_rng *rng;
} et_layer_norm;

/**
 * Arguments of `attention`: softmax(S) V per head, each token within its run (Vaswani et al. 2017), where
 *
 * S[i, j] = scale (q_i k_j + p_i K[b] + k_j Q[b] + s[i, differ]) + bias[c].
 *
 * All but the first product are there only if the caller gives them. K and Q are tables of positions, p the queries
 * of positions and s the scores of segments; b and c are the buckets of the distance `j - (i + lk - lq)` between
 * query `i` of the run's `lq` and key `j` of its `lk`: the last query stands where the last key does, as with a cache
 * of keys. A query that sees no key gives zeros.
 */
typedef struct et_attention {
  /**
   * Bytes filled by the caller. What lies beyond counts as 0 or NULL; what the host does not know must be 0.
   */
  size_t struct_size;
  /**
   * Queries [Tq, heads * d].
   */
  const struct et_tensor *query;
  /**
   * Keys [Tk, heads * d].
   */
  const struct et_tensor *key;
  /**
   * Values [Tk, heads * d].
   */
  const struct et_tensor *value;
  /**
   * Cumulative lengths of the runs [B + 1] I64, of the queries.
   */
  const struct et_tensor *starts;
  /**
   * Cumulative lengths of the runs of keys and values [B + 1] I64; NULL when they are those of the queries.
   */
  const struct et_tensor *key_starts;
  /**
   * Number of heads; divides the last axis.
   */
  size_t heads;
  /**
   * Factor on the scores; 0 means 1 / sqrt(d).
   */
  double scale;
  /**
   * Probability of dropping an attention weight, in [0, 1); 0 when `rng` is NULL.
   */
  double dropout;
  /**
   * Source of the dropout numbers, or NULL.
   */
  struct et_rng *rng;
  /**
   * 1 when a token may not look at later ones, else 0: keys of a greater distance than 0 are not seen.
   */
  int32_t causal;
  /**
   * Must be 0.
   */
  int32_t reserved;
  /**
   * Greatest distance, to either side, at which a key is seen; 0 for no limit.
   */
  size_t window;
  /**
   * Bias [buckets, heads] by distance (Raffel et al. 2020), or NULL. Not scaled.
   */
  const struct et_tensor *bias;
  /**
   * Row of `bias` for each distance from -reach to reach, I64 [2 reach + 1]; greater ones count as reach.
   */
  const struct et_tensor *bias_buckets;
  /**
   * Keys of positions [P, heads * d], which queries meet (Dai et al. 2019; He et al. 2021), or NULL.
   */
  const struct et_tensor *position_keys;
  /**
   * The queries [Tq, heads * d] that meet `position_keys`; NULL when they are `query`.
   */
  const struct et_tensor *position_query;
  /**
   * Queries of positions [P, heads * d], which keys meet, or NULL.
   */
  const struct et_tensor *position_queries;
  /**
   * Row of `position_keys` and `position_queries` for each distance, as `bias_buckets`.
   */
  const struct et_tensor *position_buckets;
  /**
   * Scores [Tq, heads, 2] of keys of the query's own segment and of other segments (Yang et al. 2019), or NULL.
   * Scaled.
   */
  const struct et_tensor *segment_scores;
  /**
   * Segments of the queries, I64 [Tq].
   */
  const struct et_tensor *segments;
  /**
   * Segments of the keys, I64 [Tk]; NULL when they are those of the queries.
   */
  const struct et_tensor *key_segments;
  /**
   * Places of the queries in an order, I64 [Tq], or NULL: keys of a later place are not seen.
   */
  const struct et_tensor *order;
  /**
   * Places of the keys, I64 [Tk]; NULL when they are those of the queries.
   */
  const struct et_tensor *key_order;
  /**
   * 1 when keys of the query's own place are seen, too, else 0.
   */
  int32_t order_inclusive;
  /**
   * Must be 0.
   */
  int32_t reserved_2;
} et_attention;

/**
 * One optimizer step.
 */
typedef struct et_optim_step {
  /**
   * Bytes filled by the caller.
   */
  size_t struct_size;
  /**
   * An `ET_OPTIM_` constant.
   */
  int32_t kind;
  /**
   * SGD: 1 for Nesterov momentum, else 0.
   */
  int32_t nesterov;
  /**
   * Learning rate; each parameter's `lr_scale` multiplies it.
   */
  double lr;
  /**
   * Weight decay for parameters that have it.
   */
  double weight_decay;
  /**
   * Decay of the first moment (Adam kinds).
   */
  double beta1;
  /**
   * Decay of the second moment (Adam kinds); Adafactor: exponent of the decay, -0.8.
   */
  double beta2;
  /**
   * Added to the denominator (Adam kinds); Adafactor: added to the squared gradient, 1e-30.
   */
  double epsilon;
  /**
   * SGD: momentum. Adafactor: clipping threshold, 1.
   */
  double momentum;
  /**
   * Number of this step, from 1.
   */
  uint64_t step;
  /**
   * First element of the arena that is changed.
   */
  size_t begin;
  /**
   * End of the elements that are changed; 0 for the end of the arena. LAMB and Adafactor want bounds between
   * parameters. since 0.2
   */
  size_t end;
} et_optim_step;

/**
 * `et.nn/1`: fused differentiable operations, written once per device in the engine. "Runs" are the rows of a batch
 * laid end to end; `starts` [B + 1] holds their cumulative lengths.
 */
typedef struct et_host_nn {
  /**
   * Bytes filled by the host.
   */
  size_t struct_size;
  /**
   * activation(x W^T + b) for x [.., i], W [o, i], b [o] or NULL, with an `ET_ACTIVATION_` constant. [any-thread]
   * since 0.1
   */
  struct et_error *(*linear)(const struct et_tensor *x,
                             const struct et_tensor *weight,
                             const struct et_tensor *bias,
                             int32_t activation,
                             struct et_tensor **out);
  /**
   * Layer normalisation with residual and dropout. [any-thread] since 0.1
   */
  struct et_error *(*layer_norm)(const struct et_layer_norm *args, struct et_tensor **out);
  /**
   * x / sqrt(mean(x^2) + epsilon) * gamma over the last axis (Zhang and Sennrich 2019). [any-thread] since 0.1
   */
  struct et_error *(*rms_norm)(const struct et_tensor *x,
                               const struct et_tensor *gamma,
                               double epsilon,
                               struct et_tensor **out);
  /**
   * Sum of `len` table look-ups: tables [rows_k, h] at ids_k [T] I64. Errors: INVALID_ARGUMENT naming position, id
   * and rows. [any-thread] since 0.1
   */
  struct et_error *(*embedding_sum)(const struct et_tensor *const *tables,
                                    const struct et_tensor *const *ids,
                                    size_t len,
                                    struct et_tensor **out);
  /**
   * Attention over runs. Errors: SHAPE, DTYPE, INVALID_ARGUMENT naming the member. [any-thread] since 0.1
   */
  struct et_error *(*attention)(const struct et_attention *args, struct et_tensor **out);
  /**
   * Softmax over the last axis. [any-thread] since 0.1
   */
  struct et_error *(*softmax)(const struct et_tensor *x, struct et_tensor **out);
  /**
   * Logarithm of softmax over the last axis. [any-thread] since 0.1
   */
  struct et_error *(*log_softmax)(const struct et_tensor *x, struct et_tensor **out);
  /**
   * Mean cross entropy of logits [N, C] and labels [N] I64, rows weighted by `weights` [N] or NULL; rows with
   * `ignore_index` do not count; `smoothing` in [0, 1) spreads that mass over all classes. The result is a scalar,
   * 0 when no row counts. [any-thread] since 0.1
   */
  struct et_error *(*cross_entropy)(const struct et_tensor *logits,
                                    const struct et_tensor *labels,
                                    const struct et_tensor *weights,
                                    int64_t ignore_index,
                                    double smoothing,
                                    struct et_tensor **out);
  /**
   * Mean binary cross entropy of logits and targets of one shape [N, C] or [N], rows weighted by `weights` [N] or
   * NULL. [any-thread] since 0.1
   */
  struct et_error *(*binary_cross_entropy)(const struct et_tensor *logits,
                                           const struct et_tensor *targets,
                                           const struct et_tensor *weights,
                                           struct et_tensor **out);
  /**
   * Each element dropped with probability p and the rest divided by 1 - p; the identity when `rng` is NULL.
   * [any-thread] since 0.1
   */
  struct et_error *(*dropout)(const struct et_tensor *x,
                              double p,
                              struct et_rng *rng,
                              struct et_tensor **out);
  /**
   * One vector per run, x [T, h] -> [B, h], by an `ET_POOL_` constant; an empty run gives zeros. [any-thread]
   * since 0.1
   */
  struct et_error *(*pool)(const struct et_tensor *x,
                           const struct et_tensor *starts,
                           int32_t kind,
                           struct et_tensor **out);
  /**
   * Runs padded with zeros, x [T, h] -> [B, len, h]; longer runs are cut. [any-thread] since 0.1
   */
  struct et_error *(*to_padded)(const struct et_tensor *x,
                                const struct et_tensor *starts,
                                size_t len,
                                struct et_tensor **out);
  /**
   * The inverse of `to_padded`: [B, len, h] -> [T, h]; tokens past `len` are zeros. [any-thread] since 0.1
   */
  struct et_error *(*from_padded)(const struct et_tensor *x,
                                  const struct et_tensor *starts,
                                  struct et_tensor **out);
  /**
   * 1-D convolution within each run with zero padding that keeps lengths: x [T, i], weight [o, i, k], bias [o] or
   * NULL -> [T, o]. [any-thread] since 0.1
   */
  struct et_error *(*conv1d)(const struct et_tensor *x,
                             const struct et_tensor *weight,
                             const struct et_tensor *bias,
                             const struct et_tensor *starts,
                             size_t dilation,
                             struct et_tensor **out);
  /**
   * LSTM over runs (Hochreiter and Schmidhuber 1997; gates i, f, g, o): x [T, i], w_ih [4h, i], w_hh [4h, h],
   * biases [4h] -> [T, h]; `reverse` 1 reads each run from its end. [any-thread] since 0.1
   */
  struct et_error *(*lstm)(const struct et_tensor *x,
                           const struct et_tensor *w_ih,
                           const struct et_tensor *w_hh,
                           const struct et_tensor *b_ih,
                           const struct et_tensor *b_hh,
                           const struct et_tensor *starts,
                           int32_t reverse,
                           struct et_tensor **out);
  /**
   * GRU over runs (Cho et al. 2014; gates r, z, n); otherwise as `lstm` with 3h rows. [any-thread] since 0.1
   */
  struct et_error *(*gru)(const struct et_tensor *x,
                          const struct et_tensor *w_ih,
                          const struct et_tensor *w_hh,
                          const struct et_tensor *b_ih,
                          const struct et_tensor *b_hh,
                          const struct et_tensor *starts,
                          int32_t reverse,
                          struct et_tensor **out);
  /**
   * Mean over runs of the negative log likelihood of a linear-chain CRF (Lafferty et al. 2001): emissions [T, C],
   * tags [T] I64, transitions [C, C] (from, to), first [C], last [C]. [any-thread] since 0.1
   */
  struct et_error *(*crf_loss)(const struct et_tensor *emissions,
                               const struct et_tensor *tags,
                               const struct et_tensor *starts,
                               const struct et_tensor *transitions,
                               const struct et_tensor *first,
                               const struct et_tensor *last,
                               struct et_tensor **out);
  /**
   * The most probable tags [T] I64 of that CRF (Viterbi). No gradient. [any-thread] since 0.1
   */
  struct et_error *(*crf_decode)(const struct et_tensor *emissions,
                                 const struct et_tensor *starts,
                                 const struct et_tensor *transitions,
                                 const struct et_tensor *first,
                                 const struct et_tensor *last,
                                 struct et_tensor **out);
  /**
   * Fresh state of an optimizer kind for a sealed set, as named tensors that `optim_step` changes in place.
   * [one-at-a-time] since 0.1
   */
  struct et_error *(*optim_state)(const struct et_params *params, int32_t kind, struct et_map **out);
  /**
   * One step over the whole arena; parameters without a gradient are left alone. Errors: FAILED_PRECONDITION when
   * not sealed, SHAPE when the state belongs to another set or kind. [one-at-a-time] since 0.1
   */
  struct et_error *(*optim_step)(struct et_params *params,
                                 struct et_map *state,
                                 const struct et_optim_step *step);
  /**
   * 1 if the opcode of a family ("unary", "binary", "compare", "reduce", "activation", "optim", "attention") works
   * for that dtype on the present device, else 0. [any-thread] since 0.1
   */
  int32_t (*supports)(const char *family, int32_t opcode, int32_t dtype);
} et_host_nn;

/**
 * `et.group/1`: collective operations. Every member calls them in the same order. They work in place on contiguous
 * views, are enqueued on `stream` where the memory is that of a card, and otherwise are done when they return.
 */
typedef struct et_group_table {
  /**
   * Bytes filled by the library.
   */
  size_t struct_size;
  /**
   * Number of this member, from 0. [any-thread] since 0.2
   */
  size_t (*rank)(const struct et_group *group);
  /**
   * Number of members. [any-thread] since 0.2
   */
  size_t (*size)(const struct et_group *group);
  /**
   * Puts the reduction (`ET_GROUP_`) over all members into everybody's `data`. [one-at-a-time] since 0.2
   */
  struct et_error *(*all_reduce)(struct et_group *group,
                                 const struct et_view *data,
                                 int32_t reduction,
                                 void *stream);
  /**
   * Of the reduction over all members, member r gets part r of `size` equal parts of `data` into `part`; the length
   * of `data` is `size` times that of `part`. [one-at-a-time] since 0.2
   */
  struct et_error *(*reduce_scatter)(struct et_group *group,
                                     const struct et_view *data,
                                     const struct et_view *part,
                                     int32_t reduction,
                                     void *stream);
  /**
   * Everybody's `part`, in the order of ranks, into everybody's `data`. [one-at-a-time] since 0.2
   */
  struct et_error *(*all_gather)(struct et_group *group,
                                 const struct et_view *part,
                                 const struct et_view *data,
                                 void *stream);
  /**
   * The `data` of member `root` into everybody's. [one-at-a-time] since 0.2
   */
  struct et_error *(*broadcast)(struct et_group *group,
                                const struct et_view *data,
                                size_t root,
                                void *stream);
  /**
   * Returns once every member has called it. [one-at-a-time] since 0.2
   */
  struct et_error *(*barrier)(struct et_group *group);
  /**
   * Leaves the group. Accepts NULL. [one-at-a-time] since 0.2
   */
  void (*release)(struct et_group *group);
} et_group_table;

/**
 * The host, as a plugin sees it. Lives until the process ends; a plugin may keep the pointer.
 */
typedef struct et_host {
  /**
   * Bytes filled by the host.
   */
  size_t struct_size;
  /**
   * `ET_ABI_MAJOR` of the host.
   */
  uint32_t abi_major;
  /**
   * `ET_ABI_MINOR` of the host.
   */
  uint32_t abi_minor;
  /**
   * The table with this id, for instance "et.tensor/1", or NULL if this host does not have it. The table lives
   * until the process ends. [any-thread] since 0.1
   */
  const void *(*get_interface)(const struct et_host *host, const char *id);
  /**
   * A draft table by its versioned name, for instance "tensor.fft@0", or NULL. Drafts may vanish in any release.
   * [any-thread] since 0.1
   */
  const void *(*get_experimental)(const struct et_host *host, const char *name);
  /**
   * Makes an error with one of the `ET_ERR_` codes; the message is copied. Never NULL. [any-thread] since 0.1
   */
  struct et_error *(*error_new)(int32_t code, struct et_str message);
  /**
   * Code of an error; 0 for NULL. [any-thread] since 0.1
   */
  int32_t (*error_code)(const struct et_error *error);
  /**
   * Message of an error, valid until the error is released; empty for NULL. [any-thread] since 0.1
   */
  struct et_str (*error_message)(const struct et_error *error);
  /**
   * Gives an error back. Accepts NULL. [any-thread] since 0.1
   */
  void (*error_release)(struct et_error *error);
  /**
   * Number of handles (tensors, parameters, maps, errors ...) that are alive; for leak tests. [any-thread] since
   * 0.1
   */
  int64_t (*live_handles)(void);
  /**
   * As `error_new`, with details for the one who gets the error: a JSON object, which is copied. Never NULL. What
   * details there are is said by the slot that returns the error; whoever does not know them has the message.
   * [any-thread] since 0.1
   */
  struct et_error *(*error_new_detailed)(int32_t code, struct et_str message, struct et_str details);
  /**
   * Details of an error, valid until the error is released; empty for NULL and for an error that has none.
   * [any-thread] since 0.1
   */
  struct et_str (*error_details)(const struct et_error *error);
} et_host;

/**
 * The record that the one exported symbol of a library of communication, `const et_group_record
 * *et_group_entry(void)`, returns. The fields up to `version` are frozen for all time.
 */
typedef struct et_group_record {
  /**
   * `ET_GROUP_MAGIC`.
   */
  uint64_t magic;
  /**
   * `ET_ABI_MAJOR` the library was built for.
   */
  uint32_t abi_major;
  /**
   * `ET_ABI_MINOR` the library needs at least.
   */
  uint32_t abi_minor;
  /**
   * Bytes filled by the library.
   */
  size_t struct_size;
  /**
   * How it communicates: "nccl" or "tcp".
   */
  const char *id;
  /**
   * Version of the library.
   */
  const char *version;
  /**
   * Joins a group. `options` is JSON: {"rank": 0, "size": 2, "address": "host:port of rank 0", "device": 0}.
   * Returns once all members are there. Errors: INVALID_ARGUMENT naming the option, DEVICE. [one-at-a-time] since
   * 0.2
   */
  struct et_error *(*join)(const struct et_host *host,
                           struct et_str options,
                           const struct et_group_table **table,
                           struct et_group **out);
} et_group_record;

/**
 * `et.log/1`: messages to the host's log.
 */
typedef struct et_host_log {
  /**
   * Bytes filled by the host.
   */
  size_t struct_size;
  /**
   * Writes one message. `level` is an `ET_LOG_` constant, `target` names the writer (a plugin id). Never fails.
   * [any-thread] since 0.1
   */
  void (*write)(int32_t level, struct et_str target, struct et_str message);
} et_host_log;

/**
 * The record that the one exported symbol of an engine library, `const et_engine_record *et_engine_entry(void)`,
 * returns. The fields up to `version` are frozen for all time: the loader reads them before anything else.
 */
typedef struct et_engine_record {
  /**
   * `ET_ENGINE_MAGIC`.
   */
  uint64_t magic;
  /**
   * `ET_ABI_MAJOR` the engine was built for.
   */
  uint32_t abi_major;
  /**
   * `ET_ABI_MINOR` the engine offers.
   */
  uint32_t abi_minor;
  /**
   * Bytes filled by the engine.
   */
  size_t struct_size;
  /**
   * What it computes on: "cuda" or "cpu".
   */
  const char *id;
  /**
   * Version of the engine, for instance "0.1.0"; the loader wants its own.
   */
  const char *version;
  /**
   * The host table of the engine, there before `open`; lives until the process ends.
   */
  const struct et_host *host;
  /**
   * Starts the engine on device number `device`. `options` is JSON: {"precision": "f32" | "tf32" | "bf16" | "f16",
   * "threads": 4, "deterministic": false}. Called once, before any tensor is made. Errors: UNIMPLEMENTED for what the device
   * cannot do, FAILED_PRECONDITION when it is open already. [one-at-a-time] since 0.1
   */
  struct et_error *(*open)(int32_t device, struct et_str options);
  /**
   * Adds a table to those that `get_interface` of the engine's host finds; it lives until the process ends.
   * [any-thread] since 0.1
   */
  void (*provide)(const char *id, const void *table);
  /**
   * What the engine did so far, as JSON: {"device": "..", "launches": 0, "allocations": 0, "host_fallbacks":
   * {"op": 0}, "waits": {"for what": 0}, "bytes_in_use": 0, "bytes_peak": 0, "held": {"parameters": 0, ..}}.
   * [any-thread] since 0.1
   */
  struct et_error *(*report)(struct et_buffer **out);
} et_engine_record;

/**
 * `et.context/1`. All slots are [callback-thread], called from inside `features`.
 */
typedef struct et_host_context {
  /**
   * Bytes filled by the host.
   */
  size_t struct_size;
  /**
   * 1 if the features are for training, else 0. since 0.2
   */
  int32_t (*training)(const struct et_context *context);
  /**
   * Epoch of training, counted from 0; 0 for apps whose features are kept. since 0.2
   */
  uint64_t (*epoch)(const struct et_context *context);
  /**
   * Number of the source that the record comes from: 0 for the file itself. since 0.2
   */
  uint64_t (*source)(const struct et_context *context);
  /**
   * Number of the record in its source. since 0.2
   */
  uint64_t (*record)(const struct et_context *context);
  /**
   * Number of records of the source, as far as they can be read by `record_at`: 0 where the source is read as it
   * comes. since 0.2
   */
  uint64_t (*records_len)(const struct et_context *context);
  /**
   * Another record of the source as a JSON object from role to value. Errors: NOT_FOUND. since 0.2
   */
  struct et_error *(*record_at)(struct et_context *context, uint64_t index, struct et_buffer **out);
  /**
   * Random numbers that depend on the run's seed, the source, the epoch and the record alone, borrowed for the
   * call. since 0.2
   */
  struct et_error *(*rng)(struct et_context *context, struct et_rng **out);
} et_host_context;

/**
 * What a forward pass is for.
 */
typedef struct et_call {
  /**
   * Bytes filled by the caller.
   */
  size_t struct_size;
  /**
   * 1 while training (dropout is on), else 0.
   */
  int32_t training;
  /**
   * Set of `ET_WANT_` bits.
   */
  uint32_t want;
  /**
   * Source of random numbers while training, else NULL.
   */
  struct et_rng *rng;
  /**
   * What the model keeps of the tokens so far while the host generates, else NULL. Empty before the first tokens:
   * the model then reads the whole batch and puts in what it will want; later a batch holds the new tokens of the
   * growing runs alone, and the model appends. Entries lie in name spaces as those of a batch do: each space has
   * "starts" [B+1] and tensors with one row per token, by which the host reorders runs (beams) and drops finished
   * ones. A cache of another model is refused. since 0.2
   */
  struct et_map *cache;
} et_call;

/**
 * `et.net/1`. All slots are [callback-thread], called from inside an app's `forward`.
 */
typedef struct et_host_net {
  /**
   * Bytes filled by the host.
   */
  size_t struct_size;
  /**
   * Runs the encoder (module "") or a module that the app declared on a batch; its outputs are added to `outputs`.
   * `call` is that of `forward`, or another. Errors: NOT_FOUND, the model's. since 0.2
   */
  struct et_error *(*run)(struct et_net *net,
                          struct et_str module,
                          const struct et_call *call,
                          const struct et_map *batch,
                          struct et_map *outputs);
  /**
   * The tensor of a parameter of the whole set by its name, on the tape while training: for heads that are tied to
   * the encoder. Errors: NOT_FOUND. since 0.2
   */
  struct et_error *(*param)(struct et_net *net, struct et_str name, struct et_tensor **out);
  /**
   * Continues the runs of `batch` by the encoder (module "") or another module, token by token, without a tape.
   * The runs that grow are those of "decoder/ids" where the batch has them, else those of "ids"; the rest of the
   * batch is read once. The module must answer `ET_WANT_LOGITS`. `options` is JSON: {"max_new_tokens": 64,
   * "min_new_tokens": 0, "eos": [ids that end a run], "beams": 1, "length_penalty": 1.0, "early_stopping": false |
   * true | "never", "no_repeat_ngram": 0, "repetition_penalty": 1.0, "forced_first": id or null, "forced_last": id
   * or null, "sample": false, "temperature": 1.0, "top_k": 0, "top_p": 1.0, "seed": 0, "return": 1, "cache":
   * true}. Adds to `outputs`: "generated/ids" [N] I64 and "generated/starts" [R+1] I64, the new tokens of R = B *
   * "return" runs (those of one run side by side, the best first), and "generated/scores" [R] F32, the sums of log
   * probabilities by the length penalty, or zeros without beams. Errors: INVALID_ARGUMENT naming the option,
   * FAILED_PRECONDITION for a module without logits. since 0.2
   */
  struct et_error *(*generate)(struct et_net *net,
                               struct et_str module,
                               const struct et_map *batch,
                               struct et_str options,
                               struct et_map *outputs);
} et_host_net;

/**
 * The record that the one exported symbol of a plugin, `const et_plugin_record *et_plugin_entry(void)`, returns; its
 * name may have `_` and the plugin's id behind it, so that several plugins can be linked into one program. The
 * fields up to `version` are frozen for all time: the host reads them before it calls anything.
 */
typedef struct et_plugin_record {
  /**
   * `ET_PLUGIN_MAGIC`.
   */
  uint64_t magic;
  /**
   * `ET_ABI_MAJOR` the plugin was built for.
   */
  uint32_t abi_major;
  /**
   * `ET_ABI_MINOR` the plugin needs at least.
   */
  uint32_t abi_minor;
  /**
   * Bytes filled by the plugin.
   */
  size_t struct_size;
  /**
   * `ET_PLUGIN_FLAG_` bits.
   */
  uint32_t flags;
  /**
   * Must be 0.
   */
  uint32_t reserved;
  /**
   * Id of the plugin, for instance "loss-basic"; the same as in its manifest.
   */
  const char *id;
  /**
   * Version of the plugin, for instance "0.1.0".
   */
  const char *version;
  /**
   * Called before any component is made; keeps `host` and fetches the interfaces it needs. May be called more than
   * once. [one-at-a-time] since 0.1
   */
  struct et_error *(*init)(const struct et_host *host);
  /**
   * Called when the host is done; logical only, the library stays loaded. May be NULL. [one-at-a-time] since 0.1
   */
  void (*shutdown)(void);
  /**
   * Component `index` of a kind ("et.model/1", "et.loss/1", "et.optimizer/1", "et.strategy/1", "et.app/1",
   * "et.op/1", "et.metric/1") as a pointer to its table, which lives until the process ends; NULL past the last
   * one and for unknown kinds. [any-thread] since 0.1
   */
  const void *(*component)(const char *kind, size_t index);
} et_plugin_record;

/**
 * `et.model/1`: an encoder or any other network below the head.
 */
typedef struct et_plugin_model {
  /**
   * Bytes filled by the plugin.
   */
  size_t struct_size;
  /**
   * Name users write: the `model_type` of the configuration, for instance "bert".
   */
  const char *name;
  /**
   * JSON Schema of the configuration.
   */
  const char *schema;
  /**
   * Declares the parameters in `scope` and makes an instance. `config` is the content of config.json.
   * [one-at-a-time] since 0.1
   */
  struct et_error *(*create)(struct et_str config, const struct et_scope *scope, void **out);
  /**
   * What the trainer must know, as JSON: {"hidden_size": 384, "layers": 6, "vocab_size": 30522, "max_positions":
   * 512, "base_prefix": "bert", "pooled": true, "class": "BertModel", "tasks": {"sequence-classification":
   * {"class": "BertForSequenceClassification", "form": "bert"}, ...}, "ignore": ["cls."], "decoder_start": token
   * with which a decoder's run begins, or null, "eos": [tokens that end a continued run]}. [one-at-a-time] since
   * 0.2
   */
  struct et_error *(*describe)(void *instance, struct et_buffer **out);
  /**
   * Reads "ids", "positions", "starts" and, where it has them, "segments" from `batch`; writes "last" [T, h], and
   * "pooled" [B, h], "hidden_states/k" and "logits" when wanted, to `outputs`. A model with an encoder and a
   * decoder also reads "decoder/ids", "decoder/positions" and "decoder/starts", and writes "decoder/last".
   * [one-at-a-time] since 0.1
   */
  struct et_error *(*forward)(void *instance,
                              const struct et_call *call,
                              const struct et_map *batch,
                              struct et_map *outputs);
  /**
   * Frees the instance. Accepts NULL. [one-at-a-time] since 0.1
   */
  void (*release)(void *instance);
} et_plugin_model;

/**
 * `et.loss/1`: a scalar from outputs and targets.
 */
typedef struct et_plugin_loss {
  /**
   * Bytes filled by the plugin.
   */
  size_t struct_size;
  /**
   * Name users write, for instance "cross-entropy".
   */
  const char *name;
  /**
   * JSON Schema of the options.
   */
  const char *schema;
  /**
   * Makes an instance from options as JSON. [one-at-a-time] since 0.1
   */
  struct et_error *(*create)(struct et_str options, void **out);
  /**
   * `outputs` usually holds "logits"; `batch` holds "labels" and, when rows are weighted, "weights" [B]. The
   * result is a scalar. [one-at-a-time] since 0.1
   */
  struct et_error *(*forward)(void *instance,
                              const struct et_call *call,
                              const struct et_map *outputs,
                              const struct et_map *batch,
                              struct et_tensor **out);
  /**
   * Frees the instance. Accepts NULL. [one-at-a-time] since 0.1
   */
  void (*release)(void *instance);
  /**
   * The loss of each row by itself, [B]; `forward` is their mean, weighted by "weights" where the batch has them.
   * May be NULL where rows have no loss of their own (in-batch negatives). [one-at-a-time] since 0.2
   */
  struct et_error *(*rows)(void *instance,
                           const struct et_call *call,
                           const struct et_map *outputs,
                           const struct et_map *batch,
                           struct et_tensor **out);
  /**
   * What `forward` is a mean over: the number of rows, of tokens, or the sum of their weights. Means over several
   * batches weigh each by this. NULL means the number of rows. [one-at-a-time] since 0.2
   */
  struct et_error *(*weight)(void *instance, const struct et_map *batch, double *out);
} et_plugin_loss;

/**
 * `et.optimizer/1`: a step over a parameter set.
 */
typedef struct et_plugin_optimizer {
  /**
   * Bytes filled by the plugin.
   */
  size_t struct_size;
  /**
   * Name users write, for instance "adamw".
   */
  const char *name;
  /**
   * JSON Schema of the options; its key "default_lr" is the peak learning rate of runs that set none.
   */
  const char *schema;
  /**
   * Makes an instance for a sealed set, which outlives it. [one-at-a-time] since 0.1
   */
  struct et_error *(*create)(struct et_str options, struct et_params *params, void **out);
  /**
   * Changes the parameters by their gradients. `lr` is this step's learning rate, `step` counts from 1.
   * [one-at-a-time] since 0.1
   */
  struct et_error *(*step)(void *instance, struct et_params *params, double lr, uint64_t step);
  /**
   * Writes the state. [one-at-a-time] since 0.1
   */
  struct et_error *(*state_save)(void *instance, struct et_stream *stream);
  /**
   * Reads the state back. [one-at-a-time] since 0.1
   */
  struct et_error *(*state_load)(void *instance, struct et_stream *stream);
  /**
   * Frees the instance. Accepts NULL. [one-at-a-time] since 0.1
   */
  void (*release)(void *instance);
  /**
   * As `step`, but changes only the elements from `begin` to `end` of the arena (`params_arena_len` of them), and
   * of the state what belongs to them: machines that share the work each do a part. NULL where a step needs all of
   * them. Errors: INVALID_ARGUMENT for bounds inside a parameter where the kind does not allow it. [one-at-a-time]
   * since 0.2
   */
  struct et_error *(*step_part)(void *instance,
                                struct et_params *params,
                                double lr,
                                uint64_t step,
                                size_t begin,
                                size_t end);
} et_plugin_optimizer;

/**
 * `et.strategy/1`: a transfer-learning method as hooks of the shared step, or as the whole fit.
 */
typedef struct et_plugin_strategy {
  /**
   * Bytes filled by the plugin.
   */
  size_t struct_size;
  /**
   * Name users write, for instance "finetune".
   */
  const char *name;
  /**
   * JSON Schema of the options.
   */
  const char *schema;
  /**
   * Makes an instance. [one-at-a-time] since 0.1
   */
  struct et_error *(*create)(struct et_str options, void **out);
  /**
   * Set of `ET_PHASE_` bits: the hooks that are used. [one-at-a-time] since 0.1
   */
  uint32_t (*phases)(void *instance);
  /**
   * Weights are loaded and nothing is sealed yet: freeze, scale rates, add low-rank updates, load other models.
   * [one-at-a-time] since 0.1
   */
  struct et_error *(*on_setup)(void *instance, struct et_session *session);
  /**
   * May put "weights" [B] into the batch. [one-at-a-time] since 0.1
   */
  struct et_error *(*on_batch)(void *instance, struct et_session *session, struct et_map *batch);
  /**
   * May add losses to the session. [one-at-a-time] since 0.1
   */
  struct et_error *(*on_outputs)(void *instance,
                                 struct et_session *session,
                                 const struct et_map *batch,
                                 const struct et_map *outputs);
  /**
   * Makes one scalar of all losses of the step (weights applied). [one-at-a-time] since 0.1
   */
  struct et_error *(*combine)(void *instance,
                              struct et_session *session,
                              const struct et_map *losses,
                              struct et_tensor **out);
  /**
   * Gradients are complete and not yet clipped. [one-at-a-time] since 0.1
   */
  struct et_error *(*on_gradients)(void *instance, struct et_session *session);
  /**
   * After epoch `epoch` (from 1); `metrics` is a JSON object, empty without validation data. [one-at-a-time] since
   * 0.1
   */
  struct et_error *(*on_epoch)(void *instance,
                               struct et_session *session,
                               uint64_t epoch,
                               struct et_str metrics);
  /**
   * Drives the whole fit by `next_batch`, `step_once`, `optimizer_step` and `commit` of the session, from step
   * `step` of the session on: after a resume that is not 0. Of its own hooks only `on_setup` is called then; other
   * strategies of the run have theirs called by `step_once`. Must return CANCELLED, or soon return, once `commit`
   * says so. [one-at-a-time] since 0.2
   */
  struct et_error *(*fit)(void *instance, struct et_session *session);
  /**
   * Writes the state for a checkpoint. May be NULL when there is none. [one-at-a-time] since 0.1
   */
  struct et_error *(*state_save)(void *instance, struct et_stream *stream);
  /**
   * Reads the state back. May be NULL when there is none. [one-at-a-time] since 0.1
   */
  struct et_error *(*state_load)(void *instance, struct et_stream *stream);
  /**
   * Frees the instance. Accepts NULL. [one-at-a-time] since 0.1
   */
  void (*release)(void *instance);
  /**
   * More columns that the strategy needs of every training record, as JSON: [{"role": "domain", "names":
   * ["domain"], "required": true, "kind": "category" or "number"}, ...]. Batches have them as fields of that name:
   * a number as F32 [B], a category as I64 [B], numbered in the order of its first occurrence. May be NULL.
   * [one-at-a-time] since 0.2
   */
  struct et_error *(*columns)(void *instance, struct et_buffer **out);
} et_plugin_strategy;

/**
 * `et.app/1`: from records to features, a head, a loss and predictions.
 */
typedef struct et_plugin_app {
  /**
   * Bytes filled by the plugin.
   */
  size_t struct_size;
  /**
   * Name users write, for instance "text-classify".
   */
  const char *name;
  /**
   * JSON Schema of the options.
   */
  const char *schema;
  /**
   * Makes an instance. `state` is what `state` of an earlier instance returned, or empty for a new app.
   * [one-at-a-time] since 0.1
   */
  struct et_error *(*create)(struct et_str options, struct et_str state, void **out);
  /**
   * Columns that records need, as JSON: [{"role": "text", "names": ["text", "sentence"], "required": true,
   * "target": false}, ...]. Targets may be missing when predicting. [one-at-a-time] since 0.1
   */
  struct et_error *(*columns)(void *instance, struct et_buffer **out);
  /**
   * Sees every training record before training, to learn the labels and to refuse what `features` would refuse.
   * `record` is a JSON object from role to value. Errors: BAD_INPUT, with the details {"role": ..., "expected":
   * ..., "found": ...} for a value that cannot be used (`et_host.error_new_detailed`); the host adds file, line
   * and the column's name. [one-at-a-time] since 0.1
   */
  struct et_error *(*observe)(void *instance, struct et_str record);
  /**
   * All records were seen; decides what follows from them. [one-at-a-time] since 0.1
   */
  struct et_error *(*observed)(void *instance);
  /**
   * What a bundle must keep, as JSON. [one-at-a-time] since 0.1
   */
  struct et_error *(*state)(void *instance, struct et_buffer **out);
  /**
   * What the host must know, as JSON: {"loss": {"name": ..., "options": {}} or null, "metrics": [{"name": ...,
   * "options": {}}], "best": "accuracy", "best_is": "max", "want": 2, "labels": [...], "config": {entries for
   * config.json}, "longest": most tokens of a record's features after `build`, 0 if not known, "task": the model's
   * task whose head this is, or "", "pretrained_head": whether a head of the checkpoint is taken over, "fresh":
   * whether features change from epoch to epoch, "finish": whether `finish` is wanted for every record, "modules":
   * [{"name": ...}] that `forward` runs besides the encoder, "vocabulary": {"tokens": [...], "unknown": token,
   * "padding": token, "lower": bool} from which the host makes a tokenizer of words where the model's directory has
   * none: ids follow the order of "tokens", behind "padding" and "unknown" where these are not among them; words
   * are those of the pre-tokenizer "Whitespace" of a tokenizer.json}. [one-at-a-time] since 0.2
   */
  struct et_error *(*describe)(void *instance, struct et_buffer **out);
  /**
   * Turns a record (JSON object from role to value) into features: adds one row or more. Targets that are absent
   * are left out. Errors: as for `observe`. [any-thread] since 0.2
   */
  struct et_error *(*features)(void *instance,
                               struct et_context *context,
                               const struct et_tokenizer *tokenizer,
                               struct et_str record,
                               struct et_rows *rows);
  /**
   * Declares the parameters of the head in `scope`, the root of the set; `model` is the model's description as
   * JSON. [one-at-a-time] since 0.1
   */
  struct et_error *(*build)(void *instance, const struct et_scope *scope, struct et_str model);
  /**
   * Runs the encoder and other modules by `net` as often as it likes, and writes what the loss and `decode` read
   * to `outputs`, for instance "logits". [one-at-a-time] since 0.2
   */
  struct et_error *(*forward)(void *instance,
                              const struct et_call *call,
                              struct et_net *net,
                              const struct et_map *batch,
                              struct et_map *outputs);
  /**
   * One part per row of the batch, as a JSON array of objects; the only part of a record is its prediction, unless
   * `finish` is wanted. [one-at-a-time] since 0.2
   */
  struct et_error *(*decode)(void *instance,
                             const struct et_map *batch,
                             const struct et_map *outputs,
                             struct et_buffer **out);
  /**
   * Frees the instance. Accepts NULL. [one-at-a-time] since 0.1
   */
  void (*release)(void *instance);
  /**
   * The prediction of a record, a JSON object, from the record and the parts of its rows in their order, a JSON
   * array. Called for records of more than one row, and for all where `describe` says "finish". NULL where records
   * always are one row. [one-at-a-time] since 0.2
   */
  struct et_error *(*finish)(void *instance,
                             struct et_str record,
                             struct et_str parts,
                             struct et_buffer **out);
} et_plugin_app;

/**
 * `et.metric/1`: a figure over a whole data set.
 */
typedef struct et_plugin_metric {
  /**
   * Bytes filled by the plugin.
   */
  size_t struct_size;
  /**
   * Name users write, for instance "accuracy".
   */
  const char *name;
  /**
   * JSON Schema of the options.
   */
  const char *schema;
  /**
   * Makes an instance with nothing counted. [one-at-a-time] since 0.1
   */
  struct et_error *(*create)(struct et_str options, void **out);
  /**
   * Counts one batch. [one-at-a-time] since 0.1
   */
  struct et_error *(*update)(void *instance,
                             const struct et_map *outputs,
                             const struct et_map *batch);
  /**
   * The figures so far as a JSON object from name to number (or nested arrays for a confusion matrix).
   * [one-at-a-time] since 0.1
   */
  struct et_error *(*compute)(void *instance, struct et_buffer **out);
  /**
   * Frees the instance. Accepts NULL. [one-at-a-time] since 0.1
   */
  void (*release)(void *instance);
  /**
   * What the host must know, as JSON: {"of": "outputs" (the default: `update` is called) or "answers" (`answers`
   * is), "lower_is_better": ["mse"]}. May be NULL. [one-at-a-time] since 0.2
   */
  struct et_error *(*describe)(void *instance, struct et_buffer **out);
  /**
   * Counts predictions beside the records that they belong to, both JSON arrays of objects of one length.
   * [one-at-a-time] since 0.2
   */
  struct et_error *(*answers)(void *instance, struct et_str answers, struct et_str records);
  /**
   * Writes what was counted. May be NULL, as `state_merge` then must be. [one-at-a-time] since 0.2
   */
  struct et_error *(*state_save)(void *instance, struct et_stream *stream);
  /**
   * Adds what another instance of the same options has written. [one-at-a-time] since 0.2
   */
  struct et_error *(*state_merge)(void *instance, struct et_stream *stream);
} et_plugin_metric;

/**
 * `et.registry/1`: what other plugins of the host offer.
 */
typedef struct et_host_registry {
  /**
   * Bytes filled by the host.
   */
  size_t struct_size;
  /**
   * The table of an operation by its name; it lives until the process ends, and goes to `apply_op` of
   * `et.autograd/1` as one's own does. Errors: NOT_FOUND naming the nearest name. [any-thread] since 0.2
   */
  struct et_error *(*op)(struct et_str name, const struct et_plugin_op **out);
} et_host_registry;

/**
 * `et.profile/1`: records which operation took how long. Operations of the engine record themselves while a
 * recording runs; spans add what a plugin or a host does. One recording per process.
 */
typedef struct et_host_profile {
  /**
   * Bytes filled by the host.
   */
  size_t struct_size;
  /**
   * 1 while a recording runs, else 0. [any-thread] since 0.1
   */
  int32_t (*is_on)(void);
  /**
   * Starts a recording that keeps at most `capacity` events (0 for the host's default); an earlier recording is
   * forgotten. [any-thread] since 0.1
   */
  void (*start)(size_t capacity);
  /**
   * Ends the recording; what it holds stays until the next start. [any-thread] since 0.1
   */
  void (*stop)(void);
  /**
   * Opens a span on the calling thread and returns its number, 0 while no recording runs. Both texts are copied.
   * [any-thread] since 0.1
   */
  uint64_t (*begin)(struct et_str category, struct et_str name);
  /**
   * Adds a number to an open span of the calling thread; the key is copied. Ignores 0. [any-thread] since 0.1
   */
  void (*note)(uint64_t span, struct et_str key, double value);
  /**
   * Closes a span of the calling thread, and those that were opened inside it. Ignores 0. [any-thread] since 0.1
   */
  void (*end)(uint64_t span);
  /**
   * The recording as a JSON array of the Trace Event Format, which chrome://tracing and Perfetto read.
   * [any-thread] since 0.1
   */
  struct et_error *(*trace)(struct et_buffer **out);
  /**
   * The recording in sums, as a JSON object: `seconds`, `events`, `dropped`, and `ops` by falling own time with
   * `name`, `category`, `calls`, `self_ms`, `total_ms`, `flop`, and on a card `card_ms`. [any-thread] since 0.1
   */
  struct et_error *(*summary)(struct et_buffer **out);
} et_host_profile;

/**
 * How a strategy writes its state while it drives the fit.
 */
typedef struct et_saver {
  /**
   * Bytes filled by the strategy.
   */
  size_t struct_size;
  /**
   * First argument of `save`.
   */
  void *context;
  /**
   * Writes what `state_load` will read. Called before `commit` returns, or never. [callback-thread] since 0.2
   */
  struct et_error *(*save)(void *context, struct et_stream *stream);
} et_saver;

/**
 * `et.session/1`. The model under training is called "model"; models and modules of strategies have the names they
 * were given. Sources of data are "train", "valid" where there is validation data, those of the run's configuration
 * and those that strategies opened. All slots are [one-at-a-time], called from inside the strategy's hooks.
 */
typedef struct et_host_session {
  /**
   * Bytes filled by the host.
   */
  size_t struct_size;
  /**
   * The parameter set of a model or module, borrowed for the life of the session. Errors: NOT_FOUND. since 0.1
   */
  struct et_error *(*params)(struct et_session *session, struct et_str model, struct et_params **out);
  /**
   * Loads a trained bundle as a frozen model under `name`; only in `on_setup`. From then on every batch also
   * carries that model's own features, made by its own tokenizer, under "name/". Errors: NOT_FOUND, BAD_INPUT,
   * ALREADY_EXISTS. since 0.1
   */
  struct et_error *(*load_model)(struct et_session *session, struct et_str name, struct et_str path);
  /**
   * The description of a model as JSON: what the model and its app say of themselves, labels included. since 0.1
   */
  struct et_error *(*describe)(struct et_session *session,
                               struct et_str model,
                               struct et_buffer **out);
  /**
   * Outputs of a model with its app's head on a batch. `training` 1 switches dropout on; `want` is a set of
   * `ET_WANT_` bits. Models that were loaded record nothing on the tape. Errors: FAILED_PRECONDITION for a module
   * without a model. since 0.1
   */
  struct et_error *(*forward)(struct et_session *session,
                              struct et_str model,
                              const struct et_map *batch,
                              int32_t training,
                              uint32_t want,
                              struct et_map **out);
  /**
   * The configured loss of the run on outputs and batch: a scalar. since 0.1
   */
  struct et_error *(*loss)(struct et_session *session,
                           const struct et_map *outputs,
                           const struct et_map *batch,
                           struct et_tensor **out);
  /**
   * Adds a named scalar to this step's losses with a weight; only in `on_outputs`. since 0.1
   */
  struct et_error *(*add_loss)(struct et_session *session,
                               struct et_str name,
                               const struct et_tensor *loss,
                               double weight);
  /**
   * Sets the weight of the run's own loss (named "loss") for this step, 1 by default; only in `on_outputs`. since
   * 0.1
   */
  struct et_error *(*set_loss_weight)(struct et_session *session, double weight);
  /**
   * Asks models for more outputs in every step, a set of `ET_WANT_` bits; only in `on_setup`. since 0.1
   */
  struct et_error *(*want)(struct et_session *session, uint32_t want);
  /**
   * The next batch of a source: endless, in another order every epoch. Its fields "record" and "source" [B] say
   * where each row comes from. Errors: NOT_FOUND. since 0.1
   */
  struct et_error *(*next_batch)(struct et_session *session,
                                 struct et_str source,
                                 struct et_map **out);
  /**
   * Opens one more file as a source under `name`, read as the training file is; only in `on_setup`. `options` is
   * JSON: {"task": text, "domain": text, "weight": number, "labelled": bool, "columns": {role: column}}; without
   * "labelled" its records have targets. Errors: ALREADY_EXISTS,
   * BAD_INPUT; what is wrong with the file comes once all strategies are set up. since 0.2
   */
  struct et_error *(*open_source)(struct et_session *session,
                                  struct et_str name,
                                  struct et_str path,
                                  struct et_str options);
  /**
   * Opens an optimizer of the registry over a parameter set of the session or a part of one, which is sealed by it;
   * `options` is JSON. Lives as long as the session. Errors: FAILED_PRECONDITION for a set of which nothing is
   * trainable. since 0.1
   */
  struct et_error *(*optimizer)(struct et_session *session,
                                struct et_str name,
                                struct et_str options,
                                struct et_params *params,
                                struct et_session_optimizer **out);
  /**
   * One step of such an optimizer with the gradients present, which are clipped first as the run's are, and
   * forgotten then. NULL is the run's own optimizer over the model under training, for strategies that drive the
   * fit. since 0.1
   */
  struct et_error *(*optimizer_step)(struct et_session *session,
                                     struct et_session_optimizer *optimizer,
                                     double lr);
  /**
   * Figures of the model under training or a module with a head on a source, of which the first `rows` records
   * count, or all for 0; a JSON object. since 0.2
   */
  struct et_error *(*evaluate)(struct et_session *session,
                               struct et_str model,
                               struct et_str source,
                               uint64_t rows,
                               struct et_buffer **out);
  /**
   * Writes a number to the run's metrics under `name` at the present step. since 0.1
   */
  struct et_error *(*log_scalar)(struct et_session *session, struct et_str name, double value);
  /**
   * Optimizer steps done so far. since 0.1
   */
  uint64_t (*step)(const struct et_session *session);
  /**
   * Optimizer steps of the whole run. since 0.1
   */
  uint64_t (*total_steps)(const struct et_session *session);
  /**
   * 1 if the user asked to stop, else 0. since 0.1
   */
  int32_t (*is_cancelled)(const struct et_session *session);
  /**
   * A network of the strategy's own under `name`; only in `on_setup`. `model` names a model of the registry that
   * `config` (JSON) describes, or is "model" for that of the model under training, of whose configuration `config`
   * has the entries that differ, or is empty for a bare set. `flags` is a set of `ET_MODULE_` bits. The out is the
   * outermost scope of its parameters, owned by the caller, in which more may be declared until `on_setup` ends;
   * then the set is sealed. Modules are checkpointed and resumed with the run, and are listed in its report.
   * Errors: ALREADY_EXISTS, NOT_FOUND, BAD_INPUT. since 0.2
   */
  struct et_error *(*module)(struct et_session *session,
                             struct et_str name,
                             struct et_str model,
                             struct et_str config,
                             uint32_t flags,
                             struct et_scope **out);
  /**
   * Makes a module with a model and a head the result of the run: it is what is evaluated, kept when best, and
   * written to the bundle. Errors: NOT_FOUND, FAILED_PRECONDITION for a module without a head. since 0.2
   */
  struct et_error *(*keep)(struct et_session *session, struct et_str module);
  /**
   * The sources as JSON, in the order of their numbers, which batches have under "source": [{"name": "train",
   * "records": 100, "batches": of an epoch, "task": "", "domain": "", "weight": 1.0, "categories": {role: [texts in
   * the order of their numbers]}}, ...]; only after setup. since 0.2
   */
  struct et_error *(*sources)(struct et_session *session, struct et_buffer **out);
  /**
   * The next batch of one of `len` sources, drawn with these weights (NULL for those of the sources). The draw is
   * counted, so a resumed run draws the same. since 0.2
   */
  struct et_error *(*draw_batch)(struct et_session *session,
                                 const struct et_str *sources,
                                 const double *weights,
                                 size_t len,
                                 struct et_map **out);
  /**
   * A batch of `len` records of a source by their numbers. Errors: NOT_FOUND. since 0.2
   */
  struct et_error *(*records)(struct et_session *session,
                              struct et_str source,
                              const uint64_t *numbers,
                              size_t len,
                              struct et_map **out);
  /**
   * One record of a source as a JSON object from role to value. Errors: NOT_FOUND. since 0.2
   */
  struct et_error *(*record)(struct et_session *session,
                             struct et_str source,
                             uint64_t number,
                             struct et_buffer **out);
  /**
   * The loss of each row by itself, [B]. Errors: UNIMPLEMENTED for a loss whose rows have none of their own. since
   * 0.2
   */
  struct et_error *(*loss_rows)(struct et_session *session,
                                const struct et_map *outputs,
                                const struct et_map *batch,
                                struct et_tensor **out);
  /**
   * Says how many steps the whole run has, for a strategy that drives the fit; the schedule counts by it. Only in
   * `on_setup`. since 0.2
   */
  struct et_error *(*set_total_steps)(struct et_session *session, uint64_t steps);
  /**
   * The learning rate of the present step by the run's schedule. since 0.2
   */
  double (*lr)(struct et_session *session);
  /**
   * What the trainer's own step does with the next batches of a source: hooks of the other strategies, loss,
   * backward, clipping, optimizer. It is not counted before `commit`. Only in `fit`. since 0.2
   */
  struct et_error *(*step_once)(struct et_session *session, struct et_str source);
  /**
   * Gradients of a scalar, added to those that are there. since 0.2
   */
  struct et_error *(*backward)(struct et_session *session, const struct et_tensor *loss);
  /**
   * Ends a step: counts it, writes `figures` (a JSON object from name to number; "loss" is the step's loss),
   * evaluates and writes a checkpoint when due, for which `saver` gives the state of the strategy, which is in the
   * middle of its `fit`; NULL for a strategy without state. The out is 1 while the run goes on, 0 once it is over:
   * all steps done, stopped early or cancelled. Only in `fit`. since 0.2
   */
  struct et_error *(*commit)(struct et_session *session,
                             struct et_str figures,
                             const struct et_saver *saver,
                             int32_t *out);
} et_host_session;

/**
 * `et.step/1`: steps without waiting. An engine for the CPU has it too and does everything at once.
 */
typedef struct et_host_step {
  /**
   * Bytes filled by the host.
   */
  size_t struct_size;
  /**
   * 1 if operations return before they are computed, so that reading a number waits for all work before it; 0 if
   * every number is there at once. [any-thread] since 0.1
   */
  int32_t (*defers)(void);
  /**
   * Begins to bring the tensors of a batch to where operations will read them; returns before that is done. The
   * batch must not be changed by another thread meanwhile. Does nothing where they are there already. Errors:
   * OUT_OF_MEMORY, DEVICE. [any-thread] since 0.1
   */
  struct et_error *(*prefetch)(const struct et_map *batch);
  /**
   * Multiplies all gradients by limit / (norm + 1e-6) if their Euclidean norm is above `limit` (Pascanu et al.
   * 2013). The out is the norm before that, a scalar F64, which is not waited for. Errors: INVALID_ARGUMENT for a
   * limit that is not positive. [one-at-a-time] since 0.1
   */
  struct et_error *(*clip_grads)(struct et_params *params, double limit, struct et_tensor **out);
} et_host_step;

/**
 * The one symbol that a plugin exports. Returns a record that lives until the process ends; does
 * nothing else. [any-thread] since 0.1
 */
ET_EXPORT const et_plugin_record *et_plugin_entry(void);

#ifdef __cplusplus
}
#endif

#endif /* EASYTRANSFER_PLUGIN_H */
