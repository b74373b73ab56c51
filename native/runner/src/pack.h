// A device pack: verified byte for byte before anything of it is parsed, then read as a contract.
#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

namespace diffulex {

// The pack is damaged, incomplete, or of another version. The program's exit code for it is 3.
struct BadPack : std::runtime_error {
  using std::runtime_error::runtime_error;
};

struct Port {
  std::string name, dtype;
  std::vector<int32_t> shape;
};

struct Method {
  std::string name;
  std::vector<Port> inputs, outputs;
};

struct Pack {
  std::filesystem::path program, tokenizer;
  std::string tokenizer_kind;     // sentencepiece or tokenizer.json
  std::vector<int64_t> controls;  // ids of the tokenizer that mask, end and pad
  std::string context;  // memory, kv or canvas
  int64_t block_size, vocab_size, mask_id;
  std::optional<int64_t> max_length;             // tokens of a text; none: no limit
  std::vector<int64_t> buckets;                  // of a canvas: lengths that can be looked at, up to max_length
  std::optional<int64_t> prefill;                // tokens that a cache takes in at once; none: a block
  std::vector<int64_t> stop_ids, banned;         // what ends a text; what is never shown
  std::vector<std::vector<int64_t>> counts;      // hidden tokens of a block -> how many each step shows
  std::vector<Method> methods;

  const Method& method(const std::string& name) const;
  std::string look(int64_t bucket) const;  // the method that reads a canvas of so many tokens
};

// Checks the sha256 of every file, and that its program has the methods that its context needs.
Pack open_pack(const std::filesystem::path& folder);

}  // namespace diffulex
