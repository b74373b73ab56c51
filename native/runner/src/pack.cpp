#include "pack.h"

#include <openssl/evp.h>

#include <algorithm>
#include <fstream>
#include <iterator>
#include <map>
#include <memory>

namespace diffulex {
namespace {

using nlohmann::json;

constexpr const char* kManifest = "diffulex-edge-checkpoint/1";
constexpr const char* kContract = "diffulex-edge-pack/1";
const std::map<std::string, std::vector<std::string>> kNeeds = {
    {"memory", {"denoise", "commit"}}, {"kv", {"denoise", "commit"}}, {"canvas", {"look", "denoise"}}};

std::string read(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw BadPack(path.string() + ": cannot be read");
  return {std::istreambuf_iterator<char>(file), {}};
}

class Sha256 {
 public:
  Sha256() : context_(EVP_MD_CTX_new(), EVP_MD_CTX_free) { EVP_DigestInit_ex(context_.get(), EVP_sha256(), nullptr); }
  void add(const char* data, size_t size) { EVP_DigestUpdate(context_.get(), data, size); }
  std::string hex() {
    unsigned char bytes[EVP_MAX_MD_SIZE];
    unsigned size = 0;
    EVP_DigestFinal_ex(context_.get(), bytes, &size);
    std::string text;
    for (unsigned i = 0; i < size; ++i) {
      for (int digit : {bytes[i] >> 4, bytes[i] & 15}) text += "0123456789abcdef"[digit];
    }
    return text;
  }

 private:
  std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> context_;
};

std::string sha256_of(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw BadPack(path.string() + ": cannot be read");
  Sha256 sum;
  std::vector<char> piece(1 << 20);
  while (file.read(piece.data(), piece.size()) || file.gcount()) sum.add(piece.data(), file.gcount());
  return sum.hex();
}

// The manifest's entries as Python's json.dumps(entries, sort_keys=True) writes them: its digest is of that.
std::string spelled(const json& files) {
  std::string text = "{";
  for (const auto& [name, entry] : files.items()) {  // nlohmann keeps keys in order
    if (text.size() > 1) text += ", ";
    text += json(name).dump() + ": {\"sha256\": " + entry.at("sha256").dump() + ", \"size\": " + entry.at("size").dump() + "}";
  }
  return text + "}";
}

void verify(const std::filesystem::path& folder) {
  const auto path = folder / "manifest.json";
  const auto manifest = json::parse(read(path));
  if (manifest.at("format") != kManifest || manifest.size() != 3) throw BadPack(path.string() + ": not a manifest of " + kManifest);
  Sha256 sum;
  const auto entries = spelled(manifest.at("files"));
  sum.add(entries.data(), entries.size());
  if (sum.hex() != manifest.at("digest")) throw BadPack(path.string() + ": corrupt: its digest is not that of its entries");
  for (const auto& [name, entry] : manifest.at("files").items()) {
    if (name != std::filesystem::path(name).filename()) throw BadPack(path.string() + ": " + name + " is not a file of this folder");
    if (sha256_of(folder / name) != entry.at("sha256")) throw BadPack((folder / name).string() + ": corrupt: its sha256 is not the manifest's");
  }
  for (const char* name : {"runner.json", "model.pte"}) {
    if (!manifest.at("files").contains(name)) throw BadPack(folder.string() + ": not a pack: it lacks " + name);
  }
}

std::vector<Port> ports(const json& list) {
  std::vector<Port> found;
  for (const auto& port : list) found.push_back({port.at("name"), port.at("dtype"), port.at("shape")});
  return found;
}

Pack contract(const std::filesystem::path& folder) {
  const auto path = folder / "runner.json";
  const auto told = json::parse(read(path));
  if (told.at("format") != kContract) {
    throw BadPack(path.string() + ": format " + told.at("format").dump() + " is not " + kContract);
  }
  const auto& words = told.at("tokenizer");
  Pack pack{
      folder / told.at("program").get<std::string>(),
      folder / words.at("file").get<std::string>(),
      words.at("kind"),
      words.at("controls"),
      told.at("context"),
      told.at("block_size"),
      told.at("vocab_size"),
      told.at("mask_id"),
      std::nullopt,
      told.value("buckets", std::vector<int64_t>{}),
      std::nullopt,
      told.at("stop_ids"),
      told.at("banned"),
      told.at("counts"),
      {},
  };
  if (!told.at("max_length").is_null()) pack.max_length = told.at("max_length").get<int64_t>();
  for (const auto& [name, method] : told.at("methods").items()) {
    pack.methods.push_back({name, ports(method.at("inputs")), ports(method.at("outputs"))});
    if (name == "prefill") pack.prefill = pack.methods.back().inputs.at(0).shape.at(1);
  }
  if (!kNeeds.count(pack.context)) throw BadPack(path.string() + ": context " + pack.context + " is not one that this runner knows");
  for (const auto& name : kNeeds.at(pack.context)) pack.method(name);
  if (pack.context == "canvas") {
    if (!pack.max_length) throw BadPack(path.string() + ": a canvas has a max_length");
    if (pack.buckets.empty()) pack.buckets = {*pack.max_length};
    if (!std::is_sorted(pack.buckets.begin(), pack.buckets.end()) || pack.buckets.back() != *pack.max_length) {
      throw BadPack(path.string() + ": buckets must rise to max_length");
    }
    for (const auto bucket : pack.buckets) pack.method(pack.look(bucket));
  }
  if (pack.block_size < 1 || static_cast<int64_t>(pack.counts.size()) != pack.block_size + 1) {
    throw BadPack(path.string() + ": counts must have a row for each of 0 to block_size hidden tokens");
  }
  return pack;
}

}  // namespace

const Method& Pack::method(const std::string& name) const {
  const auto found = std::find_if(methods.begin(), methods.end(), [&](const Method& each) { return each.name == name; });
  if (found == methods.end()) throw BadPack("the pack's program has no method " + name);
  return *found;
}

std::string Pack::look(int64_t bucket) const {
  return bucket == *max_length ? "look" : "look_of_" + std::to_string(bucket);
}

Pack open_pack(const std::filesystem::path& folder) {
  try {
    verify(folder);
    return contract(folder);
  } catch (const json::exception&) {  // what it says may hold the damaged bytes
    throw BadPack(folder.string() + ": not a pack: manifest.json or runner.json is damaged, or lacks a field");
  }
}

}  // namespace diffulex
