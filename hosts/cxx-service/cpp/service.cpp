#include "easytransfer-cxx-service/cpp/service.hpp"
#include "easytransfer-cxx-service/src/bridge.rs.h"

#include <iostream>
#include <string>

namespace service {

// A JSON string without its quotes.
static std::string escaped(const std::string &text) {
  static const char digits[] = "0123456789abcdef";
  std::string json;
  for (const char character : text) {
    const unsigned char byte = static_cast<unsigned char>(character);
    if (byte < 0x20) {
      json += "\\u00";
      json += digits[byte >> 4];
      json += digits[byte & 15];
    } else {
      if (character == '"' || character == '\\') json += '\\';
      json += character;
    }
  }
  return json;
}

std::int32_t serve(Service &service) {
  std::int32_t code = 0;
  for (std::string line; std::getline(std::cin, line);) {
    if (line.empty()) continue;
    try {
      const rust::String answer = service.answer(line);
      std::cout << std::string_view(answer.data(), answer.size()) << std::endl;
    } catch (const std::exception &error) {
      // A bad request is answered like a good one, so that answers stay in step with requests.
      std::cout << "{\"error\":\"" << escaped(error.what()) << "\"}" << std::endl;
      code = 2;
    }
  }
  return code;
}

} // namespace service
