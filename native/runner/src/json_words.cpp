// tokenizer.json: Hugging Face's own library (native/words), told what diffulex_edge/text/json_tokenizer.py tells it.
#include <fstream>
#include <iterator>

#include "words.h"

#ifdef DIFFULEX_TOKENIZERS

extern "C" {
void* diffulex_words_open(const char* json, size_t size, const int64_t* roles, size_t count);
void diffulex_words_close(void* words);
int64_t diffulex_words_size(const void* words);
bool diffulex_words_encode(const void* words, const char* text, size_t size, void (*take)(void*, const int64_t*, size_t), void* into);
bool diffulex_words_decode(const void* words, const int64_t* ids, size_t count, void (*take)(void*, const char*, size_t), void* into);
}

namespace diffulex {
namespace {

template <typename Values, typename Value>
void taken(void* into, const Value* first, size_t count) {
  static_cast<Values*>(into)->assign(first, first + count);
}

class JsonWords : public Words {
 public:
  explicit JsonWords(const Pack& pack) : words_(nullptr, diffulex_words_close) {
    std::ifstream file(pack.tokenizer, std::ios::binary);
    const std::string json{std::istreambuf_iterator<char>(file), {}};
    words_.reset(diffulex_words_open(json.data(), json.size(), pack.controls.data(), pack.controls.size()));
    if (!words_) throw BadPack(pack.tokenizer.string() + ": not a tokenizer.json, or one of other control tokens");
  }

  int64_t size() const override { return diffulex_words_size(words_.get()); }

  std::string decode(const std::vector<int64_t>& ids) const override {
    std::string text;
    if (!ids.empty() && !diffulex_words_decode(words_.get(), ids.data(), ids.size(), taken<std::string, char>, &text)) {
      throw std::runtime_error("ids that are in no text");
    }
    return text;
  }

 protected:
  std::vector<int64_t> encode_normalized(const std::string& text) const override {
    std::vector<int64_t> ids;
    if (!diffulex_words_encode(words_.get(), text.data(), text.size(), taken<std::vector<int64_t>, int64_t>, &ids)) {
      throw std::runtime_error("the tokenizer has no ids for this text");
    }
    return ids;
  }

 private:
  std::unique_ptr<void, void (*)(void*)> words_;
};

}  // namespace

std::unique_ptr<Words> open_json(const Pack& pack) { return std::make_unique<JsonWords>(pack); }

}  // namespace diffulex

#else

namespace diffulex {

std::unique_ptr<Words> open_json(const Pack& pack) {
  throw BadPack(pack.tokenizer.string() + ": this runner was built without tokenizer.json: cargo was not found");
}

}  // namespace diffulex

#endif
