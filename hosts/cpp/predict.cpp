// Answers the lines of a file with a trained bundle. Lines are texts, or with --records JSON objects from role to
// value ({"question": .., "context": ..}). Written are the label and the probability of every class, separated by
// tabs; with
// --records, and for apps that say no label, the whole answer as JSON.
#include "common.hpp"

int main(int argc, char **argv) {
  const bool records = argc > 1 && std::string(argv[1]) == "--records";
  const int skipped = records ? 1 : 0;
  const auto body = [records](const std::vector<std::string> &arguments) {
    const easytransfer::Runtime runtime;
    easytransfer::App app = runtime.app(arguments[0]);
    const auto lines = read_lines(arguments.size() > 1 ? arguments[1] : "-");
    const auto answers = records ? app.predict_records(lines) : app.predict(lines);
    for (std::size_t row = 0; row < answers.size(); ++row) {
      if (records || !answers.has_label(row)) {
        std::cout << answers.json(row) << '\n';
        continue;
      }
      std::cout << answers.label(row);
      for (std::size_t i = 0; i < answers.classes(); ++i) std::cout << '\t' << number(answers.probability(row, i));
      std::cout << '\n';
    }
  };
  return run(argc - skipped, argv + skipped, 1, 2, "predict [--records] BUNDLE [TEXTS]", body);
}
