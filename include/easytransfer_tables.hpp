// easytransfer_tables.hpp: how C++17 reaches the engine: its tables, its errors, and what owns its objects. The other
// headers include it.
//
// Licensed under the Apache License, Version 2.0.
#ifndef EASYTRANSFER_TABLES_HPP
#define EASYTRANSFER_TABLES_HPP

#include "easytransfer_plugin.h"

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <memory>
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
// Part of every name, so that libraries which were built with different versions of these files share nothing.
inline namespace v0_2 {

/// What failed: a code, one of the ET_ERR_ constants, and a message.
class Error : public std::runtime_error {
public:
  Error(std::int32_t code, const std::string &message, const std::string &details = "")
      : std::runtime_error(message), code_(code), details_(details) {}
  /// One of the ET_ERR_ constants.
  std::int32_t code() const noexcept { return code_; }
  /// The same as data, a JSON object; empty for most errors.
  const char *details() const noexcept { return details_.what(); }
  /// Whether bad input is the cause; programs then end with code 2.
  bool is_user_error() const noexcept {
    return code_ == ET_ERR_BAD_INPUT || code_ == ET_ERR_NOT_FOUND || code_ == ET_ERR_INVALID_ARGUMENT;
  }

private:
  std::int32_t code_;
  // A text whose copy does not throw, as that of an exception must not.
  std::runtime_error details_;
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
  const et_host_rng *rng = nullptr;
  const et_host_context *context = nullptr;
  const et_host_net *net = nullptr;
  const et_host_registry *registry = nullptr;
};

// The tables of the host that this code is attached to. Shared by the libraries of a program that show each other
// their symbols; one that was compiled with -fvisibility=hidden has its own.
inline std::atomic<const Tables *> attached{nullptr};

template <class Table> void fetch(const et_host *host, const char *id, const Table *&out) {
  out = static_cast<const Table *>(host->get_interface(host, id));
}

/// Keeps the host and its tables, from any thread. Tables that it lacks stay empty; what needs them throws.
inline void attach(const et_host *host) {
  const Tables *before = attached.load(std::memory_order_acquire);
  if (host == nullptr || (before != nullptr && before->host == host)) return;
  std::unique_ptr<Tables> found(new Tables);
  found->host = host;
  fetch(host, "et.tensor/1", found->tensor);
  fetch(host, "et.autograd/1", found->autograd);
  fetch(host, "et.nn/1", found->nn);
  fetch(host, "et.data/1", found->data);
  fetch(host, "et.param/1", found->param);
  fetch(host, "et.config/1", found->config);
  fetch(host, "et.tokenizer/1", found->tokenizer);
  fetch(host, "et.stream/1", found->stream);
  fetch(host, "et.session/1", found->session);
  fetch(host, "et.log/1", found->log);
  fetch(host, "et.rng/1", found->rng);
  fetch(host, "et.context/1", found->context);
  fetch(host, "et.net/1", found->net);
  fetch(host, "et.registry/1", found->registry);
  // Two threads that attach to one host at once find the same tables: the second's go. Those of a former host stay,
  // because somebody may be reading them.
  const bool first = attached.compare_exchange_strong(before, found.get(), std::memory_order_acq_rel);
  if (first) static_cast<void>(found.release());
  else if (before->host != host) attach(host);
}

[[noreturn]] inline void unattached() {
  throw Error(ET_ERR_FAILED_PRECONDITION,
              "this library or program has not met the engine: objects of easytransfer.hpp work where a Runtime was "
              "made, and in a plugin; make a Runtime here, or call easytransfer::attach with the host() of another's");
}

/// The tables. Throws where no host was attached.
inline const Tables &tables() {
  const Tables *present = attached.load(std::memory_order_acquire);
  if (present == nullptr) unattached();
  return *present;
}

/// What gives an object back, or NULL. Without it the object stays alive, which is better than calling what is not
/// there; a library without a host says so once, since a destructor cannot throw.
template <class Table, class Slot> Slot releasing(const Table *Tables::*table, Slot Table::*slot) noexcept {
  const Tables *present = attached.load(std::memory_order_acquire);
  if (present == nullptr) {
    static std::atomic<bool> said{false};
    if (!said.exchange(true))
      std::fputs("easytransfer: an object was left to a library that has not met the engine, and is not given back; "
                 "call easytransfer::attach there\n",
                 stderr);
    return nullptr;
  }
  const Table *found = present->*table;
  if (found == nullptr) return nullptr;
  const char *begin = reinterpret_cast<const char *>(found);
  const char *end = reinterpret_cast<const char *>(&(found->*slot) + 1);
  return static_cast<std::size_t>(end - begin) <= found->struct_size ? found->*slot : nullptr;
}

inline et_str text(std::string_view value) noexcept { return et_str{value.data(), value.size()}; }

inline std::string copy(et_str value) { return value.len == 0 ? std::string() : std::string(value.ptr, value.len); }

/// Throws the error that an engine function returned, if it did.
inline void check(et_error *error) {
  if (error == nullptr) return;
  const et_host *host = tables().host;
  const std::int32_t code = host->error_code(error);
  const std::string message = copy(host->error_message(error));
  const std::string details = ET_HAS(host, error_details) ? copy(host->error_details(error)) : std::string();
  host->error_release(error);
  throw Error(code, message, details);
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

// Gives objects of a kind back by a slot of a table. For these files alone.
#define ET_POLICY_(name, raw_type, table, slot)                                                                        \
  struct name {                                                                                                        \
    static void release(raw_type *raw) noexcept {                                                                      \
      const auto give_back =                                                                                           \
          ::easytransfer::detail::releasing(&::easytransfer::detail::Tables::table, &et_host_##table::slot);           \
      if (give_back != nullptr) give_back(raw);                                                                        \
    }                                                                                                                  \
  }

ET_POLICY_(BufferPolicy, et_buffer, data, buffer_release);

} // namespace detail

/// Attaches this library to the engine of another one's Runtime, whose host() it gets, so that it can use objects that
/// come from there. Programs and plugins need it not: Runtime and ET_EXPORT_PLUGIN do the same.
inline void attach(const et_host *host) { detail::attach(host); }

} // namespace v0_2
} // namespace easytransfer

// A slot of an engine table, or an exception where this host lacks it. For these files alone.
#define ET_SLOT_(table, slot)                                                                                          \
  (ET_HAS(::easytransfer::detail::tables().table, slot)                                                                \
       ? ::easytransfer::detail::tables().table->slot                                                                  \
       : (::easytransfer::detail::missing(#table "." #slot), nullptr))

namespace easytransfer {
inline namespace v0_2 {
namespace detail {

/// The text of a buffer that a slot answers with.
template <class Fill> std::string filled(Fill &&fill) {
  Handle<et_buffer, BufferPolicy> buffer;
  check(fill(buffer.out()));
  const std::size_t size = ET_SLOT_(data, buffer_size)(buffer.get());
  return size == 0 ? std::string()
                   : std::string(static_cast<const char *>(ET_SLOT_(data, buffer_data)(buffer.get())), size);
}

} // namespace detail
} // namespace v0_2
} // namespace easytransfer

#endif // EASYTRANSFER_TABLES_HPP
