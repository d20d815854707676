// The program beside hosts/second.cpp. Prints what the library answers before and after it met the engine.
#include "easytransfer.hpp"

#include <iostream>

extern "C" int second_sum(const et_host *host, et_tensor *lent, double *out, char *text, std::size_t size);

int main() {
  const easytransfer::Runtime runtime;
  const easytransfer::Tensor three = easytransfer::Tensor::full(0.5, {6});
  double sum = 0.0;
  char text[512] = "";
  int code = second_sum(nullptr, three.get(), &sum, text, sizeof text);
  std::cout << code << ' ' << sum << ' ' << text << '\n';
  // One that is left to the library is told of on standard error, and is lost.
  easytransfer::Tensor lost = three;
  if (code != 0) code = second_sum(nullptr, lost.take(), &sum, text, 1);
  text[0] = '\0';
  code = second_sum(runtime.host(), three.get(), &sum, text, sizeof text);
  std::cout << code << ' ' << sum << ' ' << text << '\n';
}
