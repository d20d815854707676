// What the four programs share: how errors end a program, how texts are read and how numbers are written.
#ifndef HOSTS_COMMON_HPP
#define HOSTS_COMMON_HPP

#include "easytransfer.hpp"

#include <cstdio>
#include <fstream>
#include <iostream>
#include <iterator>
#include <sstream>

using easytransfer::Error;

/// A whole file; "-" is standard input.
inline std::string read_file(const std::string &path) {
  std::ifstream file;
  if (path != "-") file.open(path, std::ios::binary);
  std::istream &input = path == "-" ? std::cin : file;
  if (!input) throw Error(ET_ERR_NOT_FOUND, "read `" + path + "`: expected a file that can be read");
  return std::string(std::istreambuf_iterator<char>(input), std::istreambuf_iterator<char>());
}

inline std::vector<std::string> read_lines(const std::string &path) {
  std::istringstream text(read_file(path));
  std::vector<std::string> lines;
  for (std::string line; std::getline(text, line); lines.push_back(line))
    if (!line.empty() && line.back() == '\r') line.pop_back();
  return lines;
}

/// Nine digits, from which the same single precision number can be read back. All languages write numbers so.
inline std::string number(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.8e", value);
  return text;
}

/// Runs a program: code 2 when bad input is the cause of an error, 1 otherwise. `least` to `most` arguments are taken.
template <class Body>
int run(int argc, char **argv, std::size_t least, std::size_t most, const char *usage, Body &&body) {
  const std::vector<std::string> arguments(argv + 1, argv + argc);
  if (arguments.size() < least || arguments.size() > most) {
    std::cerr << "usage: " << usage << '\n';
    return 2;
  }
  try {
    body(arguments);
  } catch (const Error &error) {
    std::cerr << "error: " << error.what() << '\n';
    return error.is_user_error() ? 2 : 1;
  }
  if (et_live_handles() == 0) return 0;
  std::cerr << "error: " << et_live_handles() << " handles were not given back\n";
  return 1;
}

#endif
