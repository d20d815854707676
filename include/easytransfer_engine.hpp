// easytransfer_engine.hpp: what programs and plugins in C++17 share: tensors, maps, options, tokenizers and random
// numbers, which reach the engine through its tables. Plugins include easytransfer_plugin.hpp, programs
// easytransfer.hpp; easytransfer_param.hpp has parameters.
//
// Objects own what they hold and give it back when they go; they move and do not copy, except Tensor, whose copy is
// another reference. What fails throws easytransfer::Error. Objects may move to another thread; one object is used by
// one thread at a time.
//
// Licensed under the Apache License, Version 2.0.
#ifndef EASYTRANSFER_ENGINE_HPP
#define EASYTRANSFER_ENGINE_HPP

#include "easytransfer_tables.hpp"

namespace easytransfer {
inline namespace v0_2 {

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
    if (raw_ != nullptr) Policy::release(raw_);
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
  /// Axes in another order.
  Tensor permute(const std::vector<std::int64_t> &axes) const {
    et_tensor *out = nullptr;
    detail::check(ET_SLOT_(tensor, permute)(raw_, axes.data(), axes.size(), &out));
    return Tensor(out);
  }
  /// Entries `index` (I64, one axis) of an axis.
  Tensor index_select(std::int64_t axis, const Tensor &index) const {
    et_tensor *out = nullptr;
    detail::check(ET_SLOT_(tensor, index_select)(raw_, axis, index.raw_, &out));
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
  /// Each element dropped with probability `p` and the rest scaled; the same value where `rng` is NULL, as it is while
  /// predicting.
  Tensor dropout(double p, et_rng *rng) const {
    et_tensor *out = nullptr;
    detail::check(ET_SLOT_(nn, dropout)(raw_, p, rng, &out));
    return Tensor(out);
  }
  /// Layer normalisation over the last axis.
  Tensor layer_norm(const Tensor &gamma, const Tensor &beta, double epsilon = 1e-12) const {
    const et_layer_norm args = {sizeof(et_layer_norm), raw_, nullptr, gamma.raw_, beta.raw_, epsilon, 0.0, nullptr};
    et_tensor *out = nullptr;
    detail::check(ET_SLOT_(nn, layer_norm)(&args, &out));
    return Tensor(out);
  }
  /// Rows `ids` (I64) of this table.
  Tensor embedding(const Tensor &ids) const {
    et_tensor *out = nullptr;
    const et_tensor *table = raw_, *rows = ids.raw_;
    detail::check(ET_SLOT_(nn, embedding_sum)(&table, &rows, 1, &out));
    return Tensor(out);
  }
  /// One vector per run, [T, h] to [B, h], by an ET_POOL_ constant.
  Tensor pool(const Tensor &starts, std::int32_t kind) const {
    et_tensor *out = nullptr;
    detail::check(ET_SLOT_(nn, pool)(raw_, starts.raw_, kind, &out));
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
  ET_POLICY_(Policy, et_tensor, tensor, release);
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
  /// Takes over a row.
  explicit Row(et_row *raw) noexcept : handle_(raw) {}
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
  ET_POLICY_(Policy, et_row, data, row_release);
  detail::Handle<et_row, Policy> handle_;
};

/// The rows that the features of one record become; in an app they belong to the host.
class Rows {
public:
  explicit Rows(et_rows *raw) noexcept : raw_(raw) {}
  /// Adds an empty row; what is put into it is in the list.
  Row add() {
    et_row *row = nullptr;
    detail::check(ET_SLOT_(data, rows_add)(raw_, &row));
    // The one that `rows_add` answers with is borrowed; this one is ours.
    detail::check(ET_SLOT_(data, rows_get)(raw_, size() - 1, &row));
    return Row(row);
  }
  std::size_t size() const { return ET_SLOT_(data, rows_len)(raw_); }
  et_rows *get() const noexcept { return raw_; }

private:
  et_rows *raw_;
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
  ET_POLICY_(Policy, et_map, data, map_release);
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
  std::string string(std::string_view key, const std::string &fallback = "") const {
    if (!has(key)) return fallback;
    et_str value{nullptr, 0};
    detail::check(ET_SLOT_(config, str_at)(handle_.get(), detail::text(key), &value));
    return detail::copy(value);
  }
  /// Entries of an array or object; 0 where the key is absent.
  std::size_t size(std::string_view key) const {
    std::size_t len = 0;
    if (has(key)) detail::check(ET_SLOT_(config, len_at)(handle_.get(), detail::text(key), &len));
    return len;
  }
  /// An array of texts.
  std::vector<std::string> strings(std::string_view key) const {
    std::vector<std::string> all;
    for (std::size_t i = 0; i < size(key); ++i) all.push_back(string(std::string(key) + "." + std::to_string(i)));
    return all;
  }

private:
  ET_POLICY_(Policy, et_config, config, release);
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
  /// Another reference to a tokenizer.
  explicit Tokenizer(const et_tokenizer *lent) : handle_(ET_SLOT_(tokenizer, retain)(lent)) {}
  /// Number of tokens of the vocabulary.
  std::size_t size() const { return ET_SLOT_(tokenizer, vocab_len)(handle_.get()); }
  /// Id of a token, -1 if it is none.
  std::int64_t id(std::string_view token) const {
    return ET_SLOT_(tokenizer, token_id)(handle_.get(), detail::text(token));
  }
  /// The text of ids, without special tokens.
  std::string decode(const std::vector<std::int64_t> &ids) const {
    return detail::filled([&](et_buffer **out) {
      return ET_SLOT_(tokenizer, decode)(handle_.get(), ids.data(), ids.size(), 1, out);
    });
  }
  /// Encodes a text with the special tokens of the model; `max_len` 0 is no limit.
  Encoding encode(std::string_view text, std::size_t max_len = 0) const { return encode(text, nullptr, max_len); }
  /// Encodes two texts as one input.
  Encoding encode_pair(std::string_view first, std::string_view second, std::size_t max_len = 0) const {
    const et_str pair = detail::text(second);
    return encode(first, &pair, max_len);
  }
  et_tokenizer *get() const noexcept { return handle_.get(); }

private:
  ET_POLICY_(Policy, et_tokenizer, tokenizer, release);
  ET_POLICY_(EncodingPolicy, et_encoding, tokenizer, encoding_release);
  Encoding encode(std::string_view text, const et_str *pair, std::size_t max_len) const {
    const et_encode_options options{sizeof(et_encode_options), max_len, 1, 0};
    et_encoding *raw = nullptr;
    detail::check(ET_SLOT_(tokenizer, encode)(handle_.get(), detail::text(text), pair, &options, &raw));
    const detail::Handle<et_encoding, EncodingPolicy> encoding(raw);
    const std::size_t len = ET_SLOT_(tokenizer, encoding_len)(raw);
    const std::int64_t *ids = ET_SLOT_(tokenizer, encoding_ids)(raw);
    const std::int64_t *segments = ET_SLOT_(tokenizer, encoding_segments)(raw);
    return Encoding{{ids, ids + len}, {segments, segments + len}};
  }
  detail::Handle<et_tokenizer, Policy> handle_;
};

} // namespace v0_2
} // namespace easytransfer

#include "easytransfer_param.hpp"

#endif // EASYTRANSFER_ENGINE_HPP
