// easytransfer_engine.hpp: what programs and plugins in C++17 share: tensors, maps, options, tokenizers and
// parameters, which reach the engine through its tables. Plugins include easytransfer_plugin.hpp, programs
// easytransfer.hpp.
//
// Objects own what they hold and give it back when they go; they move and do not copy, except Tensor, whose copy is
// another reference. What fails throws easytransfer::Error. Objects may move to another thread; one object is used by
// one thread at a time.
//
// Licensed under the Apache License, Version 2.0.
#ifndef EASYTRANSFER_ENGINE_HPP
#define EASYTRANSFER_ENGINE_HPP

#include "easytransfer_plugin.h"

#include <cstddef>
#include <cstdint>
#include <cstring>
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
  const et_host_stream *stream = nullptr;
  const et_host_session *session = nullptr;
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
  fetch(host, "et.stream/1", found.stream);
  fetch(host, "et.session/1", found.session);
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
  double item() const {
    if (size() != 1) throw Error(ET_ERR_SHAPE, "item: expected one element, found " + std::to_string(size()));
    double value = 0.0;
    const Tensor same = cast(ET_DTYPE_F64);
    detail::check(ET_SLOT_(tensor, read)(same.raw_, &value, sizeof value));
    return value;
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
  Tensor power(double exponent) const {
    et_tensor *out = nullptr;
    detail::check(ET_SLOT_(tensor, power)(raw_, exponent, &out));
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

} // namespace easytransfer

#endif // EASYTRANSFER_ENGINE_HPP
