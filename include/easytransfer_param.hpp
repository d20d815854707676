// easytransfer_param.hpp: parameters in C++17: by themselves, the set of a model, the scopes in which they are
// declared, and random numbers. easytransfer_engine.hpp includes it.
//
// Licensed under the Apache License, Version 2.0.
#ifndef EASYTRANSFER_PARAM_HPP
#define EASYTRANSFER_PARAM_HPP

#include "easytransfer_engine.hpp"

#include <optional>

namespace easytransfer {
inline namespace v0_2 {

/// How a parameter starts.
namespace init {
inline et_init zeros() { return {ET_INIT_ZEROS, 0, 0.0, 0.0}; }
inline et_init constant(double value) { return {ET_INIT_CONSTANT, 0, value, 0.0}; }
inline et_init normal(double mean, double deviation) { return {ET_INIT_NORMAL, 0, mean, deviation}; }
inline et_init uniform(double low, double high) { return {ET_INIT_UNIFORM, 0, low, high}; }
} // namespace init

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
  /// The present value, on the tape where the parameter is trained.
  Tensor tensor() const {
    et_tensor *out = nullptr;
    detail::check(ET_SLOT_(param, tensor)(get(), &out));
    return Tensor(out);
  }
  bool has_grad() const { return ET_SLOT_(param, has_grad)(get()) != 0; }
  /// A copy of the gradient, if one has come.
  std::optional<Tensor> grad() const {
    et_tensor *out = nullptr;
    detail::check(ET_SLOT_(param, grad)(get(), &out));
    return out == nullptr ? std::nullopt : std::optional<Tensor>(Tensor(out));
  }
  void set_grad(const Tensor &grad) { detail::check(ET_SLOT_(param, set_grad)(get(), grad.get())); }
  /// Copies a tensor's values into the parameter.
  void assign(const Tensor &value) { detail::check(ET_SLOT_(param, assign)(get(), value.get())); }
  bool is_trainable() const { return ET_SLOT_(param, is_trainable)(get()) != 0; }
  void set_trainable(bool trainable) { detail::check(ET_SLOT_(param, set_trainable)(get(), trainable ? 1 : 0)); }
  /// Factor on the learning rate.
  double lr_scale() const { return ET_SLOT_(param, lr_scale)(get()); }
  void set_lr_scale(double scale) { detail::check(ET_SLOT_(param, set_lr_scale)(get(), scale)); }
  /// Whether weight decay applies.
  bool has_decay() const { return ET_SLOT_(param, has_decay)(get()) != 0; }
  void set_decay(bool decay) { ET_SLOT_(param, set_decay)(get(), decay ? 1 : 0); }
  /// Adds a low-rank update: the tensor becomes W + scale B A, while W itself is frozen.
  void set_low_rank(const Param &a, const Param &b, double scale) {
    detail::check(ET_SLOT_(param, set_low_rank)(get(), a.get(), b.get(), scale));
  }
  et_param *get() const noexcept { return handle_.get(); }

private:
  ET_POLICY_(Policy, et_param, param, release);
  detail::Handle<et_param, Policy> handle_;
};

/// A named place in a set where parameters are declared.
class Scope {
public:
  /// Takes over a scope.
  explicit Scope(et_scope *raw) noexcept : raw_(raw), owned_(raw) {}
  /// A scope that belongs to the host.
  static Scope lent(const et_scope *raw) noexcept {
    Scope scope(nullptr);
    scope.raw_ = raw;
    return scope;
  }
  /// The scope of a dotted name below this one.
  Scope child(std::string_view name) const {
    et_scope *out = nullptr;
    detail::check(ET_SLOT_(param, scope_child)(raw_, detail::text(name), &out));
    return Scope(out);
  }
  /// Declares a trainable parameter.
  Param param(std::string_view name, const std::vector<std::size_t> &shape, const et_init &init) const {
    et_param *out = nullptr;
    detail::check(ET_SLOT_(param, scope_param)(raw_, detail::text(name), shape.data(), shape.size(), &init, &out));
    return Param(out);
  }
  /// Its dotted name, empty for the outermost one.
  std::string path() const { return detail::copy(ET_SLOT_(param, scope_path)(raw_)); }
  const et_scope *get() const noexcept { return raw_; }

private:
  ET_POLICY_(Policy, et_scope, param, scope_release);
  const et_scope *raw_;
  detail::Handle<et_scope, Policy> owned_;
};

/// A set of parameters: that of a model, which is borrowed from it, or a part of one. Copies are the same set.
class Params {
public:
  explicit Params(et_params *raw) noexcept : raw_(raw) {}
  Params(const Params &other) : raw_(other.raw_) {
    if (other.owned_.get() != nullptr) owned_ = Owned(ET_SLOT_(param, params_retain)(raw_));
  }
  Params(Params &&) noexcept = default;
  Params &operator=(Params other) noexcept {
    std::swap(raw_, other.raw_);
    std::swap(owned_, other.owned_);
    return *this;
  }
  ~Params() = default;
  std::size_t size() const { return ET_SLOT_(param, params_len)(raw_); }
  Param operator[](std::size_t index) const { return Param(ET_SLOT_(param, params_at)(raw_, index)); }
  Param find(std::string_view name) const {
    et_param *out = nullptr;
    detail::check(ET_SLOT_(param, params_find)(raw_, detail::text(name), &out));
    return Param(out);
  }
  /// The outermost scope.
  Scope root() const { return Scope(ET_SLOT_(param, params_root)(raw_)); }
  /// Declares a parameter under a dotted name, for instance the weight of a head. Only before `seal`.
  Param declare(std::string_view name, const std::vector<std::size_t> &shape, const et_init &init) {
    return root().param(name, shape, init);
  }
  /// Moves the parameters into their arena.
  void seal() { detail::check(ET_SLOT_(param, params_seal)(raw_)); }
  void zero_grads() { ET_SLOT_(param, params_zero_grads)(raw_); }
  /// Euclidean norm of all gradients together.
  double grad_norm() const {
    double norm = 0.0;
    detail::check(ET_SLOT_(param, params_grad_norm)(raw_, &norm));
    return norm;
  }
  void scale_grads(double factor) { detail::check(ET_SLOT_(param, params_scale_grads)(raw_, factor)); }
  /// The parameters whose names fit one of the patterns (`*` stands for any text) as a set of their own. Only after
  /// `seal`.
  Params part(const std::vector<std::string> &patterns) const {
    std::vector<et_str> raw;
    for (const std::string &pattern : patterns) raw.push_back(detail::text(pattern));
    et_params *out = nullptr;
    detail::check(ET_SLOT_(param, params_part)(raw_, raw.data(), raw.size(), &out));
    Params part(out);
    part.owned_ = Owned(out);
    return part;
  }
  /// Moves the values towards those of another set, by name: this + factor (from - this).
  void lerp(const Params &from, double factor) { detail::check(ET_SLOT_(param, params_lerp)(raw_, from.raw_, factor)); }
  /// Adds the gradients of another set times a factor, by name.
  void add_grads(const Params &from, double factor) {
    detail::check(ET_SLOT_(param, params_add_grads)(raw_, from.raw_, factor));
  }
  /// Number of elements in the arena; 0 before `seal`.
  std::size_t arena_size() const { return ET_SLOT_(param, params_arena_len)(raw_); }
  /// Fresh state of an optimizer kind of the engine's, an ET_OPTIM_ constant.
  Map optimizer_state(std::int32_t kind) const {
    et_map *out = nullptr;
    detail::check(ET_SLOT_(nn, optim_state)(raw_, kind, &out));
    return Map(out);
  }
  /// One step of such an optimizer.
  void optimizer_step(Map &state, const et_optim_step &step) {
    detail::check(ET_SLOT_(nn, optim_step)(raw_, state.get(), &step));
  }
  et_params *get() const noexcept { return raw_; }

private:
  ET_POLICY_(Policy, et_params, param, params_release);
  using Owned = detail::Handle<et_params, Policy>;
  et_params *raw_;
  /// The reference to a part.
  Owned owned_;
};

/// A counted random number generator that belongs to the host.
class Rng {
public:
  explicit Rng(et_rng *raw) noexcept : raw_(raw) {}
  /// 64 random bits.
  std::uint64_t bits() { return ET_SLOT_(rng, bits)(raw_); }
  /// Uniform numbers in [low, high), F32.
  Tensor uniform(const std::vector<std::size_t> &shape, double low = 0.0, double high = 1.0) {
    et_tensor *out = nullptr;
    detail::check(ET_SLOT_(rng, uniform)(raw_, ET_DTYPE_F32, shape.data(), shape.size(), low, high, &out));
    return Tensor(out);
  }
  /// Normal numbers, F32.
  Tensor normal(const std::vector<std::size_t> &shape, double mean = 0.0, double deviation = 1.0) {
    et_tensor *out = nullptr;
    detail::check(ET_SLOT_(rng, normal)(raw_, ET_DTYPE_F32, shape.data(), shape.size(), mean, deviation, &out));
    return Tensor(out);
  }
  et_rng *get() const noexcept { return raw_; }

private:
  et_rng *raw_;
};

} // namespace v0_2
} // namespace easytransfer

#endif // EASYTRANSFER_PARAM_HPP
