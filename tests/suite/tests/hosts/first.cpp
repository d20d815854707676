// Threads that make the first runtime of a process, and use the engine, at the same moment. Built with
// -fsanitize=thread.
#include "easytransfer.hpp"

#include <atomic>
#include <iostream>
#include <thread>

int main() {
  constexpr int THREADS = 8;
  std::atomic<int> ready{0}, right{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < THREADS; ++i) {
    threads.emplace_back([&, i] {
      ++ready;
      while (ready < THREADS) {
      }
      const easytransfer::Runtime runtime;
      const easytransfer::Tensor value = easytransfer::Tensor::full(i, {2, 3});
      right += (value + value).sum().item() == 12.0 * i;
    });
  }
  for (std::thread &thread : threads) thread.join();
  std::cout << right << " right, " << et_live_handles() << " alive\n";
  return right == THREADS ? 0 : 1;
}
