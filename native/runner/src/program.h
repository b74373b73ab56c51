// The .pte, called by method name with values by port name.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "pack.h"

namespace diffulex {

// Weights are shared within a process, and found by the digest of their bytes: no two packs of one model in different
// quantisation schemes may be open at once.
class Program {
 public:
  // one_thread: operators run in the caller's thread; else in as many as ExecuTorch takes.
  Program(const Pack& pack, bool one_thread);
  ~Program();

  struct Value {
    std::vector<int64_t> whole;  // of an int64 port
    std::vector<float> real;     // of a float32 port
  };
  using Values = std::map<std::string, Value>;

  // Inputs that the method does not have are left out; one that it has and nobody gave is an error.
  Values call(const std::string& method, const Values& inputs);

 private:
  struct Inside;
  const Pack& pack_;
  std::unique_ptr<Inside> inside_;
};

}  // namespace diffulex
