#include "words.h"

#include <utf8proc.h>

#include <cstdlib>
#include <map>

namespace diffulex {
namespace {

const std::string kUnknown = "\xEF\xBF\xBD";  // U+FFFD
const std::map<std::string, std::unique_ptr<Words> (*)(const Pack&)> kKinds = {
    {"sentencepiece", open_pieces}, {"tokenizer.json", open_json}};

// Line ends made LF, control characters dropped, bytes that are no UTF-8 made U+FFFD.
std::string cleaned(const std::string& text) {
  std::string out;
  const auto* at = reinterpret_cast<const utf8proc_uint8_t*>(text.data());
  for (size_t i = 0; i < text.size();) {
    utf8proc_int32_t point = -1;
    const auto size = utf8proc_iterate(at + i, static_cast<utf8proc_ssize_t>(text.size() - i), &point);
    if (size <= 0) {
      out += kUnknown;
      ++i;
    } else if (point == '\r') {
      out += '\n';
      i += text.compare(i, 2, "\r\n") == 0 ? 2 : 1;
    } else {
      const bool control = (point < 0x20 && point != '\t' && point != '\n') || (point >= 0x7F && point < 0xA0);
      if (!control) out.append(text, i, static_cast<size_t>(size));
      i += static_cast<size_t>(size);
    }
  }
  return out;
}

std::string normalized(const std::string& text) {
  const auto clean = cleaned(text);
  utf8proc_uint8_t* made = nullptr;
  const auto* from = reinterpret_cast<const utf8proc_uint8_t*>(clean.data());
  const auto options = static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE);
  const auto size = utf8proc_map(from, static_cast<utf8proc_ssize_t>(clean.size()), &made, options);
  if (size < 0) throw std::runtime_error(utf8proc_errmsg(size));
  std::string out(reinterpret_cast<char*>(made), static_cast<size_t>(size));
  std::free(made);
  return out;
}

bool ends_with(const std::string& text, const std::string& end) {
  return text.size() >= end.size() && text.compare(text.size() - end.size(), end.size(), end) == 0;
}

}  // namespace

std::vector<int64_t> Words::encode(const std::string& text) const { return encode_normalized(normalized(text)); }

std::unique_ptr<Words> open_words(const Pack& pack) {
  const auto kind = kKinds.find(pack.tokenizer_kind);
  if (kind == kKinds.end()) throw BadPack(pack.tokenizer.string() + ": this runner knows no tokenizer " + pack.tokenizer_kind);
  auto words = kind->second(pack);
  if (words->size() > pack.vocab_size) throw BadPack(pack.tokenizer.string() + ": it has more ids than the model");
  return words;
}

size_t whole(const std::string& text) {
  if (ends_with(text, kUnknown)) return text.size() - kUnknown.size();  // of a half character some write one such
  for (size_t back = 1; back <= 3 && back <= text.size(); ++back) {
    const auto byte = static_cast<unsigned char>(text[text.size() - back]);
    if (byte < 0x80) break;
    if (byte >= 0xC0) {
      const size_t needs = byte >= 0xF0 ? 4 : byte >= 0xE0 ? 3 : 2;
      return needs > back ? text.size() - back : text.size();
    }
  }
  return text.size();
}

}  // namespace diffulex
