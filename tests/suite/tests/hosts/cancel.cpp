// cancel OPTIONS_JSON OUTPUT STEP: trains; the callback throws after STEP steps, or returns false after -STEP, or
// never does (0). Prints what came out of `fit`.
#include "easytransfer.hpp"

#include <cstdlib>
#include <iostream>
#include <stdexcept>

struct Stop : std::runtime_error {
  using std::runtime_error::runtime_error;
};

int main(int argc, char **argv) {
  if (argc != 4) return 2;
  const int stop = std::atoi(argv[3]);
  const et_host *host = nullptr;
  {
    const easytransfer::Runtime runtime;
    host = et_runtime_host(runtime.get());
    unsigned long calls = 0;
    try {
      std::cout << runtime.fit(argv[1], [&](const easytransfer::Event &event) {
        if (event.kind != ET_EVENT_STEP) return true;
        ++calls;
        const int done = static_cast<int>(event.step);
        if (done == stop) throw Stop("enough");
        return done != -stop;
      }) << '\n';
      if (stop != 0) return 3;
    } catch (const Stop &stopped) {
      std::cout << "threw " << stopped.what() << " after " << calls << " calls\n";
    } catch (const easytransfer::Error &error) {
      if (error.code() != ET_ERR_CANCELLED) {
        std::cerr << error.what() << '\n';
        return 4;
      }
      std::cout << "cancelled after " << calls << " calls\n";
    }
    if (stop != 0) {
      try {
        runtime.app(argv[2]);
        return 5;
      } catch (const easytransfer::Error &) { // what a cancelled run left is no bundle
      }
    }
  }
  return host->live_handles() == 0 ? 0 : 6;
}
