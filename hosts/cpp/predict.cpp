// Answers the lines of a file with a trained bundle: the label, then the probability of every class, separated by
// tabs.
#include "common.hpp"

int main(int argc, char **argv) {
  return run(argc, argv, 1, 2, "predict BUNDLE [TEXTS]", [](const std::vector<std::string> &arguments) {
    const easytransfer::Runtime runtime;
    easytransfer::App app = runtime.app(arguments[0]);
    const auto answers = app.predict(read_lines(arguments.size() > 1 ? arguments[1] : "-"));
    for (std::size_t row = 0; row < answers.size(); ++row) {
      std::cout << answers.label(row);
      for (std::size_t i = 0; i < answers.classes(); ++i) std::cout << '\t' << number(answers.probability(row, i));
      std::cout << '\n';
    }
  });
}
