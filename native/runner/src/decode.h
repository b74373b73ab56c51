// The denoise loop: the same tokens as diffulex_edge.decode with this program, greedily.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "program.h"

namespace diffulex {

struct Counted {
  int64_t tokens = 0, forwards = 0, commits = 0;
};

// Told of each finished block's new tokens, up to and with what ended the text.
using Told = std::function<void(const std::vector<int64_t>&)>;

struct Options {
  float threshold = 2;  // what is at least so probable is shown at once; above 1: by count alone
  bool dual = false;    // of a canvas, after a first look at each block, read the block alone: Fast-dLLM's cache, not exact
};

// Continues the prompt. Throws std::invalid_argument where the text would be longer than the program takes.
Counted decode(const Pack& pack, Program& program, const std::vector<int64_t>& prompt, int64_t max_new_tokens,
               const Options& options, const Told& told);

}  // namespace diffulex
