// easytransfer.hpp: EasyTransfer for C++17, a wrapper over the two C headers. Header only.
//
// Programs link libeasytransfer and begin with easytransfer::Runtime. Plugins link nothing: they derive from
// easytransfer::LossPlugin and end with ET_EXPORT_PLUGIN. Both use Tensor, Map, Row and Tokenizer, which reach the
// engine through its tables.
//
// Objects own what they hold and give it back when they go; they move and do not copy, except Tensor, whose copy is
// another reference. What fails throws easytransfer::Error. Objects may move to another thread; one object is used by
// one thread at a time. Compile plugins with -fvisibility=hidden, so that they export their entry alone.
//
// Licensed under the Apache License, Version 2.0.
#ifndef EASYTRANSFER_HPP
#define EASYTRANSFER_HPP

#include "easytransfer.h"

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <exception>
#include <functional>
#include <initializer_list>
#include <new>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#if defined(__GNUC__)
#define ET_HIDDEN __attribute__((visibility("hidden")))
#else
#define ET_HIDDEN
#endif

namespace easytransfer {

/// What failed: a code, one of the ET_ERR_ constants, and a message.
class Error : public std::runtime_error {
public:
  Error(std::int32_t code, const std::string &message) : std::runtime_error(message), code_(code) {}
  /// One of the ET_ERR_ constants.
  std::int32_t code() const noexcept { return code_; }
  /// Whether bad input is the cause; programs then end with code 2.
  bool is_user_error() const noexcept {
    return code_ == ET_ERR_BAD_INPUT || code_ == ET_ERR_NOT_FOUND || code_ == ET_ERR_INVALID_ARGUMENT;
  }

private:
  std::int32_t code_;
};

/// Engine tables, the wrappers' way to them, and what turns exceptions into errors.
namespace detail {

struct Tables {
  const et_host *host = nullptr;
  const et_host_tensor *tensor = nullptr;
  const et_host_autograd *autograd = nullptr;
  const et_host_nn *nn = nullptr;
  const et_host_data *data = nullptr;
  const et_host_param *param = nullptr;
  const et_host_config *config = nullptr;
  const et_host_tokenizer *tokenizer = nullptr;
  const et_host_log *log = nullptr;
};

// Hidden, so that every library and program has its own: they may be built with different versions of this file.
ET_HIDDEN inline Tables tables;

template <class Table> void fetch(const et_host *host, const char *id, const Table *&out) {
  out = static_cast<const Table *>(host->get_interface(host, id));
}

/// Keeps the host and its tables. Tables that it lacks stay empty; what needs them throws.
inline void attach(const et_host *host) {
  if (host == nullptr || host == tables.host) return;
  Tables found;
  found.host = host;
  fetch(host, "et.tensor/1", found.tensor);
  fetch(host, "et.autograd/1", found.autograd);
  fetch(host, "et.nn/1", found.nn);
  fetch(host, "et.data/1", found.data);
  fetch(host, "et.param/1", found.param);
  fetch(host, "et.config/1", found.config);
  fetch(host, "et.tokenizer/1", found.tokenizer);
  fetch(host, "et.log/1", found.log);
  tables = found;
}

inline et_str text(std::string_view value) noexcept { return et_str{value.data(), value.size()}; }

inline std::string copy(et_str value) { return value.len == 0 ? std::string() : std::string(value.ptr, value.len); }

/// Throws the error that an engine function returned, if it did.
inline void check(et_error *error) {
  if (error == nullptr) return;
  const et_host *host = tables.host;
  const std::int32_t code = host->error_code(error);
  const std::string message = copy(host->error_message(error));
  host->error_release(error);
  throw Error(code, message);
}

[[noreturn]] inline void missing(const char *slot) {
  throw Error(ET_ERR_UNIMPLEMENTED, std::string("this host has no ") + slot + ", a newer host is needed");
}

/// An owned handle with the function that gives it back, which a policy names.
template <class Raw, class Policy> class Handle {
public:
  Handle() noexcept = default;
  explicit Handle(Raw *raw) noexcept : raw_(raw) {}
  Handle(Handle &&other) noexcept : raw_(std::exchange(other.raw_, nullptr)) {}
  Handle &operator=(Handle &&other) noexcept {
    std::swap(raw_, other.raw_);
    return *this;
  }
  Handle(const Handle &) = delete;
  Handle &operator=(const Handle &) = delete;
  ~Handle() {
    if (raw_ != nullptr) Policy::release(raw_);
  }
  /// The handle for a C function, borrowed.
  Raw *get() const noexcept { return raw_; }
  /// The handle with its reference; this object is empty then.
  Raw *take() noexcept { return std::exchange(raw_, nullptr); }
  /// Where a C function puts its result.
  Raw **out() noexcept { return &raw_; }

private:
  Raw *raw_ = nullptr;
};

} // namespace detail

// A slot of an engine table, or an exception where this host lacks it. For this file alone.
#define ET_SLOT_(table, slot)                                                                                          \
  (ET_HAS(::easytransfer::detail::tables.table, slot) ? ::easytransfer::detail::tables.table->slot                     \
                                                      : (::easytransfer::detail::missing(#table "." #slot), nullptr))

/// An immutable value on the tape. Copies are references to the same value. Axes count from 0, negative ones from the
/// end.
class Tensor {
public:
  /// Takes over a reference.
  explicit Tensor(et_tensor *raw) noexcept : raw_(raw) {}
  Tensor(const Tensor &other) : raw_(other.raw_ == nullptr ? nullptr : ET_SLOT_(tensor, retain)(other.raw_)) {}
  Tensor(Tensor &&other) noexcept : raw_(std::exchange(other.raw_, nullptr)) {}
  Tensor &operator=(Tensor other) noexcept {
    std::swap(raw_, other.raw_);
    return *this;
  }
  ~Tensor() {
    // A host too old to take it back leaks it, which is better than calling what is not there.
    if (raw_ != nullptr && ET_HAS(detail::tables.tensor, release)) detail::tables.tensor->release(raw_);
  }

  /// Values of row-major data.
  static Tensor from(const std::vector<float> &values, const std::vector<std::size_t> &shape) {
    return from_data(ET_DTYPE_F32, values.data(), values.size() * sizeof(float), shape);
  }
  static Tensor from(const std::vector<std::int64_t> &values, const std::vector<std::size_t> &shape) {
    return from_data(ET_DTYPE_I64, values.data(), values.size() * sizeof(std::int64_t), shape);
  }
  /// One value everywhere.
  static Tensor full(double value, const std::vector<std::size_t> &shape, std::int32_t dtype = ET_DTYPE_F32) {
    et_tensor *out = nullptr;
    detail::check(ET_SLOT_(tensor, full)(dtype, shape.data(), shape.size(), value, &out));
    return Tensor(out);
  }
  /// 0, 1, ... as I64 or another type.
  static Tensor arange(std::size_t len, std::int32_t dtype = ET_DTYPE_I64) {
    et_tensor *out = nullptr;
    detail::check(ET_SLOT_(tensor, arange)(dtype, 0.0, 1.0, len, &out));
    return Tensor(out);
  }

  et_tensor *get() const noexcept { return raw_; }
  et_tensor *take() noexcept { return std::exchange(raw_, nullptr); }
  /// An ET_DTYPE_ constant.
  std::int32_t dtype() const { return ET_SLOT_(tensor, dtype)(raw_); }
  std::size_t size() const { return ET_SLOT_(tensor, len)(raw_); }
  std::vector<std::size_t> shape() const {
    const std::size_t *extents = ET_SLOT_(tensor, shape)(raw_);
    return std::vector<std::size_t>(extents, extents + ET_SLOT_(tensor, rank)(raw_));
  }
  bool is_tracked() const { return ET_SLOT_(tensor, is_tracked)(raw_) != 0; }

  /// All elements, row-major, converted to single precision.
  std::vector<float> to_floats() const {
    const Tensor same = dtype() == ET_DTYPE_F32 ? *this : cast(ET_DTYPE_F32);
    std::vector<float> values(size());
    detail::check(ET_SLOT_(tensor, read)(same.raw_, values.data(), values.size() * sizeof(float)));
    return values;
  }
  /// The only element.
  float item() const {
    if (size() != 1) throw Error(ET_ERR_SHAPE, "item: expected one element, found " + std::to_string(size()));
    return to_floats()[0];
  }

  Tensor unary(std::int32_t op) const {
    et_tensor *out = nullptr;
    detail::check(ET_SLOT_(tensor, unary)(op, raw_, &out));
    return Tensor(out);
  }
  Tensor exp() const { return unary(ET_UNARY_EXP); }
  Tensor log() const { return unary(ET_UNARY_LOG); }
  Tensor sqrt() const { return unary(ET_UNARY_SQRT); }
  Tensor sqr() const { return unary(ET_UNARY_SQR); }
  Tensor abs() const { return unary(ET_UNARY_ABS); }
  Tensor tanh() const { return unary(ET_UNARY_TANH); }
  Tensor sigmoid() const { return unary(ET_UNARY_SIGMOID); }
  Tensor relu() const { return unary(ET_UNARY_RELU); }

  Tensor binary(std::int32_t op, const Tensor &other) const {
    et_tensor *out = nullptr;
    detail::check(ET_SLOT_(tensor, binary)(op, raw_, other.raw_, &out));
    return Tensor(out);
  }
  friend Tensor operator+(const Tensor &a, const Tensor &b) { return a.binary(ET_BINARY_ADD, b); }
  friend Tensor operator-(const Tensor &a, const Tensor &b) { return a.binary(ET_BINARY_SUB, b); }
  friend Tensor operator*(const Tensor &a, const Tensor &b) { return a.binary(ET_BINARY_MUL, b); }
  friend Tensor operator/(const Tensor &a, const Tensor &b) { return a.binary(ET_BINARY_DIV, b); }
  /// 1 where equal, else 0, as U8.
  Tensor equals(const Tensor &other) const {
    et_tensor *out = nullptr;
    detail::check(ET_SLOT_(tensor, compare)(ET_COMPARE_EQ, raw_, other.raw_, &out));
    return Tensor(out);
  }
  /// x * scale + shift
  Tensor affine(double scale, double shift) const {
    et_tensor *out = nullptr;
    detail::check(ET_SLOT_(tensor, affine)(raw_, scale, shift, &out));
    return Tensor(out);
  }
  Tensor operator-() const { return affine(-1.0, 0.0); }
  friend Tensor operator*(const Tensor &x, double scale) { return x.affine(scale, 0.0); }
  friend Tensor operator*(double scale, const Tensor &x) { return x.affine(scale, 0.0); }
  friend Tensor operator+(const Tensor &x, double shift) { return x.affine(1.0, shift); }
  friend Tensor operator-(const Tensor &x, double shift) { return x.affine(1.0, -shift); }

  /// An ET_REDUCE_ operation over `axes`, over all axes when there are none.
  Tensor reduce(std::int32_t op, const std::vector<std::int64_t> &axes = {}, bool keep_axes = false) const {
    et_tensor *out = nullptr;
    detail::check(ET_SLOT_(tensor, reduce)(op, raw_, axes.data(), axes.size(), keep_axes ? 1 : 0, &out));
    return Tensor(out);
  }
  Tensor sum(const std::vector<std::int64_t> &axes = {}, bool keep_axes = false) const {
    return reduce(ET_REDUCE_SUM, axes, keep_axes);
  }
  Tensor mean(const std::vector<std::int64_t> &axes = {}, bool keep_axes = false) const {
    return reduce(ET_REDUCE_MEAN, axes, keep_axes);
  }
  Tensor matmul(const Tensor &other) const {
    et_tensor *out = nullptr;
    detail::check(ET_SLOT_(tensor, matmul)(raw_, other.raw_, &out));
    return Tensor(out);
  }
  Tensor reshape(const std::vector<std::size_t> &shape) const {
    et_tensor *out = nullptr;
    detail::check(ET_SLOT_(tensor, reshape)(raw_, shape.data(), shape.size(), &out));
    return Tensor(out);
  }
  /// Entries `index` (I64, the rank of this) of one axis.
  Tensor gather(std::int64_t axis, const Tensor &index) const {
    et_tensor *out = nullptr;
    detail::check(ET_SLOT_(tensor, gather)(raw_, axis, index.raw_, &out));
    return Tensor(out);
  }
  /// `len` entries from `start` on one axis.
  Tensor narrow(std::int64_t axis, std::size_t start, std::size_t len) const {
    et_tensor *out = nullptr;
    detail::check(ET_SLOT_(tensor, narrow)(raw_, axis, start, len, &out));
    return Tensor(out);
  }
  Tensor cast(std::int32_t dtype) const {
    et_tensor *out = nullptr;
    detail::check(ET_SLOT_(tensor, cast)(raw_, dtype, &out));
    return Tensor(out);
  }
  /// Softmax over the last axis.
  Tensor softmax() const {
    et_tensor *out = nullptr;
    detail::check(ET_SLOT_(nn, softmax)(raw_, &out));
    return Tensor(out);
  }
  /// Logarithm of softmax over the last axis.
  Tensor log_softmax() const {
    et_tensor *out = nullptr;
    detail::check(ET_SLOT_(nn, log_softmax)(raw_, &out));
    return Tensor(out);
  }
  /// x W^T + b with an ET_ACTIVATION_; `bias` may be nullptr.
  Tensor linear(const Tensor &weight, const Tensor *bias = nullptr, std::int32_t activation = ET_ACTIVATION_NONE) const {
    et_tensor *out = nullptr;
    detail::check(ET_SLOT_(nn, linear)(raw_, weight.raw_, bias == nullptr ? nullptr : bias->raw_, activation, &out));
    return Tensor(out);
  }
  /// The same value without history.
  Tensor detach() const {
    et_tensor *out = nullptr;
    detail::check(ET_SLOT_(autograd, detach)(raw_, &out));
    return Tensor(out);
  }
  /// Runs the tape backwards from this scalar.
  void backward() const { detail::check(ET_SLOT_(autograd, backward)(raw_, nullptr)); }

private:
  static Tensor from_data(std::int32_t dtype, const void *data, std::size_t bytes, const std::vector<std::size_t> &shape) {
    et_tensor *out = nullptr;
    detail::check(ET_SLOT_(tensor, from_data)(dtype, shape.data(), shape.size(), data, bytes, &out));
    return Tensor(out);
  }

  et_tensor *raw_;
};

/// The features of one record before batching.
class Row {
public:
  Row() { detail::check(ET_SLOT_(data, row_new)(handle_.out())); }
  /// One value per token, for instance "ids".
  Row &tokens(std::string_view name, const std::vector<std::int64_t> &values) {
    detail::check(ET_SLOT_(data, row_put_tokens)(get(), detail::text(name), values.data(), values.size()));
    return *this;
  }
  /// Integers per row, for instance "labels".
  Row &integers(std::string_view name, const std::vector<std::int64_t> &values) {
    detail::check(ET_SLOT_(data, row_put_i64)(get(), detail::text(name), values.data(), values.size()));
    return *this;
  }
  /// Numbers per row.
  Row &floats(std::string_view name, const std::vector<float> &values) {
    detail::check(ET_SLOT_(data, row_put_f32)(get(), detail::text(name), values.data(), values.size()));
    return *this;
  }
  et_row *get() const noexcept { return handle_.get(); }

private:
  struct Policy {
    static void release(et_row *raw) noexcept {
      if (ET_HAS(detail::tables.data, row_release)) detail::tables.data->row_release(raw);
    }
  };
  detail::Handle<et_row, Policy> handle_;
};

/// Named tensors in insertion order.
class Map {
public:
  Map() { detail::check(ET_SLOT_(data, map_new)(handle_.out())); }
  /// Takes over a map.
  explicit Map(et_map *raw) noexcept : handle_(raw) {}
  /// A batch of rows without padding, with "starts" and "positions".
  static Map batch(const std::vector<Row> &rows) {
    std::vector<const et_row *> raw;
    for (const Row &row : rows) raw.push_back(row.get());
    et_map *out = nullptr;
    detail::check(ET_SLOT_(data, batch_from_rows)(raw.data(), raw.size(), &out));
    return Map(out);
  }
  std::size_t size() const { return ET_SLOT_(data, map_len)(get()); }
  std::string name(std::size_t index) const { return detail::copy(ET_SLOT_(data, map_name)(get(), index)); }
  bool has(std::string_view name) const { return ET_SLOT_(data, map_has)(get(), detail::text(name)) != 0; }
  Tensor operator[](std::string_view name) const {
    et_tensor *out = nullptr;
    detail::check(ET_SLOT_(data, map_get)(get(), detail::text(name), &out));
    return Tensor(out);
  }
  void put(std::string_view name, const Tensor &tensor) {
    detail::check(ET_SLOT_(data, map_put)(get(), detail::text(name), tensor.get()));
  }
  et_map *get() const noexcept { return handle_.get(); }
  et_map *take() noexcept { return handle_.take(); }

private:
  struct Policy {
    static void release(et_map *raw) noexcept {
      if (ET_HAS(detail::tables.data, map_release)) detail::tables.data->map_release(raw);
    }
  };
  detail::Handle<et_map, Policy> handle_;
};

/// Options as JSON; keys are dotted paths.
class Config {
public:
  explicit Config(std::string_view json) {
    detail::check(ET_SLOT_(config, parse)(detail::text(json.empty() ? "{}" : json), handle_.out()));
  }
  bool has(std::string_view key) const { return ET_SLOT_(config, has)(handle_.get(), detail::text(key)) != 0; }
  double number(std::string_view key, double fallback) const {
    double value = fallback;
    if (has(key)) detail::check(ET_SLOT_(config, f64_at)(handle_.get(), detail::text(key), &value));
    return value;
  }
  std::int64_t integer(std::string_view key, std::int64_t fallback) const {
    std::int64_t value = fallback;
    if (has(key)) detail::check(ET_SLOT_(config, i64_at)(handle_.get(), detail::text(key), &value));
    return value;
  }
  bool flag(std::string_view key, bool fallback) const {
    std::int32_t value = fallback ? 1 : 0;
    if (has(key)) detail::check(ET_SLOT_(config, bool_at)(handle_.get(), detail::text(key), &value));
    return value != 0;
  }
  std::string string(std::string_view key, const std::string &fallback) const {
    if (!has(key)) return fallback;
    et_str value{nullptr, 0};
    detail::check(ET_SLOT_(config, str_at)(handle_.get(), detail::text(key), &value));
    return detail::copy(value);
  }

private:
  struct Policy {
    static void release(et_config *raw) noexcept {
      if (ET_HAS(detail::tables.config, release)) detail::tables.config->release(raw);
    }
  };
  detail::Handle<et_config, Policy> handle_;
};

/// A tokenizer of a Hugging Face directory.
class Tokenizer {
public:
  /// Token ids and segments of a text.
  struct Encoding {
    std::vector<std::int64_t> ids, segments;
  };
  explicit Tokenizer(std::string_view path) {
    detail::check(ET_SLOT_(tokenizer, load)(detail::text(path), handle_.out()));
  }
  /// Encodes a text with the special tokens of the model; `max_len` 0 is no limit.
  Encoding encode(std::string_view text, std::size_t max_len = 0) const {
    const et_encode_options options{sizeof(et_encode_options), max_len, 1, 0};
    et_encoding *raw = nullptr;
    detail::check(ET_SLOT_(tokenizer, encode)(handle_.get(), detail::text(text), nullptr, &options, &raw));
    const detail::Handle<et_encoding, EncodingPolicy> encoding(raw);
    const std::size_t len = ET_SLOT_(tokenizer, encoding_len)(raw);
    const std::int64_t *ids = ET_SLOT_(tokenizer, encoding_ids)(raw);
    const std::int64_t *segments = ET_SLOT_(tokenizer, encoding_segments)(raw);
    return Encoding{{ids, ids + len}, {segments, segments + len}};
  }

private:
  struct Policy {
    static void release(et_tokenizer *raw) noexcept {
      if (ET_HAS(detail::tables.tokenizer, release)) detail::tables.tokenizer->release(raw);
    }
  };
  struct EncodingPolicy {
    static void release(et_encoding *raw) noexcept {
      if (ET_HAS(detail::tables.tokenizer, encoding_release)) detail::tables.tokenizer->encoding_release(raw);
    }
  };
  detail::Handle<et_tokenizer, Policy> handle_;
};

/// A named parameter.
class Param {
public:
  /// Takes over a reference.
  explicit Param(et_param *raw) noexcept : handle_(raw) {}
  std::string name() const { return detail::copy(ET_SLOT_(param, name)(get())); }
  std::vector<std::size_t> shape() const {
    const std::size_t *extents = ET_SLOT_(param, shape)(get());
    return std::vector<std::size_t>(extents, extents + ET_SLOT_(param, rank)(get()));
  }
  Tensor tensor() const {
    et_tensor *out = nullptr;
    detail::check(ET_SLOT_(param, tensor)(get(), &out));
    return Tensor(out);
  }
  bool has_grad() const { return ET_SLOT_(param, has_grad)(get()) != 0; }
  void set_trainable(bool trainable) { detail::check(ET_SLOT_(param, set_trainable)(get(), trainable ? 1 : 0)); }
  et_param *get() const noexcept { return handle_.get(); }

private:
  struct Policy {
    static void release(et_param *raw) noexcept {
      if (ET_HAS(detail::tables.param, release)) detail::tables.param->release(raw);
    }
  };
  detail::Handle<et_param, Policy> handle_;
};

/// The parameters of a model, borrowed from it.
class Params {
public:
  explicit Params(et_params *raw) noexcept : raw_(raw) {}
  std::size_t size() const { return ET_SLOT_(param, params_len)(raw_); }
  Param operator[](std::size_t index) const { return Param(ET_SLOT_(param, params_at)(raw_, index)); }
  /// Declares a parameter under a dotted name, for instance the weight of a head. Only before `seal`.
  Param declare(std::string_view name, const std::vector<std::size_t> &shape, const et_init &init) {
    const detail::Handle<et_scope, ScopePolicy> root(ET_SLOT_(param, params_root)(raw_));
    et_param *out = nullptr;
    detail::check(
        ET_SLOT_(param, scope_param)(root.get(), detail::text(name), shape.data(), shape.size(), &init, &out));
    return Param(out);
  }
  /// Moves the parameters into their arena.
  void seal() { detail::check(ET_SLOT_(param, params_seal)(raw_)); }
  void zero_grads() { ET_SLOT_(param, params_zero_grads)(raw_); }

private:
  struct ScopePolicy {
    static void release(et_scope *raw) noexcept {
      if (ET_HAS(detail::tables.param, scope_release)) detail::tables.param->scope_release(raw);
    }
  };
  et_params *raw_;
};

// ---------------------------------------------------------------- programs

namespace detail {

/// Throws the error that a library function returned, if it did.
inline void check_library(et_error *error) {
  if (error == nullptr) return;
  const std::int32_t code = et_error_code(error);
  const std::string message = copy(et_error_message(error));
  et_error_release(error);
  throw Error(code, message);
}

struct TextPolicy {
  static void release(et_text *raw) noexcept { et_text_release(raw); }
};
using Text = Handle<et_text, TextPolicy>;

inline std::string copy(const Text &text) {
  return text.get() == nullptr ? std::string() : std::string(et_text_data(text.get()), et_text_len(text.get()));
}

/// Texts with their lengths, so that a NUL inside ends none of them.
inline std::vector<et_str> sized(const std::vector<std::string> &texts) {
  std::vector<et_str> raw;
  for (const std::string &text : texts) raw.push_back(et_str{text.data(), text.size()});
  return raw;
}

} // namespace detail

/// Answers of an app, one row per text or record.
class Predictions {
public:
  explicit Predictions(et_predictions *raw) noexcept : handle_(raw) {}
  std::size_t size() const { return et_predictions_len(handle_.get()); }
  std::size_t classes() const { return et_predictions_classes_len(handle_.get()); }
  /// Name of a class. Throws past the end.
  std::string class_name(std::size_t index) const {
    const char *name = et_predictions_class(handle_.get(), index);
    if (name == nullptr) throw nothing_at(index);
    return name;
  }
  /// The whole answer, the JSON text of an object with whatever the app says. Throws past the end.
  std::string json(std::size_t row) const {
    const et_str text = et_predictions_answer(handle_.get(), row);
    if (text.ptr == nullptr) throw nothing_at(row);
    return std::string(text.ptr, text.len);
  }
  /// Whether the answer has a label; those of apps for spans, texts or numbers have none.
  bool has_label(std::size_t row) const { return et_predictions_label(handle_.get(), row) != nullptr; }
  /// The label, or the labels joined by commas. Throws past the end, and where the answer has no label.
  std::string label(std::size_t row) const {
    const char *label = et_predictions_label(handle_.get(), row);
    if (label != nullptr) return label;
    throw Error(ET_ERR_NOT_FOUND, "predictions: expected a label at " + std::to_string(row) + ", found " + json(row));
  }
  /// The score of the label or span, or the number; NaN where the app says none of these.
  float score(std::size_t row) const { return et_predictions_score(handle_.get(), row); }
  /// Probability of a class; NaN where the app says none.
  float probability(std::size_t row, std::size_t index) const {
    return et_predictions_probability(handle_.get(), row, index);
  }

private:
  static Error nothing_at(std::size_t index) {
    return Error(ET_ERR_INVALID_ARGUMENT, "predictions: nothing at " + std::to_string(index));
  }
  struct Policy {
    static void release(et_predictions *raw) noexcept { et_predictions_release(raw); }
  };
  detail::Handle<et_predictions, Policy> handle_;
};

/// A trained bundle that answers texts and other records.
class App {
public:
  explicit App(et_app *raw) noexcept : handle_(raw) {}
  /// Names of the classes.
  std::vector<std::string> labels() const {
    std::vector<std::string> names;
    for (std::size_t i = 0; i < et_app_labels_len(handle_.get()); ++i) names.emplace_back(et_app_label(handle_.get(), i));
    return names;
  }
  Predictions predict(const std::vector<std::string> &texts) {
    const std::vector<et_str> raw = detail::sized(texts);
    et_predictions *out = nullptr;
    detail::check_library(et_app_predict_texts(handle_.get(), raw.data(), raw.size(), &out));
    return Predictions(out);
  }
  /// Answers records, each the JSON text of an object from role to value: {"question": .., "context": ..}.
  Predictions predict_records(const std::vector<std::string> &records) {
    const std::vector<et_str> raw = detail::sized(records);
    et_predictions *out = nullptr;
    detail::check_library(et_app_predict_records(handle_.get(), raw.data(), raw.size(), &out));
    return Predictions(out);
  }
  /// Predictions for a JSON text: an object, a string, or an array of them.
  std::string predict_json(const std::string &request) {
    detail::Text out;
    detail::check_library(et_app_predict_json(handle_.get(), request.c_str(), out.out()));
    return detail::copy(out);
  }

private:
  struct Policy {
    static void release(et_app *raw) noexcept { et_app_release(raw); }
  };
  detail::Handle<et_app, Policy> handle_;
};

/// An encoder that turns texts into vectors.
class Embedder {
public:
  explicit Embedder(et_embedder *raw) noexcept : handle_(raw) {}
  std::size_t width() const { return et_embedder_width(handle_.get()); }
  /// Vectors, row-major [texts, width].
  std::vector<float> embed(const std::vector<std::string> &texts) {
    const std::vector<et_str> raw = detail::sized(texts);
    std::vector<float> out(texts.size() * width() + 1); // one more, because an empty vector has no memory
    detail::check_library(et_embedder_embed_texts(handle_.get(), raw.data(), raw.size(), out.data(), out.size() - 1));
    out.pop_back();
    return out;
  }

private:
  struct Policy {
    static void release(et_embedder *raw) noexcept { et_embedder_release(raw); }
  };
  detail::Handle<et_embedder, Policy> handle_;
};

/// A model with its parameters.
class Model {
public:
  explicit Model(et_model *raw) noexcept : handle_(raw) {}
  void load_weights(const std::string &directory) {
    detail::check_library(et_model_load_weights(handle_.get(), directory.c_str()));
  }
  /// The parameters, valid while the model lives.
  Params params() { return Params(et_model_params(handle_.get())); }
  Map forward(const Map &batch, bool training = false, std::uint32_t want = 0) {
    et_map *out = nullptr;
    detail::check_library(et_model_forward(handle_.get(), batch.get(), training ? 1 : 0, want, &out));
    return Map(out);
  }
  et_model *get() const noexcept { return handle_.get(); }

private:
  struct Policy {
    static void release(et_model *raw) noexcept { et_model_release(raw); }
  };
  detail::Handle<et_model, Policy> handle_;
};

/// A loss.
class Loss {
public:
  explicit Loss(et_loss *raw) noexcept : handle_(raw) {}
  Tensor forward(const Map &outputs, const Map &batch) {
    et_tensor *out = nullptr;
    detail::check_library(et_loss_forward(handle_.get(), outputs.get(), batch.get(), &out));
    return Tensor(out);
  }

private:
  struct Policy {
    static void release(et_loss *raw) noexcept { et_loss_release(raw); }
  };
  detail::Handle<et_loss, Policy> handle_;
};

/// An optimizer for the parameters of one model, which must outlive it.
class Optimizer {
public:
  explicit Optimizer(et_optimizer *raw) noexcept : handle_(raw) {}
  void step(Model &model, double lr) { detail::check_library(et_optimizer_step(handle_.get(), model.get(), lr)); }

private:
  struct Policy {
    static void release(et_optimizer *raw) noexcept { et_optimizer_release(raw); }
  };
  detail::Handle<et_optimizer, Policy> handle_;
};

/// One step of a training run.
struct Step {
  std::uint64_t step, total_steps;
  double loss, lr;
};

/// One engine and the plugins found for it.
class Runtime {
public:
  /// Starts the engine; `options` is JSON as et_runtime_new says.
  explicit Runtime(const std::string &options = "{}") {
    detail::check_library(et_runtime_new(options.c_str(), handle_.out()));
    detail::attach(et_runtime_host(handle_.get()));
  }
  void load_plugin(const std::string &path) {
    detail::check_library(et_runtime_load_plugin(handle_.get(), path.c_str()));
  }
  void register_plugin(const et_plugin_record *record) {
    detail::check_library(et_runtime_register_plugin(handle_.get(), record));
  }
  std::string plugins_json() const {
    detail::Text out;
    detail::check_library(et_runtime_plugins_json(handle_.get(), out.out()));
    return detail::copy(out);
  }
  App app(const std::string &directory) const {
    et_app *out = nullptr;
    detail::check_library(et_app_load(handle_.get(), directory.c_str(), &out));
    return App(out);
  }
  /// `options` is JSON: {"precision": "f32" | "bf16" | "int8"}.
  App app(const std::string &directory, const std::string &options) const {
    et_app *out = nullptr;
    detail::check_library(et_app_load_with(handle_.get(), directory.c_str(), options.c_str(), &out));
    return App(out);
  }
  Embedder embedder(const std::string &directory, const std::string &options = "{}") const {
    et_embedder *out = nullptr;
    detail::check_library(et_embedder_load(handle_.get(), directory.c_str(), options.c_str(), &out));
    return Embedder(out);
  }
  Model model(const std::string &name, const std::string &config, std::uint64_t seed) const {
    et_model *out = nullptr;
    detail::check_library(et_model_new(handle_.get(), name.c_str(), config.c_str(), seed, &out));
    return Model(out);
  }
  Loss loss(const std::string &name, const std::string &options = "{}") const {
    et_loss *out = nullptr;
    detail::check_library(et_loss_new(handle_.get(), name.c_str(), options.c_str(), &out));
    return Loss(out);
  }
  Optimizer optimizer(const std::string &name, Model &model, const std::string &options = "{}") const {
    et_optimizer *out = nullptr;
    detail::check_library(et_optimizer_new(handle_.get(), name.c_str(), options.c_str(), model.get(), &out));
    return Optimizer(out);
  }
  /// Trains an app and writes its bundle; `options` is JSON as et_fit says. `progress` may end the run by returning
  /// false; what it throws ends the run too and comes out of here. Answers with the result as JSON.
  std::string fit(const std::string &options, const std::function<bool(const Step &)> &progress = nullptr) const {
    Callback callback{progress, nullptr};
    detail::Text out;
    et_error *error = et_fit(handle_.get(), options.c_str(), progress ? &Callback::call : nullptr, &callback, out.out());
    if (callback.thrown != nullptr) {
      et_error_release(error);
      std::rethrow_exception(callback.thrown);
    }
    detail::check_library(error);
    return detail::copy(out);
  }
  et_runtime *get() const noexcept { return handle_.get(); }

private:
  struct Callback {
    const std::function<bool(const Step &)> &progress;
    std::exception_ptr thrown;
    static std::int32_t call(void *user, std::uint64_t step, std::uint64_t total_steps, double loss, double lr) {
      Callback *self = static_cast<Callback *>(user);
      try {
        return self->progress(Step{step, total_steps, loss, lr}) ? 1 : 0;
      } catch (...) {
        self->thrown = std::current_exception();
        return 0;
      }
    }
  };
  struct Policy {
    static void release(et_runtime *raw) noexcept { et_runtime_release(raw); }
  };
  detail::Handle<et_runtime, Policy> handle_;
};

// ---------------------------------------------------------------- plugins

/// What a forward pass is for.
struct Call {
  bool training;
  std::uint32_t want;
};

namespace detail {

inline et_error *make_error(std::int32_t code, const char *message) noexcept {
  return tables.host->error_new(code, et_str{message, std::strlen(message)});
}

/// Runs the body of a slot; exceptions become errors of the boundary.
template <class Body> et_error *guard(Body &&body) noexcept {
  try {
    body();
    return nullptr;
  } catch (const Error &error) {
    return make_error(error.code(), error.what());
  } catch (const std::bad_alloc &) {
    return make_error(ET_ERR_OUT_OF_MEMORY, "no memory is left");
  } catch (const std::exception &error) {
    return make_error(ET_ERR_PANIC, error.what());
  } catch (...) {
    return make_error(ET_ERR_PANIC, "an exception that is no std::exception");
  }
}

/// A map that belongs to the host for the time of a call.
class Lent {
public:
  explicit Lent(const et_map *raw) noexcept : map_(const_cast<et_map *>(raw)) {}
  ~Lent() { map_.take(); }
  Lent(const Lent &) = delete;
  Lent &operator=(const Lent &) = delete;
  const Map &map() const noexcept { return map_; }

private:
  Map map_;
};

} // namespace detail

/// A loss of a plugin. `Self` derives from it and has
///
///   static constexpr const char *name = "mine";             // what users write
///   static constexpr const char *schema = "{..}";           // JSON Schema of the options; may be left out
///   explicit Self(const easytransfer::Config &options);
///   easytransfer::Tensor forward(const easytransfer::Call &, const easytransfer::Map &outputs, const easytransfer::Map &batch);
///
/// where `outputs` usually holds "logits", `batch` "labels" and, when rows are weighted, "weights" [B]; the result is
/// a scalar.
template <class Self> class LossPlugin {
public:
  static constexpr const char *schema = "{\"type\":\"object\",\"properties\":{},\"additionalProperties\":false}";

  /// The C table.
  ET_HIDDEN static et_plugin_loss table() noexcept {
    et_plugin_loss table = {sizeof(et_plugin_loss), Self::name, Self::schema, create, run, drop};
    return table;
  }

private:
  static et_error *create(et_str options, void **out) noexcept {
    return detail::guard([&] { *out = new Self(Config(detail::copy(options))); });
  }
  static et_error *run(void *instance, const et_call *call, const et_map *outputs, const et_map *batch,
                       et_tensor **out) noexcept {
    return detail::guard([&] {
      const detail::Lent given(outputs), targets(batch);
      Tensor loss = static_cast<Self *>(instance)->forward(Call{call->training != 0, call->want}, given.map(),
                                                           targets.map());
      *out = loss.take();
    });
  }
  static void drop(void *instance) noexcept {
    try {
      delete static_cast<Self *>(instance);
    } catch (...) { // nothing can be done about it, and it must not cross
    }
  }
};

namespace detail {

/// The losses of a plugin.
template <class... Losses> struct Plugin {
  ET_HIDDEN static et_error *init(const et_host *host) noexcept {
    attach(host);
    return guard([] {
      if (tables.tensor == nullptr || tables.data == nullptr || tables.config == nullptr)
        throw Error(ET_ERR_UNIMPLEMENTED, "init: expected et.tensor/1, et.data/1 and et.config/1, this host lacks one; a "
                                          "newer host is needed");
    });
  }
  ET_HIDDEN static const void *component(const char *kind, std::size_t index) noexcept {
    static const et_plugin_loss losses[] = {Losses::table()...};
    return std::strcmp(kind, "et.loss/1") == 0 && index < sizeof...(Losses) ? &losses[index] : nullptr;
  }
  ET_HIDDEN static et_plugin_record record(const char *id, const char *version) noexcept {
    et_plugin_record record = {ET_PLUGIN_MAGIC, ET_ABI_MAJOR, ET_ABI_MINOR, sizeof(et_plugin_record), 0, 0, id, version,
                               init, nullptr, component};
    return record;
  }
};

} // namespace detail
} // namespace easytransfer

/// The entry of a plugin: its id, its version, and the classes of its losses.
#define ET_EXPORT_PLUGIN(id, version, ...)                                                                             \
  extern "C" ET_EXPORT const et_plugin_record *et_plugin_entry(void) {                                                 \
    static const et_plugin_record record = ::easytransfer::detail::Plugin<__VA_ARGS__>::record(id, version);           \
    return &record;                                                                                                    \
  }

#endif // EASYTRANSFER_HPP
