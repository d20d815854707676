// easytransfer_json.hpp: JSON written in C++17, correctly escaped: options for the library, descriptions and answers
// of plugins. The other headers include it.
//
//   Json().set("hidden_size", 32).set("class", "MyModel").set("batch.rows", 16).text()
//   // {"hidden_size":32,"class":"MyModel","batch":{"rows":16}}
//
// Licensed under the Apache License, Version 2.0.
#ifndef EASYTRANSFER_JSON_HPP
#define EASYTRANSFER_JSON_HPP

#include "easytransfer_tables.hpp"

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <type_traits>

namespace easytransfer {
inline namespace v0_2 {

namespace detail {

/// A JSON string. The text is UTF-8; a NUL and other control characters are escaped.
inline std::string quoted(std::string_view text) {
  std::string json = "\"";
  for (const char character : text) {
    if (character == '"' || character == '\\') {
      json += '\\';
      json += character;
    } else if (static_cast<unsigned char>(character) < 0x20) {
      char escape[8];
      std::snprintf(escape, sizeof escape, "\\u%04x", static_cast<unsigned>(character));
      json += escape;
    } else {
      json += character;
    }
  }
  return json + '"';
}

/// A JSON number, from which the same number is read back; null for what is no finite one.
inline std::string number(double value) {
  if (!std::isfinite(value)) return "null";
  char text[32];
  // As few digits as tell it from its neighbours.
  for (int digits = 15; digits <= 17; ++digits) {
    std::snprintf(text, sizeof text, "%.*g", digits, value);
    if (!(std::strtod(text, nullptr) < value) && !(std::strtod(text, nullptr) > value)) break;
  }
  // JSON has decimal points, whatever locale the program has set.
  for (char &character : text) character = character == ',' ? '.' : character;
  return text;
}

inline std::string finite(double value) {
  if (!std::isfinite(value))
    throw Error(ET_ERR_INVALID_ARGUMENT, "JSON: expected a finite number, found " + std::to_string(value));
  return number(value);
}

} // namespace detail

/// A JSON value: an object at first, whose entries keep their order.
class Json {
public:
  Json() = default;
  Json(const char *text) : Json(std::string_view(text)) {}
  Json(const std::string &text) : Json(std::string_view(text)) {}
  Json(std::string_view text) : raw_(detail::quoted(text)) {}
  Json(bool value) : raw_(value ? "true" : "false") {}
  Json(std::nullptr_t) : raw_("null") {}
  template <class Number, std::enable_if_t<std::is_arithmetic<Number>::value, int> = 0> Json(Number value) {
    if constexpr (std::is_integral<Number>::value) raw_ = std::to_string(value);
    else raw_ = detail::finite(static_cast<double>(value));
  }
  /// An array.
  template <class Item> Json(const std::vector<Item> &items) {
    raw_ = "[";
    for (const auto &item : items) raw_ += (raw_.size() > 1 ? "," : "") + Json(item).text();
    raw_ += "]";
  }
  /// Anything that is JSON already.
  static Json raw(const std::string &json) {
    Json value;
    value.raw_ = json.empty() ? "null" : json;
    return value;
  }

  /// Adds or replaces an entry; a dotted key leads into objects within, which are made on the way. Errors: a key that
  /// leads into a value that is no object of this class.
  Json &set(std::string_view key, const Json &value) {
    const std::size_t dot = key.find('.');
    Json &place = entry(key.substr(0, dot));
    if (dot == std::string_view::npos) place = value;
    else place.set(key.substr(dot + 1), value);
    return *this;
  }
  /// Adds or replaces an entry whose key may have dots.
  Json &set_exactly(std::string_view key, const Json &value) {
    entry(key) = value;
    return *this;
  }
  /// Whether it is an object without entries.
  bool is_empty() const noexcept { return raw_.empty() && entries_.empty(); }
  std::string text() const {
    if (!raw_.empty()) return raw_;
    std::string json = "{";
    for (const auto &entry : entries_)
      json += (json.size() > 1 ? "," : "") + detail::quoted(entry.first) + ":" + entry.second.text();
    return json + "}";
  }

private:
  Json &entry(std::string_view key) {
    if (!raw_.empty())
      throw Error(ET_ERR_INVALID_ARGUMENT,
                  "JSON: " + detail::quoted(key) + ": expected an object around it, found " + raw_);
    for (auto &known : entries_)
      if (known.first == key) return known.second;
    entries_.emplace_back(std::string(key), Json());
    return entries_.back().second;
  }
  /// The text of what is no object.
  std::string raw_;
  std::vector<std::pair<std::string, Json>> entries_;
};

} // namespace v0_2
} // namespace easytransfer

#endif // EASYTRANSFER_JSON_HPP
