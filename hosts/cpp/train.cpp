// Trains a text classifier on a table with the columns "text" and "label", and writes its bundle.
#include "common.hpp"

/// A JSON string, or null for "-".
static std::string quoted(const std::string &value) {
  if (value == "-") return "null";
  std::string json = "\"";
  for (const char character : value) {
    if (character == '"' || character == '\\') json += '\\';
    json += character;
  }
  return json + '"';
}

int main(int argc, char **argv) {
  const bool scratch = argc > 1 && std::string_view(argv[1]) == "--scratch";
  const char *usage = "train [--scratch] ENCODER TRAIN VALID|- OUTPUT [CONFIG_JSON]";
  return run(argc - scratch, argv + scratch, 4, 5, usage, [&](const std::vector<std::string> &arguments) {
    const std::string options = "{\"encoder\":" + quoted(arguments[0]) + ",\"train\":" + quoted(arguments[1]) +
                                ",\"valid\":" + quoted(arguments[2]) + ",\"output\":" + quoted(arguments[3]) +
                                ",\"from_scratch\":" + (scratch ? "true" : "false") +
                                ",\"config\":" + (arguments.size() > 4 ? arguments[4] : "{}") + "}";
    const easytransfer::Runtime runtime;
    const std::string result = runtime.fit(options, [](const easytransfer::Event &event) {
      if (event.kind == ET_EVENT_STEP)
        std::cout << "step " << event.step << '/' << event.total_steps << " loss " << number(event.loss) << '\n';
      return true; // false would end the run
    });
    std::cout << result << '\n';
  });
}
