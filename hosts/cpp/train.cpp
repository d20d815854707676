// Trains a text classifier on a table with the columns "text" and "label", and writes its bundle.
#include "common.hpp"

int main(int argc, char **argv) {
  const bool scratch = argc > 1 && std::string_view(argv[1]) == "--scratch";
  const char *usage = "train [--scratch] ENCODER TRAIN VALID|- OUTPUT [CONFIG_JSON]";
  return run(argc - scratch, argv + scratch, 4, 5, usage, [&](const std::vector<std::string> &arguments) {
    easytransfer::FitOptions options(arguments[1], arguments[3]);
    options.encoder(arguments[0]).from_scratch(scratch);
    if (arguments[2] != "-") options.valid(arguments[2]);
    if (arguments.size() > 4) options.config(easytransfer::Json::raw(arguments[4]));
    const easytransfer::Runtime runtime;
    const std::string result = runtime.fit(options, [](const easytransfer::Event &event) {
      if (event.kind == ET_EVENT_STEP)
        std::cout << "step " << event.step << '/' << event.total_steps << " loss " << number(event.loss) << '\n';
      return true; // false would end the run
    });
    std::cout << result << '\n';
  });
}
